//! The gradients of attention on the CPU: `attention_bwd`, `attention_bwd_bf16`.
//!
//! Layout: `q`, `out`, `dout` [batch, len_q, heads_q, head_dim], `k` and `v` [batch, len_k, heads_kv, head_dim] with
//! contiguous rows at any distance, likewise `bias`; the rest and the results contiguous.
//!
//! Algorithm (FlashAttention-2, arXiv 2307.08691, algorithm 2, with 2^x for e^x and the lanes of vectors for keys): first
//! delta = rowsum(dO ∘ O) - dlse. Then a part of the work is a span of the keys of a head ([`Shape::keys`]). Keys and values are
//! transposed once, to Kᵀ and Vᵀ [head_dim][strip], a strip being up to three vectors of keys. For each block
//! of up to `QUERIES` rows (queries of all heads of the group, one after the other), from the last to the first: queries and
//! dO are packed both ways, since both products broadcast them, eight values side by side; then, for each strip that some
//! of them see: P = 2^(scale · Q · Kᵀ - lse), masked (`weights`); dS = P ∘ (dO · Vᵀ - delta) (`slopes`); dVᵀ += dOᵀ · P and
//! dKᵀ += Qᵀ · dS (`accumulate`); dQ += dS · K (`to_queries`). So every score is computed once (five products), and nothing of
//! the size of all scores is stored.
//!
//! Two kinds of arithmetic ([`Words`]): in f32, to which operands are widened; and, where they are bf16 and the processor
//! multiplies pairs of bf16 at twice the rate of f32 (AVX512_BF16), in pairs: of columns in Q · Kᵀ and dO · Vᵀ, of queries in dOᵀ · P and
//! Qᵀ · dS, of keys in dS · K, so dS is rounded and stored as both of the latter. dO, P and dS are rounded to bf16; sums, scores,
//! exponentials, P and dP where they make dS, and all results are f32.
//!
//! Spans of a head add to the same rows of dQ: they take turns, in the order of the keys (`Turns`), so that bits depend on
//! nothing but the problem. Parts are taken in the order of their spans, all heads of one span first, so a part waits
//! only where heads are fewer than threads, and then for a block's time. Where heads or sequences share a bias whose
//! gradient is wanted, one part does all of them.
//!
//! Blocking, with AVX-512, head_dim 64 / 128 and 48 KiB of L1, 2 MiB of L2. L1: a product uses a strip of Kᵀ, Vᵀ, dKᵀ or dVᵀ
//! of 12 / 24 KiB, P and dS of a strip 13.5 KiB each, and a panel of 16 queries 4 / 8 KiB. L2: Kᵀ, Vᵀ, dKᵀ, dVᵀ and K of a span,
//! up to `SPAN_BYTES`: 624 / 288 keys; a larger span reads queries and dO, and adds to dQ, less often. Rows of the operands lie
//! pages apart and are asked for ahead ([`Soon`](crate::ops::attend::cpu::Soon)). Tunables: `STRIPS` a multiple of every strip
//! (48, 24, 8), `QUERIES` of 8. With pairs spans have 768 / 432 keys.
//!
//! Bound: FMA; a vector of scores takes 5 · head_dim / 2 cycles of products and about 12 for exponential, slope and their
//! stores: 93 % at most with head_dim 64. Measured with one thread of a Sapphire Rapids VM: 82 % for 577 x 577 x 64 in
//! cache, of which 36.06 vectors of keys that fill 37 cost 2.5 %. Of a Zen 5 VM: 16 x 577 x 577 x 64 77 %, 2048 and 4096 causal of 128
//! 78 to 82 %; with pairs, of twice that peak, 68 to 73, 73 to 78 and 75 to 80 %: their products take half, the rest what it took.
//!
//! Tried and lost, in cache, 577 x 577 x 64 (1.46 ms) and 384 x 384 x 128 (1.30 ms):
//! - spans of 240 keys with P and dS of a whole span, dQ in one go, and queries as they lie: 1.53 and 1.28 ms; 16 heads of the
//!   first with rows 4 KiB apart: 29 ms instead of 28, with memory shared with busy neighbours 81 to 92 instead of 56 to 68;
//! - QUERIES 48: 1.47 and 1.29 ms, 96: 1.46 and 1.29 ms, 144: 1.45 and 1.31 ms. On Zen 5 144 instead of 72: 16 x 577 x 577 x 64 15.1
//!   for 15.6 ms, with pairs 8.86 for 8.93; 2048 causal 392 for 393 ms, with pairs 215 for 212.
#![allow(unsafe_code)] // parts write rows of the results that lie apart

