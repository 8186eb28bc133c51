//! The vector code of the flash kernel: one block of queries against one block of keys, and what prepares and ends it.
//! Matrices are [row][lane], a lane being a query; see `flash.rs` for the algorithm.
// Loops over registers name them by number: iterators over the arrays keep some of them in memory.
#![allow(clippy::needless_range_loop)]

use super::few::Few;
use crate::backend::cpu::simd::{Lane, Simd, math};
use crate::ops::attend::cpu::tile::{Dots, weigh};
use crate::ops::attend::cpu::{PANEL, Soon, Words, halves};
use crate::simd_fn;
use std::ops::Range;

/// The working memory of a part: what each lane of queries has, then what blocks use one after the other.
pub struct Memory<'a> {
    lanes: &'a mut [f32],
    shared: &'a mut [f32],
    shape: Shape,
}

/// What the size of the working memory depends on.
#[derive(Clone, Copy)]
pub struct Shape {
    pub head_dim: usize,
    /// Values of a word: see [`Words`].
    pub values: usize,
    /// What words of a row and rows of Oᵀ are whole multiples of.
    pub whole: [usize; 2],
    /// Keys of a block, at most: whole tiles of scores.
    pub keys: usize,
    /// Lanes of a block of queries, at most, and of all of a part.
    pub width: usize,
    pub lanes: usize,
}

impl Shape {
    /// Words of a row of queries or keys.
    pub fn depth(&self) -> usize {
        self.head_dim.div_ceil(self.values).next_multiple_of(self.whole[0])
    }

    /// Rows of Oᵀ.
    fn rows_of_o(&self) -> usize {
        self.head_dim.next_multiple_of(self.whole[1])
    }

    fn values_of_lane(&self) -> usize {
        self.depth() + self.rows_of_o() + 6
    }

    fn words_of_k(&self) -> usize {
        self.keys * self.depth()
    }

    fn words_of_v(&self) -> usize {
        self.keys / self.values * self.head_dim.next_multiple_of(self.whole[1].max(PANEL))
    }

    fn packed_keys<'a>(&self, data: &'a [f32]) -> Keys<'a> {
        Keys { data, stride: self.depth() }
    }

    fn packed_values<'a>(&self, data: &'a [f32]) -> Values<'a> {
        Values { data, strides: [PANEL, self.keys / self.values * PANEL] }
    }

    /// The f32 values and words that a part takes.
    pub fn len(&self) -> usize {
        let packed = self.words_of_k() + self.words_of_v();
        let stage = 8 * self.head_dim.max(self.keys).next_multiple_of(PANEL);
        self.lanes * self.values_of_lane() + packed + self.width * (2 * self.keys + 1) + stage + Few::len(self)
    }
}

impl<'a> Memory<'a> {
    pub fn new(memory: &'a mut [f32], shape: Shape) -> Memory<'a> {
        let (lanes, shared) = memory.split_at_mut(shape.lanes * shape.values_of_lane());
        Memory { lanes, shared, shape }
    }

    /// Where packed keys and values go.
    pub fn keys(&mut self) -> [&mut [f32]; 2] {
        let (k, rest) = self.shared.split_at_mut(self.shape.words_of_k());
        [k, &mut rest[..self.shape.words_of_v()]]
    }

    /// What belongs to the block of queries of some lanes.
    pub fn slot(&mut self, lanes: &Range<usize>) -> Slot<'_> {
        let (shape, width) = (self.shape, lanes.len());
        let mut rest = &mut self.lanes[lanes.start * shape.values_of_lane()..lanes.end * shape.values_of_lane()];
        let mut cut = |rows: usize| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(rows * width);
            rest = tail;
            part
        };
        let (qt, o) = (cut(shape.depth()), cut(shape.rows_of_o()));
        let (m, l, lo, hi, id_high, id_low) = (cut(1), cut(1), cut(1), cut(1), cut(1), cut(1));
        let (k, rest) = self.shared.split_at_mut(shape.words_of_k());
        let (v, rest) = rest.split_at_mut(shape.words_of_v());
        let (p, rest) = rest.split_at_mut(shape.width * shape.keys);
        let (added, rest) = rest.split_at_mut(shape.width * shape.keys);
        let (alpha, stage) = rest.split_at_mut(shape.width);
        let (k, v) = (shape.packed_keys(k), shape.packed_values(v));
        Slot { k, v, qt, o, m, l, lo, hi, id_high, id_low, p, added, alpha, stage }
    }

    /// What belongs to the rows that no block has, and packed keys and values.
    pub fn few(&mut self) -> (Few<'_>, Keys<'_>, Values<'_>) {
        let shape = self.shape;
        let (k, rest) = self.shared.split_at_mut(shape.words_of_k());
        let (v, rest) = rest.split_at_mut(shape.words_of_v());
        let few = rest.len() - Few::len(&shape);
        (Few::new(&mut rest[few..], shape), shape.packed_keys(k), shape.packed_values(v))
    }
}

