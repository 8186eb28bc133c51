//! Blocked attention: `attention_flash`, `attention_flash_bf16`, and what the latter by AMX shares with them.
//!
//! Layout: `q` [batch, len_q, heads_q, head_dim], `k` and `v` [batch, len_k, heads_kv, head_dim] with contiguous rows at any
//! distance, likewise `bias`; ids, padding, lengths and results contiguous.
//!
//! Algorithm (FlashAttention-2, arXiv 2307.08691, algorithm 1, with 2^x for e^x and the lanes of vectors for queries):
//! the queries of all heads of a group that share keys form one column of rows, cut into blocks of up to three vectors. A
//! part of the work holds as many blocks as its share of L2 takes. Each block of queries meets one block of `BK` keys after the
//! other: Sᵀ = K · Qᵀ in register tiles of eight keys, each of which is masked and stored; P = 2^(S - m) replaces the scores of a
//! tile between the products of the next one; then Oᵀ = Oᵀ + Vᵀ · P (`accumulate`). Here m is not the largest score so far but
//! what none is far above; where scores of a tile are (`rise`), it moves over them, and Oᵀ, with the weights so far added, is multiplied
//! by 2^(m_old - m): most blocks of keys never do. Queries are scaled by softmax_scale · log2 e and transposed when a block
//! meets its first keys, Oᵀ / l is transposed back after its last. Blocks of keys that nobody sees are not visited; every
//! lane meets the same tiles of keys in the same order, however queries are dealt out, so bits depend on the problem alone.
//! Up to six last queries of a head, which would leave most of a vector empty, meet the same blocks of keys by themselves (`few.rs`).
//!
//! Arithmetic ([`Words`]) is in f32, to which operands are widened; and, where operands and result are bf16 and the
//! processor multiplies pairs of them at twice the rate of f32 (AVX512_BF16), in pairs: queries and keys are pairs of columns as they
//! lie in memory, values are packed as pairs of keys, weights are rounded to pairs of keys. Sums, scores, softmax and O stay f32, and
//! scores are scaled instead of queries, which thus are what they were. Errors are 1.4 times those of rounding the result alone
//! (2.3e-3 for 1.7e-3). How they are multiplied is [`Products`]: in register tiles ([`Tiles`]), which the rest of this is about, or by
//! AMX (`matrix.rs`).
//!
//! Keys whose rows are words in memory are read there, and so are values in f32 unless they lie a multiple of 4 KiB apart
//! (`lying_values`): packing both takes 23 cycles for a row of 64 values, against 64 for a vector of queries to meet a key. Other dtypes
//! are widened and packed once a part.
//!
//! Rows of a head lie pages apart, where no hardware prefetcher follows: while a block is worked on, the rows that come next
//! (keys and values of the next block, queries of the next block, the places of results) are asked for, a few before
//! each register tile ([`Soon`]).
//!
//! Blocking, with AVX-512 (48 queries), head_dim 64 / 128 and 48 KiB of L1, 1 to 2 MiB of L2:
//! - L1, scores: Qᵀ 12 / 24 KiB stays, eight keys of 2 / 4 KiB and the new rows of P, in all 18 KiB, stream.
//! - L1, results: P 18 KiB stays, a panel of 16 columns 6 KiB and a tile of Oᵀ 1.5 KiB stream.
//! - L2: Qᵀ and Oᵀ of a part up to `HELD_BYTES`, that is 512 / 256 queries; keys and values of a block 48 / 96 KiB.
//! - Pairs: the same with half of Qᵀ, keys, values and weights, so a block has twice the keys.
//! - Up to `MORE` keys beyond the last whole block join it (197 = 96 + 101).
//!
//! Bound: FMA. With head_dim 64 a vector of scores takes 64 cycles of products; its exponential takes 4.2 cycles by itself, and 2.3,
//! for its own products, spread over those of a tile (Zen 5; loops of assembly in L1). So 96 % of the peak is the most, 98 % with 128; and
//! 93 and 96 % with pairs, whose products take half of that.
//!
//! Where the time goes (Zen 5, one thread, 12 x 197 x 197 x 64, 81 to 83 %): 82 % are products, those of three keys beyond the last among
//! them; 4 % the five queries of each head beyond twelve vectors; 3 % exponentials; 4 % turning queries and results; the rest are ends
//! of tiles (loads and stores of Oᵀ, maxima), asking for rows, and waiting for L2.
//!
//! Tried and lost, Zen 5, in turn (12 x 197 x 197 x 64: 0.535 ms; 16 x 577 x 577 x 64: 5.9):
//! - the last queries of a head in a vector: 0.560, 6.05 ms; by the kernel of a few queries (`split.rs`): the same as in a vector;
//! - asking at the start of a part only for what the first tiles want, and for the rest on their way: the same, with more keys 1 to 2 % longer;
//! - two parts for each head instead of one: 2 % longer, in bf16, which packs values for each, 6 %;
//! - exponentials of a whole block after its scores: 0.590, 6.2 ms (this is how it was), and of a tile's registers right after its
//!   products: the same. The processor does not look far enough ahead to do either beside the products of the next tile.
//! - packing keys: 1 to 3 % longer (more with rows that lie less than a page apart); values: 1 to 3 % longer, but 2 % less where their
//!   rows lie a multiple of 4 KiB apart;
//! - BK 64: 2 % longer; 104, 128, 136: the same;
//! - m at the largest score of the tile that moves it: 2 % longer for scores with a deviation of 4 (of 16: 6 to 7 % longer than with
//!   exponentials block by block, either way);
//! - asking for the first rows of the next head during a part's last block: 1 to 5 % longer, though with a batch of sixteen,
//!   whose operands come from memory, 4 % less.
//!
//! On a Xeon with AMX (family 6, model 167), in turn in one process; products take what multiply-adds of registers take once their
//! operands are in L1, what is lost is bringing them there (benches/record/xeon-amx-2vcpu):
//! - four or eight steps of a tile of scores without a branch: the same;
//! - exponentials after all products of a tile: the same; after those of a block, in a loop of their own: 3 to 4 % less with 577 queries
//!   and keys or head_dim 128 without a mask, else the same. (They share ports with multiply-adds there; on Zen 5 it is 10 % longer.)
//! - one check for the rows of a tile of scores instead of eight: the same; these rows in L1 already: the same;
//! - keys packed, values packed, both, wherever their rows lie: the same;
//! - asking during a part's last block for the first keys, values and queries of the next: the same, of 256 queries and 1024 keys 2 % less;
//! - asking in L1 for the next tile of results: the same; for rows of values 12 or 16 steps ahead too: 0 to 3 % less.
//!
//! And on a Sapphire Rapids, when all keys and values were packed and BK was 64 (0.98 ms; 10.4; 12 x 32 x 257 x 64: 0.21 ms):
//! - one packed copy for all parts, rows as they lie and blocks of 128 keys, with a barrier between packing and the rest, and
//!   nothing asked for ahead: 1.09 ms;
//! - keys turned into panels, so that tiles read one stream of them: 0.99, 10.4, 0.215 ms, and more code;
//! - O = P · V with lanes of columns instead of queries, in tiles of 6 x 4 or 12 x 2 vectors, which needs no turning back and has
//!   no empty lanes: 0.99, 10.6 ms, and with blocks of 128 keys the same;
//! - all blocks of up to 512 packed keys before the next block of queries, so that these stay in L1: 0.99, 10.6 ms;
//! - all operands in large pages: 0.99, 10.6 ms;
//! - asking for lines one by one: 1.00 ms, 0.27 ms; from a list, a line in each step of a tile: 1.03, 10.8, 0.224 ms;
//! - hiding keys in registers: the tile is spilled in every case, masked or not: 2 % of all;
//! - tiles of 14 keys and 2 vectors: no faster than 8 x 3, whose loads are 11 for 24 products.
#![allow(unsafe_code)] // parts write rows of the results that lie apart

