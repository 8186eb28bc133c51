//! The vector code of the flash kernel: one block of queries against one block of keys, and what prepares and ends it.
//! Matrices are [row][lane], a lane being a query; see `flash.rs` for the algorithm.
// Loops over registers name them by number: iterators over the arrays keep some of them in memory.
#![allow(clippy::needless_range_loop)]

use crate::backend::cpu::simd::{Lane, Simd, math};
use crate::ops::attend::cpu::halves;
use crate::ops::attend::cpu::tile::{Tile, dots, weigh};
use crate::simd_fn;

/// The working memory of a block of queries.
pub struct Slot<'a> {
    /// Queries, scaled by softmax_scale · log2 e: [head_dim][lane].
    pub qt: &'a mut [f32],
    /// Scores, then weights: [key][lane].
    pub p: &'a mut [f32],
    /// The result before division: [head_dim][lane].
    pub o: &'a mut [f32],
    /// What is added to scores: [key][lane].
    pub added: &'a mut [f32],
    /// Eight rows on their way through a transposition.
    pub stage: &'a mut [f32],
    /// Per lane: the largest score so far, the sum of weights, the factor of what was summed before.
    pub m: &'a mut [f32],
    pub l: &'a mut [f32],
    pub alpha: &'a mut [f32],
    /// Per lane: the keys that it sees by their place are those from `lo` to before `hi`.
    pub lo: &'a mut [f32],
    pub hi: &'a mut [f32],
    /// Per lane: both halves of the segment's id.
    pub id_high: &'a mut [f32],
    pub id_low: &'a mut [f32],
}

impl<'a> Slot<'a> {
    /// The f32 values that a slot takes for a block of `width` queries and `bk` keys.
    pub fn len(head_dim: usize, bk: usize, width: usize) -> usize {
        (width * (2 * head_dim + 2 * bk + 7) + 8 * head_dim.max(bk)).next_multiple_of(16)
    }

    /// Cuts a slot out of at least [`len`](Slot::len) values.
    pub fn new(memory: &'a mut [f32], head_dim: usize, bk: usize, width: usize) -> Slot<'a> {
        let mut rest = memory;
        let mut cut = |rows: usize| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(rows * width);
            rest = tail;
            part
        };
        Slot {
            qt: cut(head_dim),
            p: cut(bk),
            o: cut(head_dim),
            added: cut(bk),
            m: cut(1),
            l: cut(1),
            alpha: cut(1),
            lo: cut(1),
            hi: cut(1),
            id_high: cut(1),
            id_low: cut(1),
            stage: rest,
        }
    }
}

/// A block of keys and values; rows lie at a distance.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    pub k: &'a [f32],
    pub v: &'a [f32],
    /// Between rows of `k` and of `v`.
    pub strides: [usize; 2],
}

impl Keys<'_> {
    /// Without the first `n` keys.
    pub fn skip(self, n: usize) -> Self {
        Keys { k: &self.k[n * self.strides[0]..], v: &self.v[n * self.strides[1]..], ..self }
    }
}

/// What to do with scores before they count.
#[derive(Clone, Copy)]
pub struct Mask {
    /// Hide keys outside of the lanes' `lo..hi`.
    pub bounded: bool,
    /// Add `Slot::added`, where -inf hides for good.
    pub added: bool,
    /// The place of the block's first key.
    pub first_key: f32,
}

simd_fn! {
    /// One block of `n` keys.
    pub fn step[S; const NV: usize](s, keys: Keys<'_>, n: usize, first: bool, mask: Mask, slot: &mut Slot<'_>) {
        let width = NV * S::LANES;
        let top = if S::LANES == 16 {
            scores::<S, 8, NV>(s, keys, n, mask, slot)
        } else {
            scores::<S, 4, NV>(s, keys, n, mask, slot)
        };
        let (mut base, mut sum, mut moved) = ([s.zero(); NV], [s.zero(); NV], 0.0f32);
        let lowest = s.splat(f32::MIN);
        for v in 0..NV {
            let at = v * S::LANES;
            let old = s.load(&slot.m[at..]);
            let new = s.max(old, top[v]);
            // A lane that has seen nothing: any finite base gives weights of 2^-inf = 0.
            base[v] = s.select_lt(new, lowest, s.zero(), new);
            let alpha = math::exp2(s, s.sub(old, base[v]));
            moved = moved.max(s.max_lane(s.select_lt(old, new, s.splat(1.0), s.zero())));
            sum[v] = s.mul(s.load(&slot.l[at..]), alpha);
            s.store(new, &mut slot.m[at..]);
            s.store(alpha, &mut slot.alpha[at..]);
        }
        for p in slot.p[..n * width].chunks_exact_mut(width) {
            for v in 0..NV {
                let weight = math::exp2(s, s.sub(s.load(&p[v * S::LANES..]), base[v]));
                sum[v] = s.add(sum[v], weight);
                s.store(weight, &mut p[v * S::LANES..]);
            }
        }
        for v in 0..NV {
            s.store(sum[v], &mut slot.l[v * S::LANES..]);
        }
        let before = if first { Before::Nothing } else if moved > 0.0 { Before::Scaled } else { Before::Kept };
        accumulate::<S, NV>(s, keys, n, before, slot);
    }
}