/// A block of keys: rows of words at a distance.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    pub data: &'a [f32],
    pub stride: usize,
}

/// The values of a block of keys: packed as [panel of columns][word of keys][`PANEL`], or as they lie.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    pub data: &'a [f32],
    /// From a word of keys to the next, and from a panel of columns to the next.
    pub strides: [usize; 2],
}

impl<'a> Values<'a> {
    /// Rows of whole tiles at a distance.
    pub fn lying(data: &'a [f32], stride: usize) -> Values<'a> {
        Values { data, strides: [stride, PANEL] }
    }

    /// The columns from number `at` on, from a word of keys on, and the distance to the next.
    #[inline(always)]
    fn columns(&self, key: usize, at: usize) -> (&'a [f32], usize) {
        let [row, panel] = self.strides;
        (&self.data[at / PANEL * panel + key * row + at % PANEL..], row)
    }
}

/// The working memory of a block of queries.
pub struct Slot<'a> {
    pub k: Keys<'a>,
    pub v: Values<'a>,
    /// Queries, those of single values scaled by softmax_scale · log2 e: [word of a row][lane].
    pub qt: &'a mut [f32],
    /// The result before division: [head_dim, rounded up][lane].
    pub o: &'a mut [f32],
    /// Per lane: what weights are relative to, which no score so far is more than `SLACK` above; their sum. Before the first score m is
    /// the lowest number: from any finite one hidden scores have weights of 2^-inf = 0.
    pub m: &'a mut [f32],
    pub l: &'a mut [f32],
    /// Per lane: the keys that it sees by their place are those from `lo` to before `hi`.
    pub lo: &'a mut [f32],
    pub hi: &'a mut [f32],
    /// Per lane: both halves of the segment's id.
    pub id_high: &'a mut [f32],
    pub id_low: &'a mut [f32],
    /// Scores, then weights, words of these in the place of their first key: [key][lane].
    pub p: &'a mut [f32],
    /// What is added to scores: [key][lane].
    pub added: &'a mut [f32],
    /// Per lane: the factor of what was summed before.
    pub alpha: &'a mut [f32],
    /// Eight rows on their way through a transposition.
    pub stage: &'a mut [f32],
}

/// What masks look at, per lane.
#[derive(Clone, Copy)]
pub struct Lanes<'a> {
    lo: &'a [f32],
    hi: &'a [f32],
    added: &'a [f32],
}

impl Slot<'_> {
    /// Some scores, and what may hide them.
    pub fn scores(&mut self, at: usize, len: usize) -> (&mut [f32], Lanes<'_>) {
        (&mut self.p[at..at + len], Lanes { lo: self.lo, hi: self.hi, added: self.added })
    }
}

/// What is brought closer during a step, so that nothing waits for memory: before each tile of scores some of the
/// first, before each tile of results some of the others.
pub type Ahead = [Soon; 3];

/// What to do with scores before they count.
#[derive(Clone, Copy)]
pub struct Mask {
    /// Hide keys outside of the lanes' `lo..hi`.
    pub bounded: bool,
    /// Add `Slot::added`, where -inf hides for good.
    pub added: bool,
    /// The place of the first of the keys.
    pub first_key: f32,
    /// What the scores of queries that are not scaled are multiplied by.
    pub scale: f32,
}

/// How far scores may rise above m, what weights are relative to, before that moves: weights are at most 2^8. It moves
/// to as far above the scores that made it move as costs no digits: exponents are as large below as above.
const SLACK: f32 = 8.0;
const LIFT: f32 = 5.0;