use super::block::{self, Ahead, Keys, Mask, Memory, Shape, Slot, Values};
use super::{BIAS, few};
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::simd::{Avx512, Bf16Dot};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Portable, Simd, transpose};
use crate::backend::cpu::{Caps, Cpu, Slots, deal};
use crate::backend::{Kernel, Launch};
use crate::dtype::{DType, Elem};
use crate::error::{Result, Unsupported};
use crate::ops::attend::Attend;
use crate::ops::attend::cpu::{
    Masks, PANEL, Rows, Scattered, Single, Soon, Words, halves, max_nv, spread, turn_eight, widen,
};
use crate::ops::attention::Attention;
use crate::ops::with_float;
use crate::simd_fn;
#[cfg(target_arch = "x86_64")]
use half::bf16;
use std::ops::Range;

/// Keys of a block of register tiles, for each value of a word.
const BK: usize = 96;
/// Vectors of queries in a block, at most.
const NV: usize = 3;
/// Queries and results that a part holds.
const HELD_BYTES: usize = 256 << 10;
/// Lanes of queries that a part holds, at most: what packing costs is then small enough.
const MAX_HELD: usize = 512;
/// Lines of memory so far apart share a set of L1.
const WAY: usize = 4096;
/// Parts at least, if there are queries enough.
const PARTS: usize = 8;

