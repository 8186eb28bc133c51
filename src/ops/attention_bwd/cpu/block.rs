//! The vector code of the kernel: one block of queries against one strip of keys, and what prepares and ends it. See
//! `mod.rs` for the algorithm.
// Loops over registers name them by number: iterators over the arrays keep some of them in memory.
#![allow(clippy::needless_range_loop)]

use super::Queries;
use crate::backend::cpu::deal;
use crate::backend::cpu::simd::{Isa, Lane, Simd, math};
use crate::ops::attend::cpu::tile::{dots, weigh};
use crate::ops::attend::cpu::{PANEL, Single, Soon};
use crate::simd_fn;
use std::ops::Range;

/// Bytes that a span's keys, values and their gradients take, at most.
const SPAN_BYTES: usize = 800 << 10;
/// A multiple of every strip.
const STRIPS: usize = 48;
/// Queries of a block.
pub const QUERIES: usize = 72;
/// Keys of a span, at most.
pub fn keys(head_dim: usize) -> usize {
    (SPAN_BYTES / (4 * (4 * head_dim + padded(head_dim))) / STRIPS * STRIPS).clamp(2 * STRIPS, 16 * STRIPS)
}

/// The working memory of a part.
pub struct Slot<'a> {
    /// Keys and values of the span, and their gradients so far: [head_dim][lane] of one strip after the other.
    pub kt: &'a mut [f32],
    pub vt: &'a mut [f32],
    pub dkt: &'a mut [f32],
    pub dvt: &'a mut [f32],
    /// Keys scaled by softmax_scale: [key][column] of one group of columns after the other (see [`columns`]).
    pub k: &'a mut [f32],
    /// Queries scaled by softmax_scale · log2 e, and gradients of their results: [panel of queries][head_dim][`PANEL`].
    pub qt: &'a mut [f32],
    pub doutt: &'a mut [f32],
    /// The same, queries not scaled: [panel of columns][query][`PANEL`].
    pub q: &'a mut [f32],
    pub dout: &'a mut [f32],
    /// What the span adds to the gradients of queries: [query][column, rounded up].
    pub dq: &'a mut [f32],
    /// Of a strip: weights, and gradients of scores: [query][lane].
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
    pub head_dim: usize,
}

/// What is brought closer during steps: `each` rows at every tile of scores.
pub struct Ahead {
    pub rows: [Soon; 3],
    pub each: usize,
}

impl Ahead {
    #[inline(always)]
    fn fetch(&mut self) {
        for rows in &mut self.rows {
            rows.fetch(self.each);
        }
    }
}

/// Columns rounded up to whole vectors of any instruction set.
pub fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(PANEL)
}

/// Rows of queries that there is room for: whole panels, and tiles of up to eight that begin
/// anywhere reach beyond the last.
pub const ROOM: usize = (QUERIES + 7).next_multiple_of(PANEL);

impl<'a> Slot<'a> {
    /// The f32 values that a slot takes.
    pub fn len(head_dim: usize) -> usize {
        let (d, wide) = (head_dim, padded(head_dim));
        keys(d) * (4 * d + wide + 4) + ROOM * (2 * d + 3 * wide + 2 * STRIPS + 6) + 8 * wide
    }