/// How far a step is.
struct Progress {
    /// The rows of P before this one are in the result.
    done: usize,
    before: Before,
}

/// What the result holds before more is added.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    /// Sums that lack the factor `Slot::alpha`.
    Unscaled,
    Scaled,
}

simd_fn! {
    /// The keys `at` of the block, which begin with a whole tile.
    pub fn step[S, W: Words<S>; const NV: usize](s, words: W, at: Range<usize>, first: bool, mask: Mask, ahead: &mut Ahead, slot: &mut Slot<'_>) {
        let before = if first { Before::Nothing } else { Before::Scaled };
        let mut progress = Progress { done: 0, before };
        if S::LANES == 16 {
            weights::<S, W, 8, NV>(s, words, at.clone(), mask, &mut progress, ahead, slot);
        } else {
            weights::<S, W, 4, NV>(s, words, at.clone(), mask, &mut progress, ahead, slot);
        }
        accumulate::<S, W, NV>(s, words, at, &progress, ahead, slot);
    }
}

/// Pᵀ = 2^(K · Qᵀ - m), masked.
#[inline(always)]
fn weights<S: Simd, W: Words<S>, const MR: usize, const NV: usize>(
    s: S,
    words: W,
    at: Range<usize>,
    mask: Mask,
    progress: &mut Progress,
    ahead: &mut Ahead,
    slot: &mut Slot<'_>,
) {
    let (n, width) = (at.len(), NV * S::LANES);
    let piece = (slot.qt.len() / width).div_ceil(MR / W::VALUES);
    let share = ahead[0].left.div_ceil(n.div_ceil(MR).max(1));
    for j in (0..n).step_by(MR) {
        ahead[0].fetch(share);
        // Beyond the last key it is computed again, and dropped.
        let mut rows: [&[f32]; MR] = [&[]; MR];
        for i in 0..MR {
            rows[i] = &slot.k.data[(at.start + j + i).min(at.end - 1) * slot.k.stride..];
        }
        let mut tile = [[s.zero(); NV]; MR];
        let mut dots = Dots::new(rows, slot.qt, width);
        // Between the products the exponentials of the tile before, which keep other units busy.
        let mut scores = slot.p[j.saturating_sub(MR) * width..j * width].chunks_exact_mut(W::VALUES * width);
        let (base, sums) = (&slot.m[..width], &mut slot.l[..width]);
        for _ in (0..MR).step_by(W::VALUES) {
            dots.advance(s, words, &mut tile, piece);
            if let Some(scores) = scores.next() {
                exponentials::<S, W, NV>(s, words, scores, base, sums);
            }
        }
        let p = &mut slot.p[j * width..(j + MR) * width];
        let mut top = [s.splat(f32::NEG_INFINITY); NV];
        for i in 0..MR {
            for v in 0..NV {
                if W::VALUES > 1 {
                    tile[i][v] = s.mul(tile[i][v], s.splat(mask.scale));
                }
                s.store(tile[i][v], &mut p[i * width + v * S::LANES..]);
                top[v] = s.max(top[v], tile[i][v]);
            }
        }
        if mask.bounded || mask.added || j + MR > n {
            let (scores, lanes) = slot.scores(j * width, MR * width);
            top = hide(s, j..n.min(j + MR), mask, 1.0, scores, lanes);
        }
        if is_above::<S, NV>(s, top, slot.m) {
            rise::<S, W, NV>(s, words, at.clone(), j, top, progress, ahead, slot);
        }
    }
    let last = n.next_multiple_of(MR) - MR;
    for scores in slot.p[last * width..(last + MR) * width].chunks_exact_mut(W::VALUES * width) {
        exponentials::<S, W, NV>(s, words, scores, &slot.m[..width], &mut slot.l[..width]);
    }
}