mod block;
mod turns;

use super::AttentionBwd;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::simd::{Avx512, Bf16Dot};
use crate::backend::cpu::simd::{Lane, Simd, transpose};
use crate::backend::cpu::{Caps, Cpu, Slots, deal};
use crate::backend::{Backend, Kernel, Kernels, Launch};
#[cfg(target_arch = "x86_64")]
use crate::dtype::DType;
use crate::dtype::Elem;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::attend::Attend;
use crate::ops::attend::cpu::{
    Masks, PANEL, Rows, Scattered, Single, Words, halves, max_nv, spread, turn_eight, widen,
};
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};
use block::{Ahead, Mask, QUERIES, ROOM, Shape, Slot, columns};
#[cfg(target_arch = "x86_64")]
use half::bf16;
use std::ops::Range;
use turns::Turns;

/// Places of the operands.
const OUT: usize = 3;
const LSE: usize = 4;
const DOUT: usize = 5;
const BIAS: usize = 6;
const DLSE: usize = 11;

const ROWS: Takes = Takes::Rows;
const TAKES: &[Takes] = &[ROWS, ROWS, ROWS, ROWS, Takes::Contiguous, ROWS, ROWS];

impl Kernels<Cpu> for AttentionBwd {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![
        #[cfg(all(target_arch = "x86_64", not(no_isa)))]
        Kernel::new("attention_bwd_bf16__avx512bf16", supports_bf16, launch_bf16)
            .takes(TAKES)
            .suits(|_, caps| caps.bf16_dot_is_fast)
            .workspace(|op, caps| workspace(op, caps, 2)),
        ("attention_bwd", supports, launch).takes(TAKES).workspace(|op, caps| workspace(op, caps, 1)),
    ];
}

fn supports<S: Simd>(op: &AttentionBwd, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)?;
    // Places of keys are compared as f32.
    Unsupported::at_most("len_k", op.len_k, 1usize << 24)
}

/// A slot for each thread, with so many values in a word, and delta.
fn workspace(op: &AttentionBwd, caps: &Caps, values: usize) -> usize {
    4 * (caps.threads * shape(op, values).len() + op.batch * op.heads_q * op.len_q)
}

fn shape(op: &AttentionBwd, values: usize) -> Shape {
    Shape { head_dim: op.head_dim, values }
}

fn launch<S: Simd>(_: &Kernel<Cpu, AttentionBwd>, op: &AttentionBwd, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.dtype, T => run::<S, _, T>(s, Single, op, l))
}

#[cfg(target_arch = "x86_64")]
fn supports_bf16(op: &AttentionBwd, caps: &Caps) -> Result<(), Unsupported> {
    supports::<Avx512>(op, caps)?;
    Unsupported::require("a processor with AVX512_BF16", caps.bf16_dot)?;
    Unsupported::require("bf16 operands", op.dtype == DType::BF16)?;
    // Gradients of scores are only kept as words.
    Unsupported::require("no gradient of a bias", !op.dbias)
}

#[cfg(target_arch = "x86_64")]
fn launch_bf16(_: &Kernel<Cpu, AttentionBwd>, op: &AttentionBwd, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let (s, dot) = Avx512::detect().zip(Bf16Dot::detect()).expect("supports_bf16() has checked it");
    run::<_, _, bf16>(s, dot, op, l)
}