    /// Cuts a slot out of at least [`len`](Slot::len) values.
    pub fn new(memory: &'a mut [f32], head_dim: usize) -> Slot<'a> {
        let mut rest = memory;
        let mut cut = |len: usize| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            part
        };
        let (keys, wide) = (keys(head_dim), padded(head_dim));
        Slot {
            kt: cut(keys * head_dim),
            vt: cut(keys * head_dim),
            dkt: cut(keys * head_dim),
            dvt: cut(keys * head_dim),
            k: cut(keys * wide),
            qt: cut(ROOM * head_dim),
            doutt: cut(ROOM * head_dim),
            q: cut(ROOM * wide),
            dout: cut(ROOM * wide),
            dq: cut(ROOM * wide),
            p: cut(ROOM * STRIPS),
            ds: cut(ROOM * STRIPS),
            lo: cut(ROOM),
            hi: cut(ROOM),
            lse: cut(ROOM),
            delta: cut(ROOM),
            id_high: cut(ROOM),
            id_low: cut(ROOM),
            place: cut(keys),
            there: cut(keys),
            key_high: cut(keys),
            key_low: cut(keys),
            stage: cut(8 * wide),
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
        let group = deal(vectors, groups, i);
        (group.start * S::LANES, group.len())
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
    /// Weights and gradients of scores for some queries, the first a multiple of 8, and a strip of keys whose first is number
    /// `at` of the span; what they add to the gradients of its values and keys and, in `slot.dq`, of the queries.
    pub fn step[S; const NV: usize](s, at: usize, rows: Range<usize>, hide: Hide<'_>, ahead: &mut Ahead, slot: &mut Slot<'_>) {
        if S::LANES == 16 {
            weights::<S, 8, NV>(s, at, rows.clone(), hide, ahead, slot);
            slopes::<S, 8, NV>(s, at, rows.clone(), ahead, slot);
        } else {
            weights::<S, 4, NV>(s, at, rows.clone(), hide, ahead, slot);
            slopes::<S, 4, NV>(s, at, rows.clone(), ahead, slot);
        }
        let (d, width) = (slot.head_dim, NV * S::LANES);
        let of_strip = at * d..(at + width) * d;
        let of_scores = rows.start * width..rows.end * width;
        accumulate::<S, NV>(s, slot.dout, rows.clone(), &slot.p[of_scores.clone()], &mut slot.dvt[of_strip.clone()]);
        accumulate::<S, NV>(s, slot.q, rows.clone(), &slot.ds[of_scores], &mut slot.dkt[of_strip]);
        for (first, vectors) in columns::<S>(d) {
            match vectors {
                1 => to_queries::<S, NV, 1>(s, first, rows.clone(), at, slot),
                2 => to_queries::<S, NV, 2>(s, first, rows.clone(), at, slot),
                3 => to_queries::<S, NV, 3>(s, first, rows.clone(), at, slot),
                _ => to_queries::<S, NV, 4>(s, first, rows.clone(), at, slot),
            }
        }
    }
}

/// `MR` rows of a matrix packed as [panel][depth][`PANEL`], from number `r` on.
#[inline(always)]
fn side_by_side(packed: &[f32], depth: usize, r: usize) -> &[f32] {
    &packed[r / PANEL * PANEL * depth..][..PANEL * depth][r % PANEL..]
}

/// P = 2^(Q · Kᵀ - lse), masked. Rows of a tile beyond the last are computed, too, and nobody reads them.
#[inline(always)]
fn weights<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    at: usize,
    rows: Range<usize>,
    hide: Hide<'_>,
    ahead: &mut Ahead,
    slot: &mut Slot<'_>,
) {
    let (d, width) = (slot.head_dim, NV * S::LANES);
    for r in rows.clone().step_by(MR) {
        ahead.fetch();
        let queries = side_by_side(slot.qt, d, r);
        let tile = weigh::<S, _, MR, NV>(
            s,
            Single,
            [[s.zero(); NV]; MR],
            d,
            (queries, PANEL),
            (&slot.kt[at * d..(at + width) * d], width),
        );
        let p = &mut slot.p[r * width..(r + MR) * width];
        let hidden = hide.bounded || hide.others.is_some();
        for i in 0..MR {
            let lse = s.splat(slot.lse[r + i]);
            for v in 0..NV {
                let x = s.sub(tile[i][v], lse);
                s.store(if hidden { x } else { math::exp2(s, x) }, &mut p[i * width + v * S::LANES..]);
            }
        }
        if hidden {
            conceal::<S, NV>(s, at, r..rows.end.min(r + MR), hide, slot);
        }
    }
}

/// P = 2^x of what is not hidden.
#[inline(always)]
fn conceal<S: Simd, const NV: usize>(s: S, at: usize, rows: Range<usize>, hide: Hide<'_>, slot: &mut Slot<'_>) {
    let (hidden, width) = (s.splat(f32::NEG_INFINITY), NV * S::LANES);
    for row in rows {
        for v in 0..NV {
            let (key, p) = (at + v * S::LANES, row * width + v * S::LANES);
            let mut x = s.load(&slot.p[p..]);
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
            s.store(math::exp2(s, x), &mut slot.p[p..]);
        }
    }
}

/// dS = P ∘ (dO · Vᵀ - delta).
#[inline(always)]
fn slopes<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    at: usize,
    rows: Range<usize>,
    ahead: &mut Ahead,
    slot: &mut Slot<'_>,
) {
    let (d, width) = (slot.head_dim, NV * S::LANES);
    let vt = &slot.vt[at * d..(at + width) * d];
    for r in rows.step_by(MR) {
        ahead.fetch();
        let gradients = side_by_side(slot.doutt, d, r);
        let tile = weigh::<S, _, MR, NV>(s, Single, [[s.zero(); NV]; MR], d, (gradients, PANEL), (vt, width));
        let (p, ds) = (&slot.p[r * width..(r + MR) * width], &mut slot.ds[r * width..(r + MR) * width]);
        for i in 0..MR {
            let delta = s.splat(slot.delta[r + i]);
            for v in 0..NV {
                let place = i * width + v * S::LANES;
                s.store(s.mul(s.load(&p[place..]), s.sub(tile[i][v], delta)), &mut ds[place..]);
            }
        }
    }
}

