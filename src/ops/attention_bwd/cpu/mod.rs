//! The gradients of attention on the CPU: `attention_bwd`, `attention_bwd_bf16`, and what the latter by AMX shares with them.
//!
//! Layout: `q`, `out`, `dout` [batch, len_q, heads_q, head_dim], `k` and `v` [batch, len_k, heads_kv, head_dim] with
//! contiguous rows at any distance, likewise `bias`; the rest and the results contiguous.
//!
//! Algorithm (FlashAttention-2, arXiv 2307.08691, algorithm 2, with 2^x for e^x and the lanes of vectors for keys): first
//! delta = rowsum(dO ∘ O) - dlse. Then a part of the work is a span of the keys of a head ([`Shape::keys`]). Keys and values are
//! transposed once, to Kᵀ and Vᵀ [head_dim][strip], a strip being up to three vectors of keys. For each block
//! of up to 72 rows (queries of all heads of the group, one after the other), from the last to the first: queries and dO are
//! copied, for their rows lie pages apart and two products broadcast them; then, for each strip that some of them see:
//! P = 2^(scale · Q · Kᵀ - lse), masked (`weights`); dS = P ∘ (dO · Vᵀ - delta) (`slopes`); dVᵀ += dOᵀ · P and dKᵀ += Qᵀ · dS
//! (`accumulate`); dQ += dS · K (`to_queries`). So every score is computed once (five products), and nothing of the size of all
//! scores is stored.
//!
//! Two kinds of arithmetic ([`Words`]): in f32, to which operands are widened; and, where they are bf16 and the processor
//! multiplies pairs of bf16 at twice the rate of f32 (AVX512_BF16), in pairs: of columns in Q · Kᵀ and dO · Vᵀ, of queries in dOᵀ · P and
//! Qᵀ · dS, of keys in dS · K, so dS is rounded and stored as both of the latter. dO, P and dS are rounded to bf16; sums, scores,
//! exponentials, P and dP where they make dS, and all results are f32. How they are multiplied is [`Products`]: in register tiles
//! ([`tiles`]), which the rest of this is about, or by AMX ([`matrix`]).
//!
//! Spans of a head add to the same rows of dQ: they take turns, in the order of the keys (`Turns`), so that bits depend on
//! nothing but the problem. Parts are taken in the order of their spans, all heads of one span first, so a part waits
//! only where heads are fewer than threads, and then for a block's time. Where heads or sequences share a bias whose
//! gradient is wanted, one part does all of them.
//!
//! Blocking, with AVX-512, head_dim 64 / 128 and 48 KiB of L1, 2 MiB of L2. L1: a product uses a strip of Kᵀ, Vᵀ, dKᵀ or dVᵀ
//! of 12 / 24 KiB, P and dS of a strip 13.5 KiB each, and eight queries, 2 / 4 KiB, or eight columns of all, 4.5 KiB. L2: Kᵀ, Vᵀ,
//! dKᵀ, dVᵀ and K of a span, up to 800 KiB: 624 / 288 keys; a larger span reads queries and dO, and adds to dQ, less often. Rows
//! of the operands lie pages apart and are asked for ahead ([`Soon`](crate::ops::attend::cpu::Soon)). Tunables, in [`tiles`]:
//! `STRIPS` a multiple of every strip (48, 24, 8), `QUERIES` of 8. With pairs spans have 768 / 432 keys.
//!
//! Bound: FMA; a vector of scores takes 5 · head_dim / 2 cycles of products and about 12 for exponential, slope and their
//! stores: 93 % at most with head_dim 64. Measured with one thread of a Sapphire Rapids VM: 82 % for 577 x 577 x 64 in
//! cache, of which 36.06 vectors of keys that fill 37 cost 2.5 %. Of a Zen 5 VM: 16 x 577 x 577 x 64 77 %, 2048 and 4096 causal of 128
//! 78 to 82 %; with pairs, of twice that peak, 68 to 73, 73 to 78 and 75 to 80 %: their products take half, the rest what it took.
//! Of a Xeon (family 6, model 167) 4096 causal of 8 heads of 128 take 505 ms: copies of rows 3 %, adding dQ 2, keys, values and their
//! gradients 3, exponentials 4; products by themselves thus run at 195 GFLOP/s, which is what operands from L1 allow there.
//!
//! Tried and lost, in cache, 577 x 577 x 64 (1.46 ms) and 384 x 384 x 128 (1.30 ms):
//! - spans of 240 keys with P and dS of a whole span, dQ in one go, and queries as they lie: 1.53 and 1.28 ms; 16 heads of the
//!   first with rows 4 KiB apart: 29 ms instead of 28, with memory shared with busy neighbours 81 to 92 instead of 56 to 68;
//! - spans of 600 KiB to 1.6 MiB, and nothing asked for ahead, on that Xeon: within 2 %, but 2048 causal of 64 without requests 7 %
//!   longer;
//! - queries and dO turned as well, eight values of a step side by side: within 1 % of copies, with 160 KiB for 92;
//! - QUERIES 48: 1.47 and 1.29 ms, 96: 1.46 and 1.29 ms, 144: 1.45 and 1.31 ms. On Zen 5 144 instead of 72: 16 x 577 x 577 x 64 15.1
//!   for 15.6 ms, with pairs 8.86 for 8.93; 2048 causal 392 for 393 ms, with pairs 215 for 212.
#![allow(unsafe_code)] // parts write rows of the results that lie apart