pub fn supports<S: Simd>(op: &Attention, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)?;
    // Places of keys are compared as f32.
    Unsupported::at_most("len_k", op.len_k, 1usize << 24)
}

/// How blocks of queries and of keys are multiplied, and how operands lie for that.
pub trait Products<S: Simd>: Copy + Send + Sync {
    type Words: Words<S>;
    /// What a thread holds while it works on a part.
    type Turn;
    /// Keys that are multiplied together: packed keys are whole tiles, and a step begins with one.
    const TILE: usize;
    /// Keys of a block, and keys beyond the last whole block that join it.
    const BK: usize;
    const MORE: usize;
    /// Vectors of queries that are multiplied together: blocks of queries are whole units.
    const UNIT: usize;

    fn words(self) -> Self::Words;
    fn begin(self) -> Self::Turn;
    /// Units of a block, at most.
    fn units() -> usize;
    /// What a part holds.
    fn shape(op: &Attention) -> Shape;

    /// How many of the last rows of a head are worked on by themselves.
    fn few(_: &Masks<'_>) -> usize {
        0
    }
    /// Keys and values from a key on where they lie, if they are read there; `blocks` of queries will meet them.
    fn lying<'a, T: Lane>(_: &Head<'_, 'a, T>, _key: usize, _blocks: usize) -> (Option<Keys<'a>>, Option<Values<'a>>) {
        (None, None)
    }
    fn pack_keys<T: Lane>(self, s: S, of: &Head<'_, '_, T>, keys: Range<usize>, to: &mut [f32]);
    /// What is hidden may be anything, and 0 · NaN is not 0: it counts as 0.
    fn pack_values<T: Lane>(self, s: S, of: &Head<'_, '_, T>, keys: Range<usize>, to: &mut [f32]);

    /// A block of queries meets the keys `at` of a block, which begin with a whole tile.
    #[allow(clippy::too_many_arguments)]
    fn step(
        self,
        s: S,
        turn: &mut Self::Turn,
        at: Range<usize>,
        first: bool,
        mask: Mask,
        ahead: &mut Ahead,
        slot: &mut Slot<'_>,
    );
}

/// Products in register tiles of vectors.
#[derive(Clone, Copy)]
struct Tiles<W>(W);

impl<S: Simd, W: Words<S>> Products<S> for Tiles<W> {
    type Words = W;
    type Turn = ();
    const TILE: usize = 8;
    const BK: usize = BK * W::VALUES;
    const MORE: usize = 16;
    const UNIT: usize = 1;