/// Replaces the scores of the keys of a word by their weights, and adds these up.
#[inline(always)]
fn exponentials<S: Simd, W: Words<S>, const NV: usize>(
    s: S,
    words: W,
    scores: &mut [f32],
    base: &[f32],
    sums: &mut [f32],
) {
    for v in 0..NV {
        let lane = v * S::LANES;
        let (base, mut sum) = (s.load(&base[lane..]), s.load(&sums[lane..]));
        let mut weights = [s.zero(); 2];
        for k in 0..W::VALUES {
            weights[k] = math::exp2(s, s.sub(s.load(&scores[k * NV * S::LANES + lane..]), base));
            sum = s.add(sum, weights[k]);
        }
        s.store(words.of_vectors(s, weights), &mut scores[lane..]);
        s.store(sum, &mut sums[lane..]);
    }
}

/// Whether scores of a tile are far above what weights are relative to in some lane.
#[inline(always)]
pub fn is_above<S: Simd, const NV: usize>(s: S, top: [S::V; NV], m: &[f32]) -> bool {
    let mut above = false;
    for v in 0..NV {
        above |= s.any_lt(s.add(s.load(&m[v * S::LANES..]), s.splat(SLACK)), top[v]);
    }
    above
}

/// How m rises over the largest scores of a tile, in lanes where they are far above it.
pub struct Rise<S: Simd, const NV: usize> {
    old: [S::V; NV],
    new: [S::V; NV],
    /// Whether what was summed before has to be scaled.
    pub scales: bool,
}

impl<S: Simd, const NV: usize> Rise<S, NV> {
    #[inline(always)]
    pub fn new(s: S, top: [S::V; NV], slot: &Slot<'_>) -> Self {
        let (mut old, mut new, mut scales) = ([s.zero(); NV], [s.zero(); NV], false);
        for v in 0..NV {
            let lane = v * S::LANES;
            old[v] = s.load(&slot.m[lane..]);
            let limit = s.add(old[v], s.splat(SLACK));
            new[v] = s.select_lt(limit, top[v], s.add(top[v], s.splat(LIFT)), old[v]);
            // A lane without weights has nothing to be scaled.
            scales |= s.any_lt(s.select_lt(s.zero(), s.load(&slot.l[lane..]), old[v], new[v]), new[v]);
        }
        Rise { old, new, scales }
    }

    /// Moves m, and scales the sums of weights; `slot.alpha` is the factor for the result then.
    #[inline(always)]
    pub fn apply(&self, s: S, slot: &mut Slot<'_>) {
        for v in 0..NV {
            let lane = v * S::LANES;
            s.store(self.new[v], &mut slot.m[lane..]);
            if self.scales {
                let alpha = math::exp2(s, s.sub(self.old[v], self.new[v]));
                s.store(alpha, &mut slot.alpha[lane..]);
                s.store(s.mul(s.load(&slot.l[lane..]), alpha), &mut slot.l[lane..]);
            }
        }
    }
}

/// Raises m over the largest scores of a tile, which begins with row `j`. What earlier rows of P say is added to the result before.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn rise<S: Simd, W: Words<S>, const NV: usize>(
    s: S,
    words: W,
    at: Range<usize>,
    j: usize,
    top: [S::V; NV],
    progress: &mut Progress,
    ahead: &mut Ahead,
    slot: &mut Slot<'_>,
) {
    let rise = Rise::<S, NV>::new(s, top, slot);
    if rise.scales {
        if j > progress.done {
            accumulate::<S, W, NV>(s, words, at.start..at.start + j, progress, ahead, slot);
            *progress = Progress { done: j, before: Before::Scaled };
        }
        if progress.before == Before::Scaled {
            progress.before = Before::Unscaled;
        }
    }
    rise.apply(s, slot);
}

/// Scales and masks the scores of some keys, rows after theirs become -inf; gives the largest of each lane.
#[inline(always)]
pub fn hide<S: Simd, const NV: usize>(
    s: S,
    keys: Range<usize>,
    mask: Mask,
    scale: f32,
    scores: &mut [f32],
    lanes: Lanes<'_>,
) -> [S::V; NV] {
    let (width, hidden) = (NV * S::LANES, s.splat(f32::NEG_INFINITY));
    let mut top = [hidden; NV];
    let (scores, beyond) = scores.split_at_mut(keys.len() * width);
    for (j, scores) in keys.zip(scores.chunks_exact_mut(width)) {
        let key = s.splat(mask.first_key + j as f32);
        for v in 0..NV {
            let lane = v * S::LANES;
            let mut x = s.mul(s.load(&scores[lane..]), s.splat(scale));
            if mask.added {
                let added = s.load(&lanes.added[j * width + lane..]);
                x = s.select_lt(added, s.splat(f32::MIN), hidden, s.add(x, added));
            }
            if mask.bounded {
                x = s.select_lt(key, s.load(&lanes.lo[lane..]), hidden, x);
                x = s.select_lt(key, s.load(&lanes.hi[lane..]), x, hidden);
            }
            top[v] = s.max(top[v], x);
            s.store(x, &mut scores[lane..]);
        }
    }
    beyond.fill(f32::NEG_INFINITY);
    top
}