/// Queries whose deltas are a part of the work.
const DELTAS: usize = 32;

/// `delta = rowsum(dout ∘ out) - dlse`, in the order of the rows in memory, not of `delta` [batch, heads, queries].
fn deltas<S: Simd, O: Lane>(s: S, op: &AttentionBwd, l: &Launch<'_, Cpu>, delta: &mut [f32]) {
    let attend = &op.attend();
    let (out, dout, dlse) =
        (Rows::<O>::new(attend, l, OUT), Rows::<f32>::new(attend, l, DOUT), l.optional::<f32>(DLSE));
    let (delta, parts) = (Scattered::new(Some(delta)), op.len_q.div_ceil(DELTAS));
    l.pool().run(op.batch * parts, |part| {
        let (b, first) = (part / parts, part % parts * DELTAS);
        for i in first..op.len_q.min(first + DELTAS) {
            for h in 0..op.heads_q {
                let at = (b * op.heads_q + h) * op.len_q + i;
                // SAFETY: this part alone has this query.
                let to = unsafe { delta.get(at, 1) };
                to[0] = block::dot(s, dout.row(b, i, h), out.row(b, i, h)) - dlse.map_or(0.0, |dlse| dlse[at]);
            }
        }
    });
}

/// Parts at least, if there are keys enough.
const PARTS: usize = 4;
/// Keys of a span at least: one that is cut for the sake of `PARTS`.
const MIN_KEYS: usize = 192;

/// The operands that parts read besides the masks.
struct Given<'a, T> {
    q: Rows<'a, T>,
    k: Rows<'a, T>,
    v: Rows<'a, T>,
    dout: Rows<'a, f32>,
    lse: &'a [f32],
    delta: &'a [f32],
}

fn run<S: Simd, W: Words<S>, T: Lane>(s: S, words: W, op: &AttentionBwd, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let shape = shape(op, W::VALUES);
    let slots = Cpu::caps(l.device).threads * shape.len();
    let (slots, delta) = l.scratch::<f32>().split_at_mut(slots);
    with_float!(op.out, O => deltas::<S, O>(s, op, l, delta));
    let attend = &op.attend();
    let masks = Masks::new("attention_bwd", attend, l, BIAS)?;
    let [q, k, v] = [0, 1, 2].map(|i| Rows::<T>::new(attend, l, i));
    let given = Given { q, k, v, dout: Rows::new(attend, l, DOUT), lse: l.input(LSE), delta };
    // What nothing is added to stays zero.
    let mut zeroed = |i: usize| {
        let result = l.output::<f32>(i).unwrap_or_default();
        l.pool().chunks_mut(result, 1 << 16, |_, part| part.fill(0.0));
        Scattered::new(Some(result))
    };
    let (dq, dbias) = (zeroed(0), zeroed(3));
    let gradients = Gradients { dq, dbias, dk: Scattered::new(l.output(1)), dv: Scattered::new(l.output(2)) };

    let (vectors, heads) = (op.len_k.div_ceil(S::LANES), (op.batch * op.heads_kv).max(1));
    let spans = PARTS.div_ceil(heads).min(op.len_k.div_ceil(MIN_KEYS)).max(op.len_k.div_ceil(shape.keys()));
    let span = |i: usize| {
        let of_span = deal(vectors, spans, i);
        of_span.start * S::LANES..of_span.end * S::LANES
    };
    let rows = attend.rows_per_head();
    let (eights, blocks) = (rows.div_ceil(8), rows.div_ceil(QUERIES));
    let turns = Turns::new(op.batch * op.heads_kv * blocks);
    // A part does all sequences and heads that add to the same gradient of a bias.
    let together = |shared: bool, all: usize| if op.dbias && shared { all.max(1) } else { 1 };
    let (batch, heads) = (together(op.bias_batch == 1, op.batch), together(op.bias_heads == 1, op.heads_kv));
    let (of_batch, of_heads) = (op.batch / batch, op.heads_kv / heads);
    let groups = of_batch * of_heads;

    let slots = Slots::new(slots, shape.len());
    l.pool().run(spans * groups, |_| {
        slots.with(|memory| {
            let _watch = turns.watch();
            let part = turns.next_part();
            let (number, group) = (part / groups, part % groups);
            let mut slot = Slot::new(memory, shape);
            let pairs = (0..batch * heads)
                .map(|i| (group / of_heads * batch + i / heads, group % of_heads * heads + i % heads));
            for (b, h) in pairs {
                load_keys(s, words, &masks, &given, (b, h), span(number), &mut slot);
                // Queries from the last on: with a causal mask those are the ones that all spans have in common.
                for block in (0..blocks).rev() {
                    let of_block = deal(eights, blocks, block);
                    let (start, end) = (of_block.start * 8, rows.min(of_block.end * 8));
                    let queries =
                        Queries { masks: &masks, b, h, start, count: end - start, span: span(number), dbias: op.dbias };
                    let seen = queries.place(&given, &mut slot);
                    if seen.start.max(queries.span.start) >= seen.end.min(queries.span.end) {
                        continue;
                    }
                    load_queries(s, words, &queries, &given, &mut slot);
                    let ahead = queries.ahead(&given, &gradients);
                    queries.step(s, words, seen.clone(), ahead, &gradients.dbias, &mut slot);
                    // Turns of a block are those of the spans that it sees.
                    let first = (0..number).find(|&i| span(i).end > seen.start).unwrap_or(number);
                    turns.take((b * op.heads_kv + h) * blocks + block, number - first, || {
                        // SAFETY: a turn ends before the next begins, and no other block has these rows.
                        unsafe { queries.add(s, &gradients.dq, &slot) }
                    });
                }
                // SAFETY: these keys of this head belong to this part alone.
                unsafe { finish(s, attend, (b, h), span(number), &gradients, &mut slot) }
            }
        })
    });
    Ok(())
}