/// `to += matrixᵀ · weights` over some rows, with `matrix` [panel of columns][row][`PANEL`], `weights` [row][NV vectors] and
/// `to` [column][NV vectors].
#[inline(always)]
fn accumulate<S: Simd, const NV: usize>(s: S, matrix: &[f32], rows: Range<usize>, weights: &[f32], to: &mut [f32]) {
    let (width, mut at) = (NV * S::LANES, 0);
    let depth = to.len() / width;
    let columns = |at: usize| &matrix[(at / PANEL * ROOM + rows.start) * PANEL..][..rows.len() * PANEL][at % PANEL..];
    while S::LANES == 16 && at + 8 <= depth {
        accumulate_tile::<S, 8, NV>(s, columns(at), weights, &mut to[at * width..]);
        at += 8;
    }
    while at + 4 <= depth {
        accumulate_tile::<S, 4, NV>(s, columns(at), weights, &mut to[at * width..]);
        at += 4;
    }
    while at < depth {
        accumulate_tile::<S, 1, NV>(s, columns(at), weights, &mut to[at * width..]);
        at += 1;
    }
}

#[inline(always)]
fn accumulate_tile<S: Simd, const MR: usize, const NV: usize>(s: S, columns: &[f32], weights: &[f32], to: &mut [f32]) {
    let width = NV * S::LANES;
    let to = &mut to[..MR * width];
    let mut acc = [[s.zero(); NV]; MR];
    for i in 0..MR {
        for v in 0..NV {
            acc[i][v] = s.load(&to[i * width + v * S::LANES..]);
        }
    }
    let acc = weigh::<S, _, MR, NV>(s, Single, acc, weights.len() / width, (columns, PANEL), (weights, width));
    for i in 0..MR {
        for v in 0..NV {
            s.store(acc[i][v], &mut to[i * width + v * S::LANES..]);
        }
    }
}

/// `dq += dS · K` over a strip of NV vectors of keys, for a group of NC vectors of columns from `first` on.
#[inline(always)]
fn to_queries<S: Simd, const NV: usize, const NC: usize>(
    s: S,
    first: usize,
    rows: Range<usize>,
    at: usize,
    slot: &mut Slot<'_>,
) {
    match (S::LANES, NC) {
        (16, 4) => to_queries_by::<S, 6, NV, NC>(s, first, rows, at, slot),
        (16, _) => to_queries_by::<S, 8, NV, NC>(s, first, rows, at, slot),
        _ => to_queries_by::<S, 4, NV, NC>(s, first, rows, at, slot),
    }
}

#[inline(always)]
fn to_queries_by<S: Simd, const MR: usize, const NV: usize, const NC: usize>(
    s: S,
    first: usize,
    rows: Range<usize>,
    at: usize,
    slot: &mut Slot<'_>,
) {
    let (keys, width, wide) = (NV * S::LANES, NC * S::LANES, padded(slot.head_dim));
    let k = &slot.k[first * (slot.k.len() / wide) + at * width..][..keys * width];
    let end = rows.end;
    for r in rows.step_by(MR) {
        let ds = &slot.ds[r * keys..(r + MR) * keys];
        let dq = &mut slot.dq[r * wide..(r + MR) * wide];
        let mut acc = [[s.zero(); NC]; MR];
        for i in 0..MR {
            for v in 0..NC {
                acc[i][v] = s.load(&dq[i * wide + first + v * S::LANES..]);
            }
        }
        let mut slopes: [&[f32]; MR] = [&[]; MR];
        for i in 0..MR {
            slopes[i] = &ds[i * keys..];
        }
        let acc = dots::<S, _, MR, NC>(s, Single, acc, slopes, k);
        for i in 0..MR {
            // What lies beyond the last row is not its business.
            if r + i < end {
                for v in 0..NC {
                    s.store(acc[i][v], &mut dq[i * wide + first + v * S::LANES..]);
                }
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