    fn words(self) -> W {
        self.0
    }
    fn begin(self) {}
    fn units() -> usize {
        max_nv::<S>()
    }
    fn shape(op: &Attention) -> Shape {
        let lanes = (HELD_BYTES / (8 * op.head_dim)).clamp(NV * MAX_LANES, MAX_HELD) / MAX_LANES * MAX_LANES;
        let (keys, width) = (BK * W::VALUES + Self::MORE, NV * MAX_LANES);
        Shape { head_dim: op.head_dim, values: W::VALUES, whole: [1, 8], keys, width, lanes }
    }

    /// The last rows of a head, if they would leave most of a vector empty: then they take less time by themselves, with columns in
    /// lanes. Only where they see every key, as tokens of a picture do.
    fn few(masks: &Masks<'_>) -> usize {
        let op = masks.op;
        let (rows, plain) = (op.rows_per_head(), masks.by_place_alone() && !op.causal && op.window == 0);
        let few = rows % S::LANES;
        if plain && rows > S::LANES && few::suits::<S, W>(op.head_dim, few) { few } else { 0 }
    }

    fn lying<'a, T: Lane>(of: &Head<'_, 'a, T>, key: usize, blocks: usize) -> (Option<Keys<'a>>, Option<Values<'a>>) {
        (of.lying_keys::<S, W>(key), of.lying_values::<S, W>(key, blocks))
    }
    fn pack_keys<T: Lane>(self, s: S, of: &Head<'_, '_, T>, keys: Range<usize>, to: &mut [f32]) {
        pack_keys(s, self.0, of, keys, to);
    }
    fn pack_values<T: Lane>(self, s: S, of: &Head<'_, '_, T>, keys: Range<usize>, to: &mut [f32]) {
        pack_values(s, self.0, of, keys, to);
    }

    fn step(
        self,
        s: S,
        (): &mut (),
        at: Range<usize>,
        first: bool,
        mask: Mask,
        ahead: &mut Ahead,
        slot: &mut Slot<'_>,
    ) {
        match slot.m.len() / S::LANES {
            1 => block::step::<S, W, 1>(s, self.0, at, first, mask, ahead, slot),
            2 => block::step::<S, W, 2>(s, self.0, at, first, mask, ahead, slot),
            _ => block::step::<S, W, 3>(s, self.0, at, first, mask, ahead, slot),
        }
    }
}

/// The scratch memory of one part at work, in f32.
fn memory_len<S: Simd, P: Products<S>>(op: &Attention) -> usize {
    P::shape(op).len().next_multiple_of(16)
}

/// The scratch memory of a launch in bytes.
pub fn workspace_of<S: Simd, P: Products<S>>(op: &Attention, caps: &Caps) -> usize {
    Slots::bytes(caps, memory_len::<S, P>(op))
}

/// The same for all instruction sets.
pub fn workspace(op: &Attention, caps: &Caps) -> usize {
    workspace_of::<Portable, Tiles<Single>>(op, caps)
}

pub fn launch<S: Simd>(_: &Kernel<Cpu, Attention>, op: &Attention, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.dtype, T => with_float!(op.out, O => run::<S, _, T, O>(s, Tiles(Single), op, l)))
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
    workspace_of::<Avx512, Tiles<Bf16Dot>>(op, caps)
}

#[cfg(target_arch = "x86_64")]
pub fn launch_bf16(_: &Kernel<Cpu, Attention>, op: &Attention, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let (s, dot) = Avx512::detect().zip(Bf16Dot::detect()).expect("supports_bf16() has checked it");
    run::<_, _, bf16, bf16>(s, Tiles(dot), op, l)
}

