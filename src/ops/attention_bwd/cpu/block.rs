//! The vector code of the kernel: one block of queries against one strip of keys, and what prepares and ends it. See
//! `mod.rs` for the algorithm.
// Loops over registers name them by number: iterators over the arrays keep some of them in memory.
#![allow(clippy::needless_range_loop)]

use super::Queries;
use crate::backend::cpu::simd::{Isa, Lane, Simd, math};
use crate::ops::attend::cpu::tile::{Tile, dots, weigh};
use crate::simd_fn;
use std::ops::Range;

/// Keys of a span: a multiple of every strip.
pub const KEYS: usize = 240;
/// Queries of a block.
pub const QUERIES: usize = 72;

/// The working memory of a part.
pub struct Slot<'a> {
    /// Keys and values of the span, and their gradients so far: [head_dim][lane] of one strip after the other.
    pub kt: &'a mut [f32],
    pub vt: &'a mut [f32],
    pub dkt: &'a mut [f32],
    pub dvt: &'a mut [f32],
    /// Keys scaled by softmax_scale: [key][column] of one group of columns after the other (see [`columns`]).
    pub k: &'a mut [f32],
    /// Queries scaled by softmax_scale · log2 e, then what the span adds to their gradients: [query][stride].
    pub q: &'a mut [f32],
    pub dout: &'a mut [f32],
    /// Weights, and gradients of scores: [query][KEYS].
    pub p: &'a mut [f32],
    pub ds: &'a mut [f32],
    /// Per query: the keys that it sees by their place are those from `lo` to before `hi`; its log-sum-exp in base 2; delta;
    /// both halves of its segment's id.
    pub lo: &'a mut [f32],
    pub hi: &'a mut [f32],
    pub lse: &'a mut [f32],
    pub delta: &'a mut [f32],
    pub id_high: &'a mut [f32],
    pub id_low: &'a mut [f32],
    /// Per key: its place; 1 if it is there and 0 if not; both halves of its segment's id.
    pub place: &'a mut [f32],
    pub there: &'a mut [f32],
    pub key_high: &'a mut [f32],
    pub key_low: &'a mut [f32],
    /// Eight rows on their way through a transposition.
    pub stage: &'a mut [f32],
    /// Values from a query's row to the next: an odd number of cache lines, so that rows spread over the cache.
    pub stride: usize,
    pub head_dim: usize,
}

/// Columns rounded up to whole vectors of any instruction set.
fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(16)
}

fn stride(head_dim: usize) -> usize {
    ((padded(head_dim) / 16) | 1) * 16
}

impl<'a> Slot<'a> {
    /// The f32 values that a slot takes.
    pub fn len(head_dim: usize) -> usize {
        let (per_key, per_query) = (4 * head_dim + padded(head_dim) + 4, 2 * stride(head_dim) + 2 * KEYS);
        KEYS * per_key + QUERIES * per_query + 6 * QUERIES.next_multiple_of(16) + 8 * padded(head_dim)
    }

    /// Cuts a slot out of at least [`len`](Slot::len) values.
    pub fn new(memory: &'a mut [f32], head_dim: usize) -> Slot<'a> {
        let mut rest = memory;
        let mut cut = |len: usize| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            part
        };
        let (stride, row) = (stride(head_dim), QUERIES.next_multiple_of(16));
        Slot {
            kt: cut(KEYS * head_dim),
            vt: cut(KEYS * head_dim),
            dkt: cut(KEYS * head_dim),
            dvt: cut(KEYS * head_dim),
            k: cut(KEYS * padded(head_dim)),
            q: cut(QUERIES * stride),
            dout: cut(QUERIES * stride),
            p: cut(QUERIES * KEYS),
            ds: cut(QUERIES * KEYS),
            lo: cut(row),
            hi: cut(row),
            lse: cut(row),
            delta: cut(row),
            id_high: cut(row),
            id_low: cut(row),
            place: cut(KEYS),
            there: cut(KEYS),
            key_high: cut(KEYS),
            key_low: cut(KEYS),
            stage: cut(8 * padded(head_dim)),
            stride,
            head_dim,
        }
    }
}

/// Groups of vectors that the columns of keys are cut into: as few and as even as the register tile allows. Gives the
/// first column and the vectors of each.
pub fn columns<S: Simd>(head_dim: usize) -> impl Iterator<Item = (usize, usize)> {
    let most = match S::ISA {
        Isa::Portable => 1,
        Isa::Avx2 => 3,
        Isa::Avx512 => 4,
    };
    let vectors = head_dim.div_ceil(S::LANES);
    let groups = vectors.div_ceil(most);
    (0..groups).map(move |i| {
        let (first, end) = (i * vectors / groups, (i + 1) * vectors / groups);
        (first * S::LANES, end - first)
    })
}

