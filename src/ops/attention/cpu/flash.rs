//! Blocked attention: `attention_flash`, `attention_flash_bf16`.
//!
//! Layout: `q` [batch, len_q, heads_q, head_dim], `k` and `v` [batch, len_k, heads_kv, head_dim] with contiguous rows at any
//! distance, likewise `bias`; ids, padding, lengths and results contiguous.
//!
//! Algorithm (FlashAttention-2, arXiv 2307.08691, algorithm 1, with 2^x for e^x and the lanes of vectors for queries):
//! the queries of all heads of a group that share keys form one column of rows, cut into blocks of up to three vectors. A
//! part of the work holds as many blocks as its share of L2 takes. For each block of `BK` keys that some of them see, keys
//! and values are widened and packed once (`pack`); then each block of queries meets them: Sᵀ = K · Qᵀ is masked and stored
//! with its maxima on the way (`scores`), P = 2^(S - m) replaces it, and Oᵀ = Oᵀ · 2^(m_old - m) + Vᵀ · P (`accumulate`),
//! where the factor is left out if no maximum moved. Queries are scaled by softmax_scale · log2 e and transposed when a block
//! meets its first keys, Oᵀ / l is transposed back after its last. Blocks of keys that nobody sees are not visited; every
//! lane meets the same blocks of keys in the same order, however queries are dealt out, so bits depend on the problem alone.
//!
//! Two kinds of arithmetic ([`Words`]): in f32, to which operands are widened; and, where operands and result are bf16 and the
//! processor multiplies pairs of them at twice the rate of f32 (AVX512_BF16), in pairs: queries and keys are pairs of columns as they
//! lie in memory, values are packed as pairs of keys, weights are rounded to pairs of keys. Sums, scores, softmax and O stay f32, and
//! scores are scaled instead of queries, which thus are what they were. Errors are 1.3 times those of rounding the result alone
//! (2.2e-3 for 1.7e-3).
//!
//! A part with a single block of queries reads f32 keys and values where they lie: it would read what it packs only once.
//!
//! Rows of a head lie pages apart, where no hardware prefetcher follows: while a block is worked on, the rows that come next
//! (keys and values of the next block, queries of the next block, the places of results) are asked for, a few before
//! each register tile ([`Soon`]).
//!
//! Blocking, with AVX-512 (48 queries), head_dim 64 / 128 and 48 KiB of L1, 2 MiB of L2:
//! - L1, scores: Qᵀ 12 / 24 KiB stays, eight keys of 2 / 4 KiB and the new rows of P stream: with BK 64 P has 12 KiB.
//! - L1, results: P 12 KiB stays, a panel of 16 columns 4 KiB and a tile of Oᵀ 1.5 KiB stream.
//! - L2: Qᵀ and Oᵀ of a part up to `HELD_BYTES`, that is 512 / 256 queries; packed keys and values 40 / 80 KiB. Packing takes
//!   about 23 cycles for a row of 64 values, against 64 for a vector of queries to meet a key and its value: 4 % for 16
//!   vectors, 2 % for 32.
//! - Pairs: the same with half of Qᵀ, keys, values and weights, so a block has 128 keys (64: 1 to 3 % longer).
//! - Up to `MORE` keys beyond the last whole block join it (197 = 64 + 64 + 69, 577 = 8 · 64 + 65).
//!
//! Bound: FMA. With head_dim 64 a vector of scores takes 64 cycles of products and 5 of exponentials (`math::exp2`), so
//! 92 % of the peak is the most; 96 % with 128. With pairs products take half of that, and exponentials what they took. On Zen 5,
//! one thread: 12 x 197 x 197 x 64 73 to 75 %, 16 x 577 x 577 x 64 79 to 81 %, 2048 causal of 128 75 to 81 %; pairs, of twice that
//! peak, 63 to 66, 74 to 76 and 81 %.
//!
//! Where the time goes (samples of one thread of a Sapphire Rapids VM, 8 heads of
//! 576 x 576, 64): 72 % in the loops of the two products, which thus run at the peak; 7 % exponentials and sums; 7 % asking for
//! rows, which is what waiting for L3 has become (without asking, loads wait for 3 to 10 %); 3 % stores and maxima of scores;
//! 1 % the ends of tiles of results; 3 % packing, 2 % turning queries, 1 % writing results, 2 % who sees what and the rest. 197
//! queries fill 208 lanes: another 5 %.
//!
//! Tried and lost, same conditions (12 x 197 x 197 x 64: 0.98 ms; 16 x 577 x 577 x 64: 10.4; 12 x 32 x 257 x 64: 0.21 ms):
//! - one packed copy for all parts, rows as they lie and blocks of 128 keys, with a barrier between packing and the rest, and
//!   nothing asked for ahead: 1.09 ms;
//! - BK 32: 1.00 ms, 48: 1.00 ms, 96: 0.99 ms and more in L1 with head_dim 128;
//! - keys turned into panels, so that tiles read one stream of them: 0.99, 10.4, 0.215 ms, and more code;
//! - O = P · V with lanes of columns instead of queries, in tiles of 6 x 4 or 12 x 2 vectors, which needs no turning back and has
//!   no empty lanes: 0.99, 10.6 ms, and with blocks of 128 keys the same;
//! - all blocks of up to 512 packed keys before the next block of queries, so that these stay in L1: 0.99, 10.6 ms;
//! - all operands in large pages: 0.99, 10.6 ms;
//! - packing for a single block of queries, too: 0.21 ms becomes 0.26 ms, with values alone as they lie 0.24 ms;
//! - asking for lines one by one: 1.00 ms, 0.27 ms; from a list, a line in each step of a tile: 1.03, 10.8, 0.224 ms;
//! - asking for the first keys of the part that comes next: no difference;
//! - hiding keys in registers: the tile is spilled in every case, masked or not: 2 % of all;
//! - tiles of 14 keys and 2 vectors: no faster than 8 x 3, whose loads are 11 for 24 products.
#![allow(unsafe_code)] // parts write rows of the results that lie apart