pub fn run<S: Simd, P: Products<S>, T: Lane, O: Lane>(
    s: S,
    products: P,
    op: &Attention,
    l: &mut Launch<'_, Cpu>,
) -> Result<()> {
    let shape = P::shape(op);
    let attend = &op.attend();
    let masks = Masks::new("attention", attend, l, BIAS)?;
    let [q, k, v] = [0, 1, 2].map(|i| Rows::<T>::new(attend, l, i));
    let out = Scattered::new(l.output::<O>(0));
    let lse = op.lse.then(|| Scattered::new(l.output::<f32>(1)));
    let (rows, heads) = (attend.rows_per_head(), op.batch * op.heads_kv);
    if heads * rows == 0 {
        return Ok(());
    }
    let slots = Slots::new(l.scratch(), memory_len::<S, P>(op));
    let few = P::few(&masks);
    let units = (rows - few).div_ceil(P::UNIT * S::LANES);
    let parts = PARTS.div_ceil(heads).min(units.div_ceil(P::units()));
    let parts = parts.max(units.div_ceil(shape.lanes / (P::UNIT * S::LANES)));
    let given = Given { masks: &masks, q, k, v };
    l.pool().run(heads * parts, |i| {
        // The last queries first: with a causal mask they take the longest.
        let (part, head) = (parts - 1 - i / heads, i % heads);
        let few = if part == parts - 1 { rows - few..rows } else { 0..0 };
        let head = Head { given: &given, b: head / op.heads_kv, h: head % op.heads_kv };
        let part = Part { head, out: &out, lse: lse.as_ref(), units: deal(units, parts, part), few };
        slots.with(|memory| part.attend(s, products, &mut Memory::new(memory, shape)));
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

/// A head of keys and values of a sequence.
#[derive(Clone, Copy)]
pub struct Head<'g, 'a, T> {
    given: &'g Given<'a, T>,
    b: usize,
    h: usize,
}

impl<'a, T: Lane> Head<'_, 'a, T> {
    pub fn head_dim(&self) -> usize {
        self.given.masks.op.head_dim
    }

    pub fn key(&self, key: usize) -> &'a [T] {
        self.given.k.row(self.b, key, self.h)
    }

    /// The value of a key, unless padding hides it.
    pub fn value(&self, key: usize) -> Option<&'a [T]> {
        let there = self.given.masks.padding(self.b).is_none_or(|padding| padding[key] != 0);
        there.then(|| self.given.v.row(self.b, key, self.h))
    }

    /// Keys from a key on where they lie, if blocks can read them there: their rows are words, then.
    fn lying_keys<S: Simd, W: Words<S>>(&self, key: usize) -> Option<Keys<'a>> {
        let k = &self.given.k;
        let aligned = (k.row(self.b, 0, self.h).as_ptr() as usize).is_multiple_of(align_of::<f32>());
        let whole = |values: usize| values.is_multiple_of(W::VALUES);
        let words = matches!((T::DTYPE, W::VALUES), (DType::F32, 1) | (DType::BF16, 2));
        (words && whole(self.head_dim()) && whole(k.strides[1]) && aligned).then(|| {
            let (data, stride) = self.words_of(k, key);
            Keys { data, stride }
        })
    }

    /// Values from a key on where they lie, if blocks read them there. A tile's rows are their columns, so there must be whole tiles;
    /// a word is values of one key; and none is hidden, since 0 · NaN is not 0. Rows a multiple of `WAY` apart would push each other
    /// out of L1, where each tile wants them again.
    fn lying_values<S: Simd, W: Words<S>>(&self, key: usize, blocks: usize) -> Option<Values<'a>> {
        let Given { masks, v, .. } = self.given;
        let crowded = (v.strides[1] * size_of::<T>()).is_multiple_of(WAY) && blocks > 1;
        let words = T::DTYPE == DType::F32 && W::VALUES == 1 && self.head_dim().is_multiple_of(8);
        (words && masks.padding(self.b).is_none() && !crowded).then(|| {
            let (data, stride) = self.words_of(v, key);
            Values::lying(data, stride)
        })
    }

    /// The words of rows from a key on, and how many lie between one row and the next.
    fn words_of(&self, rows: &Rows<'a, T>, key: usize) -> (&'a [f32], usize) {
        let values = size_of::<f32>() / size_of::<T>();
        let data = rows.from(self.b, key, self.h);
        (bytemuck::cast_slice(&data[..data.len() / values * values]), rows.strides[1] / values)
    }

    /// Some rows of keys and values.
    fn ahead(&self, keys: Range<usize>) -> [Soon; 2] {
        [&self.given.k, &self.given.v].map(|rows| rows.soon(self.b, keys.start, self.h, keys.len()))
    }
}