/// The results.
struct Gradients {
    dq: Scattered<f32>,
    dk: Scattered<f32>,
    dv: Scattered<f32>,
    dbias: Scattered<f32>,
}

/// Rows that are asked for before they are wanted.
const FETCHED: usize = 24;

/// The strips of a span of `keys` keys: as few and as even as the register tile allows.
fn strips<S: Simd>(keys: usize) -> impl Iterator<Item = Range<usize>> {
    let vectors = keys / S::LANES;
    let strips = vectors.div_ceil(max_nv::<S>());
    (0..strips).map(move |i| {
        let of_strip = deal(vectors, strips, i);
        of_strip.start * S::LANES..of_strip.end * S::LANES
    })
}

simd_fn! {
/// Packs and transposes the keys and values of a span, and notes what decides who sees them.
fn load_keys[S, W: Words<S>, T: Lane](s, words: W, masks: &Masks<'_>, given: &Given<'_, T>, at: (usize, usize), span: Range<usize>, slot: &mut Slot<'_>) {
    let (op, (b, h)) = (masks.op, at);
    let (d, depth, exist, padding) = (op.head_dim, slot.shape.depth(), masks.keys(b), masks.padding(b));
    for (lane, key) in span.clone().enumerate() {
        // What is hidden may be anything, and 0 · NaN is not 0.
        let there = key < exist && padding.is_none_or(|p| p[key] != 0);
        let id = if key < exist { masks.ids(b, 0).map_or(0, |(_, ids)| ids[key]) } else { 0 };
        (slot.place[lane], slot.there[lane]) = (key as f32, f32::from(u8::from(there)));
        (slot.key_high[lane], slot.key_low[lane]) = halves(id);
    }
    let soon = |rows: &Rows<'_, T>| rows.soon(b, span.start, h, span.end.min(op.len_k) - span.start);
    let mut soon = [soon(&given.k), soon(&given.v)];
    soon.iter_mut().for_each(|rows| rows.fetch(FETCHED));
    for strip in strips::<S>(span.len()) {
        soon.iter_mut().for_each(|rows| rows.fetch(strip.len()));
        for (rows, to) in [(&given.k, &mut *slot.kt), (&given.v, &mut *slot.vt)] {
            for lane in strip.clone().step_by(8) {
                let all = slot.there[lane..lane + 8].iter().all(|&there| there > 0.0);
                let direct = all.then(|| (rows.from(b, span.start + lane, h), rows.strides[1]));
                let row = |i: usize| (slot.there[lane + i] > 0.0).then(|| rows.row(b, span.start + lane + i, h));
                let to = &mut to[strip.start * depth + lane - strip.start..];
                turn_eight(s, words, direct, row, None, slot.stage, (to, strip.len(), depth));
            }
        }
        let of_strip = strip.start * d..strip.end * d;
        slot.dkt[of_strip.clone()].fill(0.0);
        slot.dvt[of_strip].fill(0.0);
    }
    let row = |lane: usize| (slot.there[lane] > 0.0).then(|| given.k.row(b, span.start + lane, h));
    for (first, vectors) in columns::<S>(d) {
        let width = vectors * S::LANES;
        let to = slot.k[first * (slot.shape.keys() / W::VALUES)..].chunks_exact_mut(width);
        for (word, to) in to.take(span.len() / W::VALUES).enumerate() {
            let columns = |n: usize| row(word * W::VALUES + n).map(|row| &row[first..d.min(first + width)]);
            spread(s, words, columns, 0, to, PANEL);
        }
    }
}
}