/// Sᵀ = K · Qᵀ, masked; gives the largest score of each lane.
#[inline(always)]
fn scores<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    keys: Keys<'_>,
    n: usize,
    mask: Mask,
    slot: &mut Slot<'_>,
) -> [S::V; NV] {
    let width = NV * S::LANES;
    let depth = slot.qt.len() / width;
    let mut top = [s.splat(f32::NEG_INFINITY); NV];
    for j in (0..n).step_by(MR) {
        let mut rows: [&[f32]; MR] = [&[]; MR];
        for i in 0..MR {
            // Beyond the last key it is computed again and dropped.
            rows[i] = &keys.k[(j + i).min(n - 1) * keys.strides[0]..];
        }
        let mut tile = dots::<S, MR, NV>(s, rows, depth, slot.qt);
        if mask.bounded || mask.added {
            hide(s, &mut tile, j, n, mask, slot);
        }
        let p = &mut slot.p[j * width..n.min(j + MR) * width];
        for i in 0..MR {
            if (i + 1) * width <= p.len() {
                for v in 0..NV {
                    top[v] = s.max(top[v], tile[i][v]);
                    s.store(tile[i][v], &mut p[i * width + v * S::LANES..]);
                }
            }
        }
    }
    top
}

#[inline(always)]
fn hide<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    tile: &mut Tile<S, MR, NV>,
    j: usize,
    n: usize,
    mask: Mask,
    slot: &Slot<'_>,
) {
    let (width, hidden) = (NV * S::LANES, s.splat(f32::NEG_INFINITY));
    for i in 0..MR {
        for v in 0..NV {
            let at = v * S::LANES;
            let mut x = tile[i][v];
            if mask.added {
                let added = s.load(&slot.added[(j + i).min(n - 1) * width + at..]);
                x = s.select_lt(added, s.splat(f32::MIN), hidden, s.add(x, added));
            }
            if mask.bounded {
                let key = s.splat(mask.first_key + (j + i) as f32);
                x = s.select_lt(key, s.load(&slot.lo[at..]), hidden, x);
                x = s.select_lt(key, s.load(&slot.hi[at..]), x, hidden);
            }
            tile[i][v] = x;
        }
    }
}

/// What the accumulated result holds before a block.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    Scaled,
    Kept,
}

/// Oᵀ = Oᵀ · alpha + Vᵀ · P.
#[inline(always)]
fn accumulate<S: Simd, const NV: usize>(s: S, keys: Keys<'_>, n: usize, before: Before, slot: &mut Slot<'_>) {
    let width = NV * S::LANES;
    let (depth, mut at) = (slot.o.len() / width, 0);
    while S::LANES == 16 && at + 8 <= depth {
        columns::<S, 8, NV>(s, keys, n, before, at, slot);
        at += 8;
    }
    while at + 4 <= depth {
        columns::<S, 4, NV>(s, keys, n, before, at, slot);
        at += 4;
    }
    while at + 2 <= depth {
        columns::<S, 2, NV>(s, keys, n, before, at, slot);
        at += 2;
    }
    if at < depth {
        columns::<S, 1, NV>(s, keys, n, before, at, slot);
    }
}

#[inline(always)]
fn columns<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    keys: Keys<'_>,
    n: usize,
    before: Before,
    at: usize,
    slot: &mut Slot<'_>,
) {
    let width = NV * S::LANES;
    let o = &mut slot.o[at * width..][..MR * width];
    let mut acc = [[s.zero(); NV]; MR];
    if before != Before::Nothing {
        for i in 0..MR {
            for v in 0..NV {
                acc[i][v] = s.load(&o[i * width + v * S::LANES..]);
                if before == Before::Scaled {
                    acc[i][v] = s.mul(acc[i][v], s.load(&slot.alpha[v * S::LANES..]));
                }
            }
        }
    }
    let acc = weigh::<S, MR, NV>(s, acc, (&keys.v[at..], keys.strides[1]), (&slot.p[..n * width], width));
    for i in 0..MR {
        for v in 0..NV {
            s.store(acc[i][v], &mut o[i * width + v * S::LANES..]);
        }
    }
}

simd_fn! {
    /// `to = x`, rounded.
    pub fn narrow[S, T: Lane](s, x: &[f32], to: &mut [T]) {
        let body = x.len() - x.len() % S::LANES;
        for (x, to) in x[..body].chunks_exact(S::LANES).zip(to.chunks_exact_mut(S::LANES)) {
            T::store(s, s.load(x), to);
        }
        if body < x.len() {
            T::store_part(s, s.load_part(&x[body..]), &mut to[body..x.len()]);
        }
    }
}

simd_fn! {
    /// Divides every row of `o` [row][lane] by the sums of its lanes; a sum of 0 gives 0.
    pub fn normalise[S](s, sums: &mut [f32], o: &mut [f32]) {
        let width = sums.len();
        for at in (0..width).step_by(S::LANES) {
            let sum = s.load(&sums[at..]);
            let inverse = s.div(s.splat(1.0), sum);
            let inverse = s.select_lt(s.zero(), sum, inverse, s.mul(sum, s.splat(1.0)));
            for o in o.chunks_exact_mut(width) {
                let o = &mut o[at..at + S::LANES];
                s.store(s.mul(s.load(o), inverse), o);
            }
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