/// Some units of the queries that share a head of keys, and some rows that are in none.
struct Part<'a, T, O> {
    head: Head<'a, 'a, T>,
    out: &'a Scattered<O>,
    lse: Option<&'a Scattered<f32>>,
    units: Range<usize>,
    few: Range<usize>,
}

impl<T: Lane, O: Lane> Part<'_, T, O> {
    fn attend<S: Simd, P: Products<S>>(&self, s: S, products: P, memory: &mut Memory<'_>) {
        let (head, words, mut turn) = (&self.head, products.words(), products.begin());
        let Head { given: Given { masks, q, .. }, b, h } = *head;
        let (units, unit) = (&self.units, P::UNIT * S::LANES);
        let blocks = units.len().div_ceil(P::units());
        let blocks: Vec<_> = (0..blocks)
            .map(|i| {
                // Units are dealt out evenly: 13 are 2 + 3 + 2 + 3 + 3.
                let of_block = deal(units.len(), blocks, i);
                let start = (units.start + of_block.start) * unit;
                let lanes = of_block.start * unit..of_block.end * unit;
                Queries::new(masks, (b, h), start, lanes, memory)
            })
            .collect();
        let some = blocks.iter().map(|queries| queries.some.clone());
        let some = some.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or_default();
        self.load_few(s, words, memory);
        let block = |i: usize| keys_of_block::<S, P>(masks.op.len_k, i);
        let mut next = block(some.start.min(some.end) / P::BK);
        let [k, v] = head.ahead(next.start..some.end.min(next.end).max(next.start));
        let first_q = blocks.first().map_or(Soon::NONE, |queries| queries.operands(q));
        [first_q, k, v].iter_mut().for_each(|rows| rows.fetch(rows.left));
        while next.start < some.end {
            let keys = next.start..some.end.min(next.end);
            let lie = P::lying(head, keys.start, blocks.len());
            let [to_k, to_v] = memory.keys();
            if lie.0.is_none() {
                products.pack_keys(s, head, keys.clone(), to_k);
            }
            if lie.1.is_none() {
                products.pack_values(s, head, keys.clone(), to_v);
            }
            next = block(next.start / P::BK + 1);
            next.start = next.start.max(keys.end);
            let after = next.start..some.end.min(next.end).max(next.start);
            for (i, queries) in blocks.iter().enumerate() {
                let mut slot = memory.slot(&queries.lanes);
                // Blocks begin with whole tiles, and so do steps: then it is for every lane alone to say when m rises.
                let start = queries.some.start.max(keys.start) / P::TILE * P::TILE;
                let at = start..queries.some.end.min(keys.end);
                if at.start >= at.end {
                    continue;
                }
                let of_block = deal(after.len(), blocks.len(), i);
                let (first, last) = (keys.start <= queries.some.start, keys.end >= queries.some.end);
                if first {
                    load(s, words, queries, q, &mut slot);
                }
                let [soon_k, soon_v] = head.ahead(after.start + of_block.start..after.start + of_block.end);
                let other = match blocks.get(i + 1) {
                    _ if last => queries.results(self.out),
                    Some(queries) if first => queries.operands(q),
                    _ => Soon::NONE,
                };
                (slot.k, slot.v) = (lie.0.unwrap_or(slot.k), lie.1.unwrap_or(slot.v));
                let (mask, mut ahead) = (queries.mask(s, at.clone(), &mut slot), [soon_k, soon_v, other]);
                let at = at.start - keys.start..at.end - keys.start;
                products.step(s, &mut turn, at, first, mask, &mut ahead, &mut slot);
                if last {
                    finish(s, queries, self.out, self.lse, &mut slot);
                }
            }
            if !self.few.is_empty() {
                let (mut few, mut k, mut v) = memory.few();
                (k, v) = (lie.0.unwrap_or(k), lie.1.unwrap_or(v));
                few::step(s, words, self.few.len(), keys.len(), masks.op.scale_log2(), (k, v), &mut few);
            }
        }
        for queries in blocks.iter().filter(|queries| queries.some.is_empty()) {
            let mut slot = memory.slot(&queries.lanes);
            slot.o.fill(0.0);
            finish(s, queries, self.out, self.lse, &mut slot);
        }
        self.finish_few(s, memory);
    }

    /// Copies the rows that no block has.
    fn load_few<S: Simd, W: Words<S>>(&self, s: S, words: W, memory: &mut Memory<'_>) {
        let Head { given: Given { masks, q, .. }, b, h } = self.head;
        let (mut few, ..) = memory.few();
        for n in 0..self.few.len() {
            let (head, i) = masks.op.query(h, self.few.start + n);
            few.load(s, words, n, q.row(b, i, head), masks.op.scale_log2());
        }
    }

    /// Writes the results of the rows that no block has.
    fn finish_few<S: Simd>(&self, s: S, memory: &mut Memory<'_>) {
        let Head { given, b, h } = self.head;
        let (op, (few, ..)) = (given.masks.op, memory.few());
        for n in 0..self.few.len() {
            let query = (b, op.query(h, self.few.start + n));
            let (o, m, l) = few.result(n);
            write_row(s, op, query, o, if l == 0.0 { 0.0 } else { 1.0 / l }, self.out);
            if let Some(lse) = self.lse {
                write_lse(op, query, m, l, lse);
            }
        }
    }
}