/// A block of the queries that share a head of keys, and the span of keys that it meets.
pub struct Queries<'a> {
    masks: &'a Masks<'a>,
    b: usize,
    h: usize,
    /// The first row: query `row % len_q` of head `row / len_q` of the group.
    start: usize,
    count: usize,
    span: Range<usize>,
    /// Whether the gradient of the bias is wanted.
    dbias: bool,
}

impl Queries<'_> {
    /// The head and the place of the query of a row.
    fn row(&self, row: usize) -> (usize, usize) {
        self.masks.op.query(self.h, self.start + row)
    }

    /// The bias of a row's scores, one for each key.
    fn bias(&self, row: usize) -> Option<&[f32]> {
        let (head, i) = self.row(row.min(self.count - 1));
        self.masks.bias(self.b, head, i)
    }

    /// Notes what decides what each row sees. Gives the keys from the first that some row sees by its place to the last.
    fn place<T>(&self, given: &Given<'_, T>, slot: &mut Slot<'_>) -> Range<usize> {
        let op = self.masks.op;
        let (mut first, mut end) = (usize::MAX, 0);
        // What fills the last tile up sees nothing.
        for row in self.count..self.count.next_multiple_of(8) {
            for of_row in [&mut slot.lo, &mut slot.hi, &mut slot.minus_lse, &mut slot.delta] {
                of_row[row] = 0.0;
            }
        }
        for row in 0..self.count {
            let (head, i) = self.row(row);
            let at = (self.b * op.heads_q + head) * op.len_q + i;
            let (lse, seen) = (given.lse[at], self.masks.visible(self.b, i));
            // A query that saw nothing has no share, and -inf - -inf is not a number.
            let sees = lse > f32::NEG_INFINITY && !seen.is_empty();
            if sees {
                (first, end) = (first.min(seen.start), end.max(seen.end));
            }
            (slot.lo[row], slot.hi[row]) = if sees { (seen.start as f32, seen.end as f32) } else { (0.0, 0.0) };
            (slot.minus_lse[row], slot.delta[row]) =
                if sees { (lse * -std::f32::consts::LOG2_E, given.delta[at]) } else { (0.0, 0.0) };
            (slot.id_high[row], slot.id_low[row]) = halves(self.masks.ids(self.b, i).map_or(0, |(id, _)| id));
        }
        first..end
    }

    /// The rows that the next block takes, and those of its gradients.
    fn ahead<T: Elem>(&self, given: &Given<'_, T>, gradients: &Gradients) -> Ahead {
        let (op, n) = (self.masks.op, self.start.min(QUERIES));
        let ((head, i), (head_next, i_next)) = (op.query(self.h, self.start), op.query(self.h, self.start - n));
        let (b, d) = (self.b, op.head_dim);
        let dq = gradients.dq.soon(((b * op.len_q + i) * op.heads_q + head) * d, op.heads_q * d, d, self.count);
        let next = |n: usize| (b, i_next, head_next, n.min(op.len_q - i_next));
        let (b, i, head, n) = next(n);
        Ahead { rows: [given.q.soon(b, i, head, n), given.dout.soon(b, i, head, n), dq], each: 1 }
    }

    /// What this block adds to the gradients of the span's keys and values, in `slot.dq` to that of its queries, and to
    /// that of the bias, if it is wanted.
    fn step<S: Simd, W: Words<S>>(
        &self,
        s: S,
        words: W,
        seen: Range<usize>,
        mut ahead: Ahead,
        dbias: &Scattered<f32>,
        slot: &mut Slot<'_>,
    ) {
        let scale = self.masks.op.scale_log2();
        let others = (!self.masks.by_place_alone()).then_some(self);
        slot.dq[..self.count * slot.shape.wide()].fill(0.0);
        for strip in strips::<S>(self.span.len()) {
            let (first, end) = (self.span.start + strip.start, self.span.start + strip.end);
            if end <= seen.start || first >= seen.end {
                continue;
            }
            let (first, end) = (first as f32, end as f32);
            let sees = |&row: &usize| slot.lo[row] < end && slot.hi[row] > first;
            // Tiles begin at a multiple of 8 rows; words of rows are whole.
            let start = (0..self.count).find(sees).unwrap_or(0) / 8 * 8;
            let rows = start..(0..self.count).rfind(sees).map_or(start, |last| last + 1).next_multiple_of(W::VALUES);
            if rows.is_empty() {
                continue;
            }
            let bounded = rows.clone().any(|row| slot.lo[row] > first || slot.hi[row] < end);
            let mask = Mask { scale, bounded, others };
            match strip.len() / S::LANES {
                1 => block::step::<S, W, 1>(s, words, strip.start, rows.clone(), mask, &mut ahead, slot),
                2 => block::step::<S, W, 2>(s, words, strip.start, rows.clone(), mask, &mut ahead, slot),
                _ => block::step::<S, W, 3>(s, words, strip.start, rows.clone(), mask, &mut ahead, slot),
            }
            if self.dbias {
                self.add_bias(s, dbias, rows, strip, slot);
            }
        }
    }

    /// Adds `slot.dq`, scaled, to the gradients of the queries.
    ///
    /// # Safety
    /// Nobody else has these rows meanwhile.
    unsafe fn add<S: Simd>(&self, s: S, dq: &Scattered<f32>, slot: &Slot<'_>) {
        let (op, d) = (self.masks.op, slot.shape.head_dim);
        for (row, add) in slot.dq.chunks_exact(slot.shape.wide()).take(self.count).enumerate() {
            let (head, i) = self.row(row);
            // SAFETY: what this function demands.
            let to = unsafe { dq.get(((self.b * op.len_q + i) * op.heads_q + head) * d, d) };
            block::add(s, op.scale(), add, to);
        }
    }

    /// Adds `slot.ds` of some rows and a strip to the gradient of the bias.
    fn add_bias<S: Simd>(
        &self,
        s: S,
        dbias: &Scattered<f32>,
        rows: Range<usize>,
        strip: Range<usize>,
        slot: &Slot<'_>,
    ) {
        let (op, one) = (self.masks.op, |shared: bool, i: usize| if shared { 0 } else { i });
        let keys = self.span.start + strip.start..self.span.start + strip.end;
        for row in rows {
            let ((head, i), ds) = (self.row(row), &slot.ds[row * strip.len()..][..strip.len()]);
            let (lo, hi) = (keys.start.max(slot.lo[row] as usize), keys.end.min(slot.hi[row] as usize));
            if lo < hi {
                let (b, head) = (one(op.bias_batch == 1, self.b), one(op.bias_heads == 1, head));
                let at = ((b * op.bias_heads + head) * op.len_q + i) * op.len_k + lo;
                // SAFETY: this part alone does the sequences and heads that share these rows of the bias, one after the
                // other, and no other span has these keys.
                let to = unsafe { dbias.get(at, hi - lo) };
                block::add(s, 1.0, &ds[lo - keys.start..], to);
            }
        }
    }
}