use super::BIAS;
use super::block::{self, Ahead, Keys, Mask, Memory, Shape, Slot, Values};
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::simd::{Avx512, Bf16Dot};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd, transpose};
use crate::backend::cpu::{Caps, Cpu, Slots, deal};
use crate::backend::{Kernel, Launch};
use crate::dtype::{DType, Elem};
use crate::error::{Result, Unsupported};
use crate::ops::attend::cpu::{
    Masks, PANEL, Rows, Scattered, Single, Soon, Words, halves, max_nv, spread, turn_eight, widen,
};
use crate::ops::attention::Attention;
use crate::ops::with_float;
use crate::simd_fn;
#[cfg(target_arch = "x86_64")]
use half::bf16;
use std::ops::Range;

/// Keys of a block for each value of a word, and keys beyond the last whole block that join it.
const BK: usize = 64;
const MORE: usize = 16;
/// Vectors of queries in a block, at most.
const NV: usize = 3;
/// Queries and results that a part holds.
const HELD_BYTES: usize = 256 << 10;
/// Lanes of queries that a part holds, at most: what packing costs is then small enough.
const MAX_HELD: usize = 512;
/// Parts at least, if there are queries enough.
const PARTS: usize = 8;

pub fn supports<S: Simd>(op: &Attention, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)?;
    // Places of keys are compared as f32.
    Unsupported::at_most("len_k", op.len_k, 1usize << 24)
}

/// What a part holds, with so many values in a word.
fn shape(op: &Attention, values: usize) -> Shape {
    let lanes = (HELD_BYTES / (8 * op.head_dim)).clamp(NV * MAX_LANES, MAX_HELD) / MAX_LANES * MAX_LANES;
    Shape { head_dim: op.head_dim, values, keys: BK * values + MORE, width: NV * MAX_LANES, lanes }
}

/// The scratch memory of one part at work, in f32.
fn memory_len(op: &Attention, values: usize) -> usize {
    shape(op, values).len().next_multiple_of(16)
}

pub fn workspace(op: &Attention, caps: &Caps) -> usize {
    Slots::bytes(caps, memory_len(op, 1))
}