/// The keys of a block: the last takes up to `MORE` more, so that a few do not need a block of their own.
fn keys_of_block<S: Simd, P: Products<S>>(len_k: usize, block: usize) -> Range<usize> {
    let (start, end) = (block * P::BK, (block + 1) * P::BK);
    start..if len_k <= end + P::MORE { len_k.max(start) } else { end }
}

simd_fn! {
    /// Packs some keys, row by row.
    fn pack_keys[S, W: Words<S>, T: Lane](s, words: W, of: &Head<'_, '_, T>, keys: Range<usize>, to: &mut [f32]) {
        for (key, to) in keys.zip(to.chunks_exact_mut(of.head_dim().div_ceil(W::VALUES))) {
            words.of_row(s, of.key(key), to);
        }
    }
}

simd_fn! {
    /// Packs the values of some keys in panels of columns.
    fn pack_values[S, W: Words<S>, T: Lane](s, words: W, of: &Head<'_, '_, T>, keys: Range<usize>, to: &mut [f32]) {
        let panel = to.len() / of.head_dim().div_ceil(PANEL);
        for (word, key) in keys.clone().step_by(W::VALUES).enumerate() {
            let row = |n: usize| (key + n < keys.end).then(|| of.value(key + n)).flatten();
            spread(s, words, row, word, to, panel);
        }
    }
}