simd_fn! {
/// Packs the queries of a block and the gradients that arrive at their results; see [`Slot`] for the layout.
fn load_queries[S, W: Words<S>, T: Lane](s, words: W, queries: &Queries<'_>, given: &Given<'_, T>, slot: &mut Slot<'_>) {
    let sees = |r: usize| slot.lo[r] < slot.hi[r];
    pack(s, words, queries, &given.q, &sees, (&mut *slot.qt, &mut *slot.q, &mut *slot.stage));
    pack(s, words, queries, &given.dout, &sees, (&mut *slot.doutt, &mut *slot.dout, &mut *slot.stage));
}
}

/// Packs rows of queries, turned and as they are. What sees nothing counts as zeros.
#[inline(always)]
fn pack<S: Simd, W: Words<S>, T: Lane>(
    s: S,
    words: W,
    queries: &Queries<'_>,
    rows: &Rows<'_, T>,
    sees: &impl Fn(usize) -> bool,
    (turned, plain, stage): (&mut [f32], &mut [f32], &mut [f32]),
) {
    let (op, b, depth) = (queries.masks.op, queries.b, queries.masks.op.head_dim.div_ceil(W::VALUES));
    let row = |r: usize| {
        let (head, i) = queries.row(r);
        (r < queries.count && sees(r)).then(|| rows.row(b, i, head))
    };
    for first in (0..queries.count).step_by(8) {
        let (head, i) = queries.row(first);
        let all = first + 8 <= queries.count && i + 8 <= op.len_q && (first..first + 8).all(sees);
        let direct = all.then(|| (rows.from(b, i, head), rows.strides[1]));
        let to = &mut turned[first / PANEL * PANEL * depth..][..PANEL * depth][first % PANEL..];
        turn_eight(s, words, direct, |i| row(first + i), None, stage, (to, PANEL, depth));
    }
    for r in (0..queries.count).step_by(W::VALUES) {
        spread(s, words, |n| row(r + n), r / W::VALUES, plain, ROOM / W::VALUES * PANEL);
    }
}