#[cfg(target_arch = "x86_64")]
mod matrix;
mod queries;
mod slot;
mod tiles;
mod turns;

use super::AttentionBwd;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::simd::{Avx512, Bf16Dot};
use crate::backend::cpu::simd::{Lane, Portable, Simd, transpose};
use crate::backend::cpu::{Caps, Cpu, Slots, deal};
use crate::backend::{Backend, Kernel, Kernels, Launch};
#[cfg(target_arch = "x86_64")]
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::attend::Attend;
use crate::ops::attend::cpu::{Masks, PANEL, Rows, Scattered, Single, Words, halves, spread, turn_eight, widen};
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};
#[cfg(target_arch = "x86_64")]
use half::bf16;
use queries::{Mask, Queries};
use slot::{Ahead, Shape, Sight, Slot};
use std::ops::Range;
use tiles::Tiles;
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
        Kernel::new("attention_bwd_bf16__amx", matrix::supports, matrix::launch)
            .takes(TAKES)
            .suits(matrix::suits)
            .workspace(matrix::workspace),
        #[cfg(all(target_arch = "x86_64", not(no_isa), test))]
        matrix::row(),
        #[cfg(all(target_arch = "x86_64", not(no_isa)))]
        Kernel::new("attention_bwd_bf16__avx512bf16", supports_bf16, launch_bf16)
            .takes(TAKES)
            .suits(|_, caps| caps.bf16_dot_is_fast)
            .workspace(workspace_of::<Avx512, Tiles<Bf16Dot>>),
        // The same for all instruction sets.
        ("attention_bwd", supports, launch).takes(TAKES).workspace(workspace_of::<Portable, Tiles<Single>>),
    ];
}

fn supports<S: Simd>(op: &AttentionBwd, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)?;
    // Places of keys are compared as f32.
    Unsupported::at_most("len_k", op.len_k, 1usize << 24)
}

/// A slot for each thread, and delta.
fn workspace_of<S: Simd, P: Products<S>>(op: &AttentionBwd, caps: &Caps) -> usize {
    4 * (caps.threads * P::shape(op.head_dim).len() + op.batch * op.heads_q * op.len_q)
}

fn launch<S: Simd>(_: &Kernel<Cpu, AttentionBwd>, op: &AttentionBwd, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.dtype, T => run::<S, _, T>(s, Tiles(Single), op, l))
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
    run::<_, _, bf16>(s, Tiles(dot), op, l)
}

/// How blocks of queries and strips of keys are multiplied, and how queries lie for that.
trait Products<S: Simd>: Copy + Send + Sync {
    type Words: Words<S>;
    /// What a thread holds while it works on a part.
    type Turn;
    /// Vectors of keys that spans are whole multiples of.
    const UNIT: usize;
    /// Whether each strip adds to `slot.dq`, which then begins with zeros.
    const ADDS: bool;

    fn words(self) -> Self::Words;
    fn begin(self) -> Self::Turn;
    /// Units of a strip, and vectors of a group of columns, at most.
    fn units() -> usize;
    fn columns() -> usize;
    fn shape(head_dim: usize) -> Shape;

    /// Packs rows of queries as [`Slot`] has them, with words of either kind. What sees nothing counts as zeros.
    fn pack<T: Lane>(
        self,
        s: S,
        queries: &Queries<'_>,
        rows: &Rows<'_, T>,
        sight: &Sight<'_>,
        to: &mut [&mut [f32]; 2],
    );