simd_fn! {
    /// Oᵀ = Oᵀ · alpha + Vᵀ · P, for those of the keys that are not done.
    fn accumulate[S, W: Words<S>; const NV: usize](s, words: W, keys: Range<usize>, progress: &Progress, ahead: &mut Ahead, slot: &mut Slot<'_>) {
        if S::LANES == 16 {
            add_up::<S, W, 8, NV>(s, words, keys, progress, ahead, slot);
        } else {
            add_up::<S, W, 4, NV>(s, words, keys, progress, ahead, slot);
        }
    }
}

#[inline(always)]
fn add_up<S: Simd, W: Words<S>, const MR: usize, const NV: usize>(
    s: S,
    words: W,
    keys: Range<usize>,
    progress: &Progress,
    [_, ahead @ ..]: &mut Ahead,
    slot: &mut Slot<'_>,
) {
    let width = NV * S::LANES;
    let Progress { done, before } = *progress;
    let (first, n) = ((keys.start + done) / W::VALUES, (keys.len() - done).div_ceil(W::VALUES));
    let p = &slot.p[done * width..];
    let shares = ahead.each_ref().map(|rows| rows.left.div_ceil(slot.o.len() / (MR * width)));
    for (tile, o) in slot.o.chunks_exact_mut(MR * width).enumerate() {
        for (rows, share) in ahead.iter_mut().zip(shares) {
            rows.fetch(share);
        }
        let mut acc = [[s.zero(); NV]; MR];
        if before != Before::Nothing {
            for i in 0..MR {
                for v in 0..NV {
                    acc[i][v] = s.load(&o[i * width + v * S::LANES..]);
                    if before == Before::Unscaled {
                        acc[i][v] = s.mul(acc[i][v], s.load(&slot.alpha[v * S::LANES..]));
                    }
                }
            }
        }
        let columns = slot.v.columns(first, tile * MR);
        let acc = weigh::<S, W, MR, NV>(s, words, acc, n, columns, (p, W::VALUES * width));
        for i in 0..MR {
            for v in 0..NV {
                s.store(acc[i][v], &mut o[i * width + v * S::LANES..]);
            }
        }
    }
}

simd_fn! {
    /// `to = x · factor`, rounded.
    pub fn narrow[S, T: Lane](s, x: &[f32], factor: f32, to: &mut [T]) {
        let (body, factor) = (x.len() - x.len() % S::LANES, s.splat(factor));
        for (x, to) in x[..body].chunks_exact(S::LANES).zip(to.chunks_exact_mut(S::LANES)) {
            T::store(s, s.mul(s.load(x), factor), to);
        }
        if body < x.len() {
            T::store_part(s, s.mul(s.load_part(&x[body..]), factor), &mut to[body..x.len()]);
        }
    }
}

simd_fn! {
    /// `added` = -inf where a key's segment is not that of the lane.
    pub fn part_segments[S](s, ids: &[u32], high: &[f32], low: &[f32], added: &mut [f32]) {
        let width = high.len();
        for (&id, added) in ids.iter().zip(added.chunks_exact_mut(width)) {
            let (key_high, key_low) = halves(id);
            for at in (0..width).step_by(S::LANES) {
                let differ_high = s.abs(s.sub(s.splat(key_high), s.load(&high[at..])));
                let differ_low = s.abs(s.sub(s.splat(key_low), s.load(&low[at..])));
                let differ = s.add(differ_high, differ_low);
                let added = &mut added[at..at + S::LANES];
                s.store(s.select_lt(differ, s.splat(0.5), s.load(added), s.splat(f32::NEG_INFINITY)), added);
            }
        }
    }
}