pub fn launch<S: Simd>(_: &Kernel<Cpu, Attention>, op: &Attention, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.dtype, T => with_float!(op.out, O => run::<S, _, T, O>(s, Single, op, l)))
}

#[cfg(target_arch = "x86_64")]
pub fn supports_bf16(op: &Attention, caps: &Caps) -> Result<(), Unsupported> {
    supports::<Avx512>(op, caps)?;
    Unsupported::require("a processor with AVX512_BF16", caps.bf16_dot)?;
    // Weights are rounded to bf16, which a finer result would show.
    Unsupported::require("bf16 operands and result", op.dtype == DType::BF16 && op.out == DType::BF16)
}

#[cfg(target_arch = "x86_64")]
pub fn workspace_bf16(op: &Attention, caps: &Caps) -> usize {
    Slots::bytes(caps, memory_len(op, 2))
}

#[cfg(target_arch = "x86_64")]
pub fn launch_bf16(_: &Kernel<Cpu, Attention>, op: &Attention, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let (s, dot) = Avx512::detect().zip(Bf16Dot::detect()).expect("supports_bf16() has checked it");
    run::<_, _, bf16, bf16>(s, dot, op, l)
}

fn run<S: Simd, W: Words<S>, T: Lane, O: Lane>(s: S, words: W, op: &Attention, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let shape = shape(op, W::VALUES);
    let attend = &op.attend();
    let masks = Masks::new("attention", attend, l, BIAS)?;
    let [q, k, v] = [0, 1, 2].map(|i| Rows::<T>::new(attend, l, i));
    let out = Scattered::new(l.output::<O>(0));
    let lse = op.lse.then(|| Scattered::new(l.output::<f32>(1)));
    let (rows, heads) = (attend.rows_per_head(), op.batch * op.heads_kv);
    if heads * rows == 0 {
        return Ok(());
    }
    let slots = Slots::new(l.scratch(), memory_len(op, W::VALUES));
    let vectors = rows.div_ceil(S::LANES);
    let parts = PARTS.div_ceil(heads).min(vectors.div_ceil(max_nv::<S>()));
    let parts = parts.max(vectors.div_ceil(shape.lanes / S::LANES));
    let given = Given { masks: &masks, q, k, v };
    let of_head = |head: usize| (head / op.heads_kv, head % op.heads_kv);
    l.pool().run(heads * parts, |i| {
        // The last queries first: with a causal mask they take the longest.
        let (part, (b, h)) = (parts - 1 - i / heads, of_head(i % heads));
        let part = Part { given: &given, out: &out, lse: lse.as_ref(), b, h, vectors: deal(vectors, parts, part) };
        slots.with(|memory| part.attend(s, words, &mut Memory::new(memory, shape)));
    });
    Ok(())
}

/// The operands.
struct Given<'a, T> {
    masks: &'a Masks<'a>,
    q: Rows<'a, T>,
    k: Rows<'a, T>,
    v: Rows<'a, T>,
}

/// Some vectors of the queries that share a head of keys.
struct Part<'a, T, O> {
    given: &'a Given<'a, T>,
    out: &'a Scattered<O>,
    lse: Option<&'a Scattered<f32>>,
    b: usize,
    h: usize,
    vectors: Range<usize>,
}