/// What hides some of a strip's scores or adds to them.
#[derive(Clone, Copy)]
pub struct Hide<'a> {
    /// Keys lie outside of some query's `lo..hi`.
    pub bounded: bool,
    /// A bias, segments or padding.
    pub others: Option<&'a Queries<'a>>,
}

simd_fn! {
    /// Weights and gradients of scores for some queries and a strip of keys whose first is number `at` of the span, and what
    /// they add to the gradients of its values and keys.
    pub fn step[S; const NV: usize](s, at: usize, rows: Range<usize>, hide: Hide<'_>, slot: &mut Slot<'_>) {
        if S::LANES == 16 {
            weights::<S, 8, NV>(s, at, rows.clone(), hide, slot);
            slopes::<S, 8, NV>(s, at, rows.clone(), slot);
        } else {
            weights::<S, 4, NV>(s, at, rows.clone(), hide, slot);
            slopes::<S, 4, NV>(s, at, rows.clone(), slot);
        }
        let (d, stride, width) = (slot.head_dim, slot.stride, NV * S::LANES);
        let of_rows = rows.start * stride..rows.end * stride;
        let of_scores = rows.start * KEYS + at..(rows.end - 1) * KEYS + at + width;
        let of_strip = at * d..(at + width) * d;
        accumulate::<S, NV>(s, &slot.dout[of_rows.clone()], stride, &slot.p[of_scores.clone()], d, &mut slot.dvt[of_strip.clone()]);
        accumulate::<S, NV>(s, &slot.q[of_rows], stride, &slot.ds[of_scores], d, &mut slot.dkt[of_strip]);
    }
}

/// P = 2^(Q · Kᵀ - lse), masked.
#[inline(always)]
fn weights<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    at: usize,
    rows: Range<usize>,
    hide: Hide<'_>,
    slot: &mut Slot<'_>,
) {
    let (d, width) = (slot.head_dim, NV * S::LANES);
    for r in rows.clone().step_by(MR) {
        let queries = tile_rows::<MR>(slot.q, slot.stride, r, rows.end);
        let mut tile = dots::<S, MR, NV>(s, queries, d, &slot.kt[at * d..(at + width) * d]);
        if hide.bounded || hide.others.is_some() {
            conceal(s, &mut tile, at, r, rows.end, hide, slot);
        }
        for i in 0..MR.min(rows.end - r) {
            let lse = s.splat(slot.lse[r + i]);
            let p = &mut slot.p[(r + i) * KEYS + at..][..width];
            for v in 0..NV {
                s.store(math::exp2(s, s.sub(tile[i][v], lse)), &mut p[v * S::LANES..]);
            }
        }
    }
}

/// dS = P ∘ (dO · Vᵀ - delta).
#[inline(always)]
fn slopes<S: Simd, const MR: usize, const NV: usize>(s: S, at: usize, rows: Range<usize>, slot: &mut Slot<'_>) {
    let (d, width) = (slot.head_dim, NV * S::LANES);
    for r in rows.clone().step_by(MR) {
        let gradients = tile_rows::<MR>(slot.dout, slot.stride, r, rows.end);
        let tile = dots::<S, MR, NV>(s, gradients, d, &slot.vt[at * d..(at + width) * d]);
        for i in 0..MR.min(rows.end - r) {
            let delta = s.splat(slot.delta[r + i]);
            let place = (r + i) * KEYS + at;
            let (p, ds) = (&slot.p[place..][..width], &mut slot.ds[place..][..width]);
            for v in 0..NV {
                let p = s.load(&p[v * S::LANES..]);
                s.store(s.mul(p, s.sub(tile[i][v], delta)), &mut ds[v * S::LANES..]);
            }
        }
    }
}

/// `MR` rows from number `r` on; beyond the last it comes again.
#[inline(always)]
fn tile_rows<const MR: usize>(rows: &[f32], stride: usize, r: usize, end: usize) -> [&[f32]; MR] {
    let mut tile: [&[f32]; MR] = [&[]; MR];
    for i in 0..MR {
        tile[i] = &rows[(r + i).min(end - 1) * stride..];
    }
    tile
}

#[inline(always)]
fn conceal<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    tile: &mut Tile<S, MR, NV>,
    at: usize,
    r: usize,
    end: usize,
    hide: Hide<'_>,
    slot: &Slot<'_>,
) {
    let hidden = s.splat(f32::NEG_INFINITY);
    for i in 0..MR {
        let row = (r + i).min(end - 1);
        for v in 0..NV {
            let key = at + v * S::LANES;
            let mut x = tile[i][v];
            if let Some(queries) = hide.others {
                if let Some(bias) = queries.bias(row) {
                    let from = (queries.span.start + key).min(bias.len());
                    let bias = &bias[from..bias.len().min(from + S::LANES)];
                    x = s.fma(s.load_part(bias), s.splat(std::f32::consts::LOG2_E), x);
                }
                let high = s.abs(s.sub(s.load(&slot.key_high[key..]), s.splat(slot.id_high[row])));
                let low = s.abs(s.sub(s.load(&slot.key_low[key..]), s.splat(slot.id_low[row])));
                x = s.select_lt(s.add(high, low), s.splat(0.5), x, hidden);
                x = s.select_lt(s.load(&slot.there[key..]), s.splat(0.5), hidden, x);
            }
            if hide.bounded {
                let place = s.load(&slot.place[key..]);
                x = s.select_lt(place, s.splat(slot.lo[row]), hidden, x);
                x = s.select_lt(place, s.splat(slot.hi[row]), x, hidden);
            }
            tile[i][v] = x;
        }
    }
}