    /// Weights and gradients of scores for some queries, whose first and last are those of tiles, and a strip of the span; what they
    /// add to the gradients of its values and keys.
    #[allow(clippy::too_many_arguments)]
    fn step(
        self,
        s: S,
        turn: &mut Self::Turn,
        strip: Range<usize>,
        rows: Range<usize>,
        mask: Mask<'_>,
        ahead: &mut Ahead,
        slot: &mut Slot<'_>,
    );

    /// After the last step of a block of so many queries: what all have added to their gradients is in `slot.dq`.
    fn end(self, turn: &mut Self::Turn, queries: usize, slot: &mut Slot<'_>);
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
                to[0] = dot(s, dout.row(b, i, h), out.row(b, i, h)) - dlse.map_or(0.0, |dlse| dlse[at]);
            }
        }
    });
}

simd_fn! {
    /// `x · y`
    fn dot[S, T: Lane](s, x: &[f32], y: &[T]) -> f32 {
        let body = x.len() - x.len() % S::LANES;
        let mut sum = s.zero();
        for (x, y) in x[..body].chunks_exact(S::LANES).zip(y.chunks_exact(S::LANES)) {
            sum = s.fma(s.load(x), T::load(s, y), sum);
        }
        if body < x.len() {
            sum = s.fma(s.load_part(&x[body..]), T::load_part(s, &y[body..x.len()]), sum);
        }
        s.sum(sum)
    }
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

fn run<S: Simd, P: Products<S>, T: Lane>(s: S, products: P, op: &AttentionBwd, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let (shape, words) = (P::shape(op.head_dim), products.words());
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

    let unit = P::UNIT * S::LANES;
    let (units, heads) = (op.len_k.div_ceil(unit), (op.batch * op.heads_kv).max(1));
    let spans = PARTS.div_ceil(heads).min(op.len_k.div_ceil(MIN_KEYS)).max(op.len_k.div_ceil(shape.keys()));
    let span = |i: usize| {
        let of_span = deal(units, spans, i);
        of_span.start * unit..of_span.end * unit
    };
    let rows = attend.rows_per_head();
    let (tile, blocks) = (shape.tile[0], rows.div_ceil(shape.queries));
    let tiles = rows.div_ceil(tile);
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
            let (mut slot, mut turn) = (Slot::new(memory, shape), products.begin());
            let pairs = (0..batch * heads)
                .map(|i| (group / of_heads * batch + i / heads, group % of_heads * heads + i % heads));
            for (b, h) in pairs {
                let strips = strips::<S, P>(span(number).len()).count();
                load_keys::<S, P, T>(s, words, &masks, &given, (b, h), span(number), &mut slot);
                // Queries from the last on: with a causal mask those are the ones that all spans have in common.
                for block in (0..blocks).rev() {
                    let of_block = deal(tiles, blocks, block);
                    let (start, end) = (of_block.start * tile, rows.min(of_block.end * tile));
                    let queries =
                        Queries { masks: &masks, b, h, start, count: end - start, span: span(number), dbias: op.dbias };
                    let seen = queries.place(&given, &mut slot);
                    if seen.start.max(queries.span.start) >= seen.end.min(queries.span.end) {
                        continue;
                    }
                    products.pack(s, &queries, &given.q, &slot.sight, &mut slot.q);
                    products.pack(s, &queries, &given.dout, &slot.sight, &mut slot.dout);
                    let ahead = queries.ahead(&given, &gradients, &shape, tile.div_ceil(2 * strips));
                    queries.step(s, products, &mut turn, seen.clone(), ahead, &gradients.dbias, &mut slot);
                    // Turns of a block are those of the spans that it sees.
                    let first = (0..number).find(|&i| span(i).end > seen.start).unwrap_or(number);
                    turns.take((b * op.heads_kv + h) * blocks + block, number - first, || {
                        // SAFETY: a turn ends before the next begins, and no other block has these rows.
                        unsafe { queries.add(s, &gradients.dq, &slot) }
                    });
                }
                // SAFETY: these keys of this head belong to this part alone.
                unsafe { finish::<S, P>(s, attend, (b, h), span(number), &gradients, &mut slot) }
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

/// Cuts `n` into as few and as even ranges as there can be of at most `most`.
fn evenly(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let ranges = n.div_ceil(most);
    (0..ranges).map(move |i| deal(n, ranges, i))
}

/// The strips of a span of `keys` keys.
fn strips<S: Simd, P: Products<S>>(keys: usize) -> impl Iterator<Item = Range<usize>> {
    let unit = P::UNIT * S::LANES;
    evenly(keys / unit, P::units()).map(move |strip| strip.start * unit..strip.end * unit)
}

/// Groups of vectors that columns are cut into: the first column and the vectors of each.
fn columns<S: Simd, P: Products<S>>(columns: usize) -> impl Iterator<Item = (usize, usize)> {
    evenly(columns.div_ceil(S::LANES), P::columns()).map(|group| (group.start * S::LANES, group.len()))
}

simd_fn! {
/// Packs and transposes the keys and values of a span, and notes what decides who sees them.
fn load_keys[S, P: Products<S>, T: Lane](s, words: P::Words, masks: &Masks<'_>, given: &Given<'_, T>, at: (usize, usize), span: Range<usize>, slot: &mut Slot<'_>) {
    let (op, (b, h), shape, sight) = (masks.op, at, slot.shape, &mut slot.sight);
    let (d, depth, exist, padding) = (op.head_dim, shape.depth(), masks.keys(b), masks.padding(b));
    for (lane, key) in span.clone().enumerate() {
        // What is hidden may be anything, and 0 · NaN is not 0.
        let there = key < exist && padding.is_none_or(|p| p[key] != 0);
        let id = if key < exist { masks.ids(b, 0).map_or(0, |(_, ids)| ids[key]) } else { 0 };
        (sight.place[lane], sight.there[lane]) = (key as f32, f32::from(u8::from(there)));
        (sight.key_high[lane], sight.key_low[lane]) = halves(id);
    }
    let (there, of_row) = (&*sight.there, d.div_ceil(shape.values));
    let soon = |rows: &Rows<'_, T>| rows.soon(b, span.start, h, span.end.min(op.len_k) - span.start);
    let mut soon = [soon(&given.k), soon(&given.v)];
    soon.iter_mut().for_each(|rows| rows.fetch(FETCHED));
    for strip in strips::<S, P>(span.len()) {
        soon.iter_mut().for_each(|rows| rows.fetch(strip.len()));
        for (rows, to) in [(&given.k, &mut *slot.kt), (&given.v, &mut *slot.vt)] {
            let to = &mut to[strip.start * depth..strip.end * depth];
            for lane in strip.clone().step_by(8) {
                let all = there[lane..lane + 8].iter().all(|&there| there > 0.0);
                let direct = all.then(|| (rows.from(b, span.start + lane, h), rows.strides[1]));
                let row = |i: usize| (there[lane + i] > 0.0).then(|| rows.row(b, span.start + lane + i, h));
                let to = &mut to[lane - strip.start..];
                turn_eight(s, words, direct, row, None, slot.stage, (to, strip.len(), of_row));
            }
            to[of_row * strip.len()..].fill(0.0);
        }
        let of_strip = strip.start * shape.columns()..strip.end * shape.columns();
        slot.dkt[of_strip.clone()].fill(0.0);
        slot.dvt[of_strip].fill(0.0);
    }
    let row = |lane: usize| (there[lane] > 0.0).then(|| given.k.row(b, span.start + lane, h));
    for (first, vectors) in columns::<S, P>(shape.columns()) {
        let width = vectors * S::LANES;
        let to = slot.k[first * (shape.keys() / shape.values)..].chunks_exact_mut(width);
        for (word, to) in to.take(span.len() / shape.values).enumerate() {
            let columns = |n: usize| row(word * shape.values + n).map(|row| &row[first..d.min(first + width)]);
            spread(s, words, columns, 0, to, PANEL);
        }
    }
}
}

/// Transposes the gradients of a span back and writes them.
///
/// # Safety
/// Nobody else has these keys of this head.
unsafe fn finish<S: Simd, P: Products<S>>(
    s: S,
    op: &Attend,
    (b, h): (usize, usize),
    span: Range<usize>,
    gradients: &Gradients,
    slot: &mut Slot<'_>,
) {
    let (d, columns) = (op.head_dim, slot.shape.columns());
    let place = |key: usize| ((b * op.len_k + key) * op.heads_kv + h) * d;
    let both = [(&gradients.dk, &*slot.dkt, op.scale()), (&gradients.dv, &*slot.dvt, 1.0)];
    for (to, from, factor) in both {
        let mut soon = to.soon(place(span.start), op.heads_kv * d, d, span.end.min(op.len_k) - span.start);
        soon.fetch(FETCHED);
        for strip in strips::<S, P>(span.len()) {
            for lane in strip.clone().step_by(8) {
                soon.fetch(8);
                let from = &from[strip.start * columns + lane - strip.start..];
                transpose(s, from, strip.len(), (d, 8), None, slot.stage, d);
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