impl<'a, T: Lane, O: Lane> Part<'a, T, O> {
    fn attend<S: Simd, W: Words<S>>(&self, s: S, words: W, memory: &mut Memory<'_>) {
        let (masks, vectors) = (self.given.masks, &self.vectors);
        let blocks = vectors.len().div_ceil(max_nv::<S>());
        let blocks: Vec<_> = (0..blocks)
            .map(|i| {
                // Vectors are dealt out evenly: 13 are 2 + 3 + 2 + 3 + 3.
                let of_block = deal(vectors.len(), blocks, i);
                let start = (vectors.start + of_block.start) * S::LANES;
                let lanes = of_block.start * S::LANES..of_block.end * S::LANES;
                Queries::new(masks, (self.b, self.h), start, lanes, memory)
            })
            .collect();
        let some = blocks.iter().map(|queries| queries.some.clone());
        let some = some.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or_default();
        let bk = BK * W::VALUES;
        let mut next = keys_of_block(bk, masks.op.len_k, some.start.min(some.end) / bk);
        let [k, v] = self.ahead(next.start..some.end.min(next.end).max(next.start));
        let q = blocks.first().map_or(Soon::NONE, |queries| queries.operands(&self.given.q));
        [q, k, v].iter_mut().for_each(|rows| rows.fetch(rows.left));
        // What is read once is not worth packing, if tiles can read it.
        let as_they_lie = blocks.len() == 1
            && W::VALUES == 1
            && T::DTYPE == DType::F32
            && masks.padding(self.b).is_none()
            && masks.op.head_dim.is_multiple_of(8);
        while next.start < some.end {
            let keys = next.start..some.end.min(next.end);
            if !as_they_lie {
                pack(s, words, self.given, (self.b, self.h), keys.clone(), memory.keys());
            }
            next = keys_of_block(bk, masks.op.len_k, next.start / bk + 1);
            next.start = next.start.max(keys.end);
            let after = next.start..some.end.min(next.end).max(next.start);
            for (i, queries) in blocks.iter().enumerate() {
                let mut slot = memory.slot(&queries.lanes);
                // Words are not divided: the first may have a key more, which is hidden then. (Blocks begin with whole words.)
                let start = queries.some.start.max(keys.start) / W::VALUES * W::VALUES;
                let at = start..queries.some.end.min(keys.end);
                if at.start >= at.end {
                    continue;
                }
                let of_block = deal(after.len(), blocks.len(), i);
                let (first, last) = (keys.start <= queries.some.start, keys.end >= queries.some.end);
                if first {
                    load(s, words, queries, &self.given.q, &mut slot);
                }
                let [k, v] = self.ahead(after.start + of_block.start..after.start + of_block.end);
                let other = match blocks.get(i + 1) {
                    _ if last => queries.results(self.out),
                    Some(queries) if first => queries.operands(&self.given.q),
                    _ => Soon::NONE,
                };
                if as_they_lie {
                    let Given { k, v, .. } = self.given;
                    let from =
                        |rows: &Rows<'a, T>| bytemuck::cast_slice::<T, f32>(rows.from(self.b, keys.start, self.h));
                    slot.k = Keys { data: from(k), stride: k.strides[1] };
                    slot.v = Values::lying(from(v), v.strides[1]);
                }
                queries.meet(s, words, at, keys.start, first, &mut [k, v, other], &mut slot);
                if last {
                    finish(s, queries, self.out, self.lse, &mut slot);
                }
            }
        }
        for queries in blocks.iter().filter(|queries| queries.some.is_empty()) {
            let mut slot = memory.slot(&queries.lanes);
            slot.o.fill(0.0);
            finish(s, queries, self.out, self.lse, &mut slot);
        }
    }

    /// Some rows of keys and values.
    fn ahead(&self, keys: Range<usize>) -> [Soon; 2] {
        [&self.given.k, &self.given.v].map(|rows| rows.soon(self.b, keys.start, self.h, keys.len()))
    }
}

/// The keys of a block of `bk`: the last takes up to `MORE` more, so that a few do not need a block of their own.
fn keys_of_block(bk: usize, len_k: usize, block: usize) -> Range<usize> {
    let (start, end) = (block * bk, (block + 1) * bk);
    start..if len_k <= end + MORE { len_k.max(start) } else { end }
}

simd_fn! {
    /// Packs some keys and their values: see [`Slot`] for the layout.
    fn pack[S, W: Words<S>, T: Lane](s, words: W, given: &Given<'_, T>, at: (usize, usize), keys: Range<usize>, to: [&mut [f32]; 2]) {
        let [to_k, to_v] = to;
        let ((b, h), d) = (at, given.masks.op.head_dim);
        let padding = given.masks.padding(b);
        // What is hidden may be anything, and 0 · NaN is not 0.
        let there = |key: usize| key < keys.end && padding.is_none_or(|p| p[key] != 0);
        let panel = to_v.len() / d.div_ceil(PANEL);
        for (word, key) in keys.clone().step_by(W::VALUES).enumerate() {
            let row = |n: usize| there(key + n).then(|| given.v.row(b, key + n, h));
            spread(s, words, row, word, to_v, panel);
        }
        for (key, to_k) in keys.clone().zip(to_k.chunks_exact_mut(d.div_ceil(W::VALUES))) {
            match there(key) {
                true => words.of_row(s, given.k.row(b, key, h), to_k),
                false => to_k.fill(0.0),
            }
        }
    }
}