/// `to += rowsᵀ · weights`, with `rows` [n][stride], `weights` [n][KEYS] and `to` [depth][NV vectors].
#[inline(always)]
fn accumulate<S: Simd, const NV: usize>(
    s: S,
    rows: &[f32],
    stride: usize,
    weights: &[f32],
    depth: usize,
    to: &mut [f32],
) {
    let mut at = 0;
    while S::LANES == 16 && at + 8 <= depth {
        accumulate_tile::<S, 8, NV>(s, &rows[at..], stride, weights, at, to);
        at += 8;
    }
    while at + 4 <= depth {
        accumulate_tile::<S, 4, NV>(s, &rows[at..], stride, weights, at, to);
        at += 4;
    }
    while at + 2 <= depth {
        accumulate_tile::<S, 2, NV>(s, &rows[at..], stride, weights, at, to);
        at += 2;
    }
    if at < depth {
        accumulate_tile::<S, 1, NV>(s, &rows[at..], stride, weights, at, to);
    }
}

#[inline(always)]
fn accumulate_tile<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    rows: &[f32],
    stride: usize,
    weights: &[f32],
    at: usize,
    to: &mut [f32],
) {
    let width = NV * S::LANES;
    let to = &mut to[at * width..][..MR * width];
    let mut acc = [[s.zero(); NV]; MR];
    for i in 0..MR {
        for v in 0..NV {
            acc[i][v] = s.load(&to[i * width + v * S::LANES..]);
        }
    }
    let acc = weigh::<S, MR, NV>(s, acc, (rows, stride), (weights, KEYS));
    for i in 0..MR {
        for v in 0..NV {
            s.store(acc[i][v], &mut to[i * width + v * S::LANES..]);
        }
    }
}

simd_fn! {
    /// `q = dS · K` over the span's keys, for `n` queries and a group of NV vectors of columns from `first` on.
    pub fn to_queries[S; const NV: usize](s, first: usize, n: usize, span: Range<usize>, slot: &mut Slot<'_>) {
        match (S::LANES, NV) {
            (16, 4) => to_queries_by::<S, 6, NV>(s, first, n, span, slot),
            (16, _) => to_queries_by::<S, 8, NV>(s, first, n, span, slot),
            _ => to_queries_by::<S, 4, NV>(s, first, n, span, slot),
        }
    }
}

#[inline(always)]
fn to_queries_by<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    first: usize,
    n: usize,
    span: Range<usize>,
    slot: &mut Slot<'_>,
) {
    let width = NV * S::LANES;
    let k = &slot.k[first * KEYS..];
    for r in (0..n).step_by(MR) {
        // The keys that some query of the tile sees.
        let of_tile = r..n.min(r + MR);
        let lo = slot.lo[of_tile.clone()].iter().fold(f32::MAX, |a, &b| a.min(b)) as usize;
        let hi = slot.hi[of_tile].iter().fold(0.0, |a: f32, &b| a.max(b)) as usize;
        let (lo, hi) = (lo.clamp(span.start, span.end) - span.start, hi.clamp(span.start, span.end) - span.start);
        let lo = lo.min(hi);
        let slopes = tile_rows::<MR>(&slot.ds[lo..], KEYS, r, n);
        let tile = dots::<S, MR, NV>(s, slopes, hi - lo, &k[lo * width..]);
        for i in 0..MR.min(n - r) {
            let q = &mut slot.q[(r + i) * slot.stride + first..][..width];
            for v in 0..NV {
                s.store(tile[i][v], &mut q[v * S::LANES..]);
            }
        }
    }
}

simd_fn! {
    /// `to += x`
    pub fn add[S](s, x: &[f32], to: &mut [f32]) {
        let body = to.len() - to.len() % S::LANES;
        for (x, to) in x[..body].chunks_exact(S::LANES).zip(to.chunks_exact_mut(S::LANES)) {
            s.store(s.add(s.load(x), s.load(to)), to);
        }
        if body < to.len() {
            let (x, to) = (&x[body..to.len()], &mut to[body..]);
            s.store_part(s.add(s.load_part(x), s.load_part(to)), to);
        }
    }
}

simd_fn! {
    /// `x · y`
    pub fn dot[S, T: Lane](s, x: &[f32], y: &[T]) -> f32 {
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