/// A block of the queries that share a head of keys.
struct Queries<'a> {
    masks: &'a Masks<'a>,
    b: usize,
    /// Head and place of the first row, and how many a head has.
    first: (usize, usize),
    len_q: usize,
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
        let op = masks.op;
        let count = (op.rows_per_head() - start).min(lanes.len());
        let first = op.query(h, start);
        let mut queries = Queries { masks, b, first, len_q: op.len_q, count, lanes, some: 0..0, all: 0..0 };
        let slot = memory.slot(&queries.lanes);
        let seen = masks.visible(b, queries.lane(0).1);
        slot.lo.fill(seen.start as f32);
        slot.hi.fill(seen.end as f32);
        (queries.some, queries.all) = (seen.clone(), seen);
        if masks.op.causal || masks.op.window > 0 {
            for lane in 0..queries.lanes.len() {
                let seen = masks.visible(b, queries.lane(lane).1);
                (slot.lo[lane], slot.hi[lane]) = (seen.start as f32, seen.end as f32);
                queries.some = queries.some.start.min(seen.start)..queries.some.end.max(seen.end);
                queries.all = queries.all.start.max(seen.start)..queries.all.end.min(seen.end);
            }
        }
        for lane in 0..queries.lanes.len() {
            let Some((id, _)) = masks.ids(b, queries.lane(lane).1) else { break };
            (slot.id_high[lane], slot.id_low[lane]) = halves(id);
        }
        slot.m.fill(f32::MIN);
        slot.l.fill(0.0);
        queries
    }

    /// The head and the place of the query of a lane: mostly a neighbour of the first; division takes longer than copying a row.
    #[inline(always)]
    fn lane(&self, lane: usize) -> (usize, usize) {
        let (len_q, (head, first)) = (self.len_q, self.first);
        let i = first + lane.min(self.count - 1);
        if i < len_q { (head, i) } else { (head + i / len_q, i % len_q) }
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

    /// What is to be done with the scores of some keys.
    fn mask<S: Simd>(&self, s: S, at: Range<usize>, slot: &mut Slot<'_>) -> Mask {
        let bounded = at.start < self.all.start || at.end > self.all.end;
        let added = self.added(s, at.clone(), slot);
        Mask { bounded, added, first_key: at.start as f32, scale: self.masks.op.scale_log2() }
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
        let (scale, depth) = ((W::VALUES == 1).then(|| op.scale_log2()), op.head_dim.div_ceil(W::VALUES));
        slot.qt[depth * width..].fill(0.0);
        for first in (0..width).step_by(8) {
            let (head, i) = queries.lane(first);
            let all = first + 8 <= queries.count && i + 8 <= op.len_q;
            let direct = all.then(|| (q.from(queries.b, i, head), q.strides[1]));
            let row = |i: usize| {
                let (head, i) = queries.lane(first + i);
                Some(q.row(queries.b, i, head))
            };
            let to = (&mut slot.qt[first..], width, depth);
            turn_eight(s, words, direct, row, scale, slot.stage, to);
        }
    }
}

simd_fn! {
    /// Divides by the sums, transposes back and writes the results.
    fn finish[S, O: Lane](s, queries: &Queries<'_>, out: &Scattered<O>, lse: Option<&Scattered<f32>>, slot: &mut Slot<'_>) {
        let (op, width) = (queries.masks.op, queries.lanes.len());
        let d = op.head_dim;
        for lane in (0..width).step_by(S::LANES) {
            let l = s.load(&slot.l[lane..]);
            let inverse = s.select_lt(s.zero(), l, s.div(s.splat(1.0), l), l);
            s.store(inverse, &mut slot.alpha[lane..]);
        }
        for first in (0..queries.count).step_by(8) {
            transpose(s, &slot.o[first..], width, (d, 8), None, slot.stage, d);
            let rows = slot.stage.chunks_exact(d).zip(&slot.alpha[first..]);
            for (n, (row, &inverse)) in rows.take(8.min(queries.count - first)).enumerate() {
                write_row(s, op, (queries.b, queries.lane(first + n)), row, inverse, out);
            }
        }
        let Some(lse) = lse else { return };
        for (lane, (&m, &l)) in slot.m.iter().zip(&*slot.l).take(queries.count).enumerate() {
            write_lse(op, (queries.b, queries.lane(lane)), m, l, lse);
        }
    }
}

/// Writes the result of a query, given by its sequence, head and place.
#[inline(always)]
fn write_row<S: Simd, O: Lane>(
    s: S,
    op: &Attend,
    (b, (head, i)): (usize, (usize, usize)),
    o: &[f32],
    factor: f32,
    out: &Scattered<O>,
) {
    let d = op.head_dim;
    // SAFETY: every query of every head is in one block, or by itself in one part, so this row is written by that alone.
    let to = unsafe { out.get(((b * op.len_q + i) * op.heads_q + head) * d, d) };
    block::narrow(s, o, factor, to);
}

fn write_lse(op: &Attend, (b, (head, i)): (usize, (usize, usize)), m: f32, l: f32, lse: &Scattered<f32>) {
    // SAFETY: as above.
    let to = unsafe { lse.get((b * op.heads_q + head) * op.len_q + i, 1) };
    to[0] = super::log_sum_exp(m, l);
}