/// A block of the queries that share a head of keys.
struct Queries<'a> {
    masks: &'a Masks<'a>,
    b: usize,
    h: usize,
    /// The first row: query `row % len_q` of head `row / len_q` of the group.
    start: usize,
    /// Rows; the block's other lanes repeat the last.
    count: usize,
    /// Where the part holds it.
    lanes: Range<usize>,
    /// The keys from the first that some query sees by its place to the last, and those that all see.
    some: Range<usize>,
    all: Range<usize>,
}

impl<'a> Queries<'a> {
    /// The block of the rows from `start` on in some lanes; notes what they see.
    fn new(
        masks: &'a Masks<'a>,
        (b, h): (usize, usize),
        start: usize,
        lanes: Range<usize>,
        memory: &mut Memory<'_>,
    ) -> Queries<'a> {
        let count = (masks.op.rows_per_head() - start).min(lanes.len());
        let mut queries = Queries { masks, b, h, start, count, lanes, some: 0..0, all: 0..0 };
        let slot = memory.slot(&queries.lanes);
        let mut seen = masks.visible(b, queries.lane(0).1);
        (queries.some, queries.all) = (seen.clone(), seen.clone());
        for lane in 0..queries.lanes.len() {
            let (_, i) = queries.lane(lane);
            if masks.op.causal || masks.op.window > 0 {
                seen = masks.visible(b, i);
            }
            (slot.lo[lane], slot.hi[lane]) = (seen.start as f32, seen.end as f32);
            queries.some = queries.some.start.min(seen.start)..queries.some.end.max(seen.end);
            queries.all = queries.all.start.max(seen.start)..queries.all.end.min(seen.end);
            if let Some((id, _)) = masks.ids(b, i) {
                (slot.id_high[lane], slot.id_low[lane]) = halves(id);
            }
        }
        slot.m.fill(f32::NEG_INFINITY);
        slot.l.fill(0.0);
        queries
    }

    /// The head and the place of the query of a lane.
    fn lane(&self, lane: usize) -> (usize, usize) {
        let op = self.masks.op;
        let row = self.start + lane.min(self.count - 1);
        (self.h * (op.heads_q / op.heads_kv) + row / op.len_q, row % op.len_q)
    }

    /// What scores are multiplied by, for weights that are powers of 2.
    fn scale(&self) -> f32 {
        (f64::from(self.masks.op.scale()) * std::f64::consts::LOG2_E) as f32
    }

    /// Its rows among the queries, to be brought closer, taken to be those of one head.
    fn operands<T: Elem>(&self, q: &Rows<'_, T>) -> Soon {
        let (head, i) = self.lane(0);
        q.soon(self.b, i, head, self.count)
    }

    /// Its rows among the results, likewise.
    fn results<O: Elem>(&self, out: &Scattered<O>) -> Soon {
        let (op, (head, i)) = (self.masks.op, self.lane(0));
        let (d, row) = (op.head_dim, (self.b * op.len_q + i) * op.heads_q + head);
        out.soon(row * d, op.heads_q * d, d, self.count)
    }

    /// Meets the keys `at` of the packed ones, which begin with number `packed`.
    #[allow(clippy::too_many_arguments)]
    fn meet<S: Simd, W: Words<S>>(
        &self,
        s: S,
        words: W,
        at: Range<usize>,
        packed: usize,
        first: bool,
        ahead: &mut Ahead,
        slot: &mut Slot<'_>,
    ) {
        let bounded = at.start < self.all.start || at.end > self.all.end;
        let added = self.added(s, at.clone(), slot);
        let mask = Mask { bounded, added, first_key: at.start as f32, scale: self.scale() };
        let at = at.start - packed..at.end - packed;
        match self.lanes.len() / S::LANES {
            1 => block::step::<S, W, 1>(s, words, at, first, mask, ahead, slot),
            2 => block::step::<S, W, 2>(s, words, at, first, mask, ahead, slot),
            _ => block::step::<S, W, 3>(s, words, at, first, mask, ahead, slot),
        }
    }

    /// Writes what is added to the scores of some keys to `slot.added` [key][lane]; `false` if there is nothing.
    fn added<S: Simd>(&self, s: S, keys: Range<usize>, slot: &mut Slot<'_>) -> bool {
        let (masks, width) = (self.masks, self.lanes.len());
        if masks.by_place_alone() {
            return false;
        }
        let added = &mut slot.added[..keys.len() * width];
        added.fill(0.0);
        if masks.op.bias {
            for lane in 0..width {
                let (head, i) = self.lane(lane);
                let to = &mut slot.stage[lane % 8 * keys.len()..][..keys.len()];
                if let Some(bias) = masks.bias(self.b, head, i) {
                    widen(s, &bias[keys.clone()], std::f32::consts::LOG2_E, to);
                }
                if lane % 8 == 7 {
                    transpose(s, slot.stage, keys.len(), (8, keys.len()), None, &mut added[lane - 7..], width);
                }
            }
        }
        if let Some((_, ids)) = masks.ids(self.b, 0) {
            block::part_segments(s, &ids[keys.clone()], slot.id_high, slot.id_low, added);
        }
        if let Some(padding) = masks.padding(self.b) {
            for (added, _) in added.chunks_exact_mut(width).zip(&padding[keys]).filter(|(_, there)| **there == 0) {
                added.fill(f32::NEG_INFINITY);
            }
        }
        true
    }
}