/// Transposes the gradients of a span back and writes them.
///
/// # Safety
/// Nobody else has these keys of this head.
unsafe fn finish<S: Simd>(
    s: S,
    op: &Attend,
    (b, h): (usize, usize),
    span: Range<usize>,
    gradients: &Gradients,
    slot: &mut Slot<'_>,
) {
    let d = op.head_dim;
    let place = |key: usize| ((b * op.len_k + key) * op.heads_kv + h) * d;
    let both = [(&gradients.dk, &*slot.dkt, op.scale()), (&gradients.dv, &*slot.dvt, 1.0)];
    for (to, from, factor) in both {
        let mut soon = to.soon(place(span.start), op.heads_kv * d, d, span.end.min(op.len_k) - span.start);
        soon.fetch(FETCHED);
        for strip in strips::<S>(span.len()) {
            for lane in strip.clone().step_by(8) {
                soon.fetch(8);
                transpose(s, &from[strip.start * d + lane - strip.start..], strip.len(), (d, 8), None, slot.stage, d);
                let keys = span.start + lane..op.len_k.min(span.start + lane + 8);
                for (key, row) in keys.zip(slot.stage.chunks_exact(d)) {
                    // SAFETY: what this function demands.
                    let to = unsafe { to.get(place(key), d) };
                    widen(s, row, factor, to);
                }
            }
        }
    }
}