simd_fn! {
    /// Transposes the queries, and scales them unless scores are scaled.
    fn load[S, W: Words<S>, T: Lane](s, words: W, queries: &Queries<'_>, q: &Rows<'_, T>, slot: &mut Slot<'_>) {
        let (op, width) = (queries.masks.op, queries.lanes.len());
        let scale = (W::VALUES == 1).then(|| queries.scale());
        for first in (0..width).step_by(8) {
            let (head, i) = queries.lane(first);
            let all = first + 8 <= queries.count && i + 8 <= op.len_q;
            let direct = all.then(|| (q.from(queries.b, i, head), q.strides[1]));
            let row = |i: usize| {
                let (head, i) = queries.lane(first + i);
                Some(q.row(queries.b, i, head))
            };
            let to = (&mut slot.qt[first..], width, op.head_dim.div_ceil(W::VALUES));
            turn_eight(s, words, direct, row, scale, slot.stage, to);
        }
    }
}

simd_fn! {
    /// Divides by the sums, transposes back and writes the results.
    fn finish[S, O: Lane](s, queries: &Queries<'_>, out: &Scattered<O>, lse: Option<&Scattered<f32>>, slot: &mut Slot<'_>) {
        let (op, width) = (queries.masks.op, queries.lanes.len());
        let d = op.head_dim;
        for first in (0..queries.count).step_by(8) {
            transpose(s, &slot.o[first..], width, (d, 8), None, slot.stage, d);
            let (m, l) = (&slot.m[first..], &slot.l[first..]);
            for (n, row) in slot.stage.chunks_exact(d).take(8.min(queries.count - first)).enumerate() {
                let (head, i) = queries.lane(first + n);
                // SAFETY: every query of every head is in one block, so this row is written by this part alone.
                let to = unsafe { out.get(((queries.b * op.len_q + i) * op.heads_q + head) * d, d) };
                block::narrow(s, row, if l[n] == 0.0 { 0.0 } else { 1.0 / l[n] }, to);
                if let Some(lse) = lse {
                    // SAFETY: as above.
                    let to = unsafe { lse.get((queries.b * op.heads_q + head) * op.len_q + i, 1) };
                    to[0] = super::log_sum_exp(m[n], l[n]);
                }
            }
        }
    }
}
