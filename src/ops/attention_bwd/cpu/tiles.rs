//! Products in register tiles of vectors: one block of queries against one strip of keys. See `mod.rs` for the algorithm.
//!
//! Layout: queries and gradients of their results [query][word of a row], a [`pitch`] apart, and where words have several values [panel of columns][word
//! of queries][`PANEL`] as well; weights, and gradients of scores, [query][lane] of one strip. Words of several queries take the place of
//! the first; that of the second, of gradients of scores, then has the words of keys of both ([`row_of_slopes`]).
// Loops over registers name them by number: iterators over the arrays keep some of them in memory.
#![allow(clippy::needless_range_loop)]

use super::queries::{Mask, Queries};
use super::slot::{Ahead, Shape, Sight, Slot};
use super::{Products, columns};
use crate::backend::cpu::simd::{Isa, Lane, Simd, math, pitch};
use crate::ops::attend::cpu::tile::{dots, weigh};
use crate::ops::attend::cpu::{PANEL, Rows, Words, max_nv, spread};
use crate::simd_fn;
use std::ops::Range;

/// Bytes that a span's keys, values and their gradients take, at most.
const SPAN_BYTES: usize = 800 << 10;
/// A multiple of every strip.
const STRIPS: usize = 48;
/// Queries of a block.
const QUERIES: usize = 72;
/// Rows of queries that there is room for: tiles of up to eight that begin anywhere reach beyond the last.
const ROOM: usize = (QUERIES + 7).next_multiple_of(PANEL);

#[derive(Clone, Copy)]
pub struct Tiles<W>(pub W);

impl<S: Simd, W: Words<S>> Products<S> for Tiles<W> {
    type Words = W;
    type Turn = ();
    const UNIT: usize = 1;
    const ADDS: bool = true;

    fn words(self) -> W {
        self.0
    }
    fn begin(self) {}
    fn units() -> usize {
        max_nv::<S>()
    }
    fn columns() -> usize {
        if S::ISA == Isa::Avx512 { 4 } else { max_nv::<S>() }
    }
    fn shape(head_dim: usize) -> Shape {
        let depth = head_dim.div_ceil(W::VALUES);
        let of_queries = if W::VALUES == 1 { 0 } else { ROOM / W::VALUES * head_dim.next_multiple_of(PANEL) };
        Shape {
            head_dim,
            values: W::VALUES,
            whole: [1, 1],
            // Tiles begin at a multiple of 8 rows; words of rows are whole.
            tile: [8, W::VALUES],
            queries: QUERIES,
            room: ROOM,
            packed: [ROOM * pitch(depth), of_queries],
            strips: STRIPS,
            bytes: SPAN_BYTES,
            scores: [ROOM * STRIPS; 2],
            sums: [1, head_dim.next_multiple_of(PANEL)],
        }
    }

    fn pack<T: Lane>(
        self,
        s: S,
        queries: &Queries<'_>,
        rows: &Rows<'_, T>,
        sight: &Sight<'_>,
        to: &mut [&mut [f32]; 2],
    ) {
        pack(s, self.0, queries, rows, sight, to);
    }

    fn step(
        self,
        s: S,
        (): &mut (),
        strip: Range<usize>,
        rows: Range<usize>,
        mask: Mask<'_>,
        ahead: &mut Ahead,
        slot: &mut Slot<'_>,
    ) {
        match strip.len() / S::LANES {
            1 => step::<S, W, 1>(s, self.0, strip.start, rows, mask, ahead, slot),
            2 => step::<S, W, 2>(s, self.0, strip.start, rows, mask, ahead, slot),
            _ => step::<S, W, 3>(s, self.0, strip.start, rows, mask, ahead, slot),
        }
    }
    fn end(self, (): &mut (), _: usize, _: &mut Slot<'_>) {}
}

simd_fn! {
    /// Packs rows of queries. What sees nothing counts as zeros, and so does what fills the last tile up.
    fn pack[S, W: Words<S>, T: Lane](
        s, words: W, queries: &Queries<'_>, rows: &Rows<'_, T>, sight: &Sight<'_>, to: &mut [&mut [f32]; 2],
    ) {
        let ([of_columns, of_queries], count) = (to, queries.count);
        let depth = queries.masks.op.head_dim.div_ceil(W::VALUES);
        let row = |r: usize| {
            let (head, i) = queries.row(r);
            (r < count && sight.sees(r)).then(|| rows.row(queries.b, i, head))
        };
        for (r, to) in (0..count.next_multiple_of(8)).zip(of_columns.chunks_exact_mut(pitch(depth))) {
            match row(r) {
                Some(row) => words.of_row(s, row, &mut to[..depth]),
                None => to[..depth].fill(0.0),
            }
        }
        if W::VALUES > 1 {
            for r in (0..count).step_by(W::VALUES) {
                spread(s, words, |n| row(r + n), r / W::VALUES, of_queries, ROOM / W::VALUES * PANEL);
            }
        }
    }
}

simd_fn! {
    /// Weights and gradients of scores for some queries, the first a multiple of 8 and their number one of a word's values, and a
    /// strip of keys whose first is number `at` of the span; what they add to the gradients of its values and keys and, in
    /// `slot.dq`, of the queries.
    fn step[S, W: Words<S>; const NV: usize](s, words: W, at: usize, rows: Range<usize>, mask: Mask<'_>, ahead: &mut Ahead, slot: &mut Slot<'_>) {
        if S::LANES == 16 {
            weights::<S, W, 8, NV>(s, words, at, rows.clone(), mask, ahead, slot);
            slopes::<S, W, 8, NV>(s, words, at, rows.clone(), ahead, slot);
        } else {
            weights::<S, W, 4, NV>(s, words, at, rows.clone(), mask, ahead, slot);
            slopes::<S, W, 4, NV>(s, words, at, rows.clone(), ahead, slot);
        }
        let (d, width) = (slot.shape.head_dim, NV * S::LANES);
        let of_strip = at * d..(at + width) * d;
        let of_scores = rows.start * width..rows.end * width;
        accumulate::<S, W, NV>(s, words, &slot.dout, rows.clone(), &slot.p[of_scores.clone()], &mut slot.dvt[of_strip.clone()]);
        accumulate::<S, W, NV>(s, words, &slot.q, rows.clone(), &slot.ds[of_scores], &mut slot.dkt[of_strip]);
        for (first, vectors) in columns::<S, Tiles<W>>(d) {
            match vectors {
                1 => to_queries::<S, W, NV, 1>(s, words, first, rows.clone(), at, slot),
                2 => to_queries::<S, W, NV, 2>(s, words, first, rows.clone(), at, slot),
                3 => to_queries::<S, W, NV, 3>(s, words, first, rows.clone(), at, slot),
                _ => to_queries::<S, W, NV, 4>(s, words, first, rows.clone(), at, slot),
            }
        }
    }
}

/// Packed rows from number `r` on, of so many words.
#[inline(always)]
fn rows_from<const MR: usize>(packed: &[f32], depth: usize, r: usize) -> [&[f32]; MR] {
    let mut rows: [&[f32]; MR] = [&[]; MR];
    for i in 0..MR {
        rows[i] = &packed[(r + i) * pitch(depth)..][..depth];
    }
    rows
}

/// P = 2^(scale · Q · Kᵀ - lse), masked. Rows of a tile beyond the last are computed, too, and nobody reads them.
#[inline(always)]
fn weights<S: Simd, W: Words<S>, const MR: usize, const NV: usize>(
    s: S,
    words: W,
    at: usize,
    rows: Range<usize>,
    mask: Mask<'_>,
    ahead: &mut Ahead,
    slot: &mut Slot<'_>,
) {
    let (depth, width) = (slot.shape.depth(), NV * S::LANES);
    for r in rows.clone().step_by(MR) {
        ahead.fetch();
        let kt = &slot.kt[at * depth..(at + width) * depth];
        let tile = dots::<S, W, MR, NV>(s, words, [[s.zero(); NV]; MR], rows_from(slot.q[0], depth, r), kt);
        let p = &mut slot.p[r * width..(r + MR) * width];
        let hidden = mask.hides();
        for i in 0..MR {
            let minus_lse = s.splat(slot.minus_lse[r + i]);
            for v in 0..NV {
                let x = s.fma(tile[i][v], s.splat(mask.scale), minus_lse);
                s.store(if hidden { x } else { math::exp2(s, x) }, &mut p[i * width + v * S::LANES..]);
            }
        }
        if hidden {
            conceal::<S, NV>(s, at, r..rows.end.min(r + MR), mask, slot);
        }
    }
}

/// P = 2^x of what is not hidden.
#[inline(always)]
fn conceal<S: Simd, const NV: usize>(s: S, at: usize, rows: Range<usize>, mask: Mask<'_>, slot: &mut Slot<'_>) {
    for row in rows {
        for v in 0..NV {
            let p = row * NV * S::LANES + v * S::LANES;
            let x = mask.apply(s, s.load(&slot.p[p..]), row, at + v * S::LANES, &slot.sight);
            s.store(math::exp2(s, x), &mut slot.p[p..]);
        }
    }
}

/// dS = P ∘ (dO · Vᵀ - delta), and both as words.
#[inline(always)]
fn slopes<S: Simd, W: Words<S>, const MR: usize, const NV: usize>(
    s: S,
    words: W,
    at: usize,
    rows: Range<usize>,
    ahead: &mut Ahead,
    slot: &mut Slot<'_>,
) {
    let (depth, width) = (slot.shape.depth(), NV * S::LANES);
    let vt = &slot.vt[at * depth..(at + width) * depth];
    for r in rows.step_by(MR) {
        ahead.fetch();
        let tile = dots::<S, W, MR, NV>(s, words, [[s.zero(); NV]; MR], rows_from(slot.dout[0], depth, r), vt);
        let (p, ds) = (&mut slot.p[r * width..(r + MR) * width], &mut slot.ds[r * width..(r + MR) * width]);
        let delta = &slot.delta[r..r + MR];
        for i in (0..MR).step_by(W::VALUES) {
            for v in 0..NV {
                let place = i * width + v * S::LANES;
                let (mut weights, mut slopes) = ([s.zero(); 2], [s.zero(); 2]);
                for n in 0..W::VALUES {
                    weights[n] = s.load(&p[place + n * width..]);
                    slopes[n] = s.mul(weights[n], s.sub(tile[i + n][v], s.splat(delta[i + n])));
                }
                s.store(words.of_vectors(s, slopes), &mut ds[place..]);
                if W::VALUES > 1 {
                    s.store(words.of_vectors(s, weights), &mut p[place..]);
                    for n in 0..W::VALUES {
                        let row = row_of_slopes::<S, W>(i + n, width) + v * S::LANES / W::VALUES;
                        words.store_row(s, slopes[n], &mut ds[row..]);
                    }
                }
            }
        }
    }
}

/// Where the words of keys of a query's gradients of scores begin.
#[inline(always)]
fn row_of_slopes<S: Simd, W: Words<S>>(query: usize, width: usize) -> usize {
    match W::VALUES {
        1 => query * width,
        n => (query / n * n + 1) * width + query % n * width / n,
    }
}

/// `to += matrixᵀ · weights` over some rows, with `matrix` packed, `weights` [row][NV vectors] with words in the place of their
/// first, and `to` [column][NV vectors].
#[inline(always)]
fn accumulate<S: Simd, W: Words<S>, const NV: usize>(
    s: S,
    words: W,
    [of_columns, of_rows]: &[&mut [f32]; 2],
    rows: Range<usize>,
    weights: &[f32],
    to: &mut [f32],
) {
    let (width, mut at) = (NV * S::LANES, 0);
    let depth = to.len() / width;
    let (first, steps) = (rows.start / W::VALUES, rows.len() / W::VALUES);
    let columns = |at: usize| match W::VALUES {
        1 => (&of_columns[first * pitch(depth) + at..], pitch(depth)),
        _ => (&of_rows[(at / PANEL * (ROOM / W::VALUES) + first) * PANEL..][..steps * PANEL][at % PANEL..], PANEL),
    };
    while S::LANES == 16 && at + 8 <= depth {
        accumulate_tile::<S, W, 8, NV>(s, words, steps, columns(at), weights, &mut to[at * width..]);
        at += 8;
    }
    while at + 4 <= depth {
        accumulate_tile::<S, W, 4, NV>(s, words, steps, columns(at), weights, &mut to[at * width..]);
        at += 4;
    }
    while at < depth {
        accumulate_tile::<S, W, 1, NV>(s, words, steps, columns(at), weights, &mut to[at * width..]);
        at += 1;
    }
}

#[inline(always)]
fn accumulate_tile<S: Simd, W: Words<S>, const MR: usize, const NV: usize>(
    s: S,
    words: W,
    steps: usize,
    columns: (&[f32], usize),
    weights: &[f32],
    to: &mut [f32],
) {
    let width = NV * S::LANES;
    let to = &mut to[..MR * width];
    let mut acc = [[s.zero(); NV]; MR];
    for i in 0..MR {
        for v in 0..NV {
            acc[i][v] = s.load(&to[i * width + v * S::LANES..]);
        }
    }
    let acc = weigh::<S, W, MR, NV>(s, words, acc, steps, columns, (weights, W::VALUES * width));
    for i in 0..MR {
        for v in 0..NV {
            s.store(acc[i][v], &mut to[i * width + v * S::LANES..]);
        }
    }
}

/// `dq += dS · K` over a strip of NV vectors of keys, for a group of NC vectors of columns from `first` on.
#[inline(always)]
fn to_queries<S: Simd, W: Words<S>, const NV: usize, const NC: usize>(
    s: S,
    words: W,
    first: usize,
    rows: Range<usize>,
    at: usize,
    slot: &mut Slot<'_>,
) {
    match (S::LANES, NC) {
        (16, 4) => to_queries_by::<S, W, 6, NV, NC>(s, words, first, rows, at, slot),
        (16, _) => to_queries_by::<S, W, 8, NV, NC>(s, words, first, rows, at, slot),
        _ => to_queries_by::<S, W, 4, NV, NC>(s, words, first, rows, at, slot),
    }
}

#[inline(always)]
fn to_queries_by<S: Simd, W: Words<S>, const MR: usize, const NV: usize, const NC: usize>(
    s: S,
    words: W,
    first: usize,
    rows: Range<usize>,
    at: usize,
    slot: &mut Slot<'_>,
) {
    let (keys, width, wide) = (NV * S::LANES, NC * S::LANES, slot.shape.wide());
    let k = &slot.k[first * (slot.k.len() / wide) + at / W::VALUES * width..][..keys / W::VALUES * width];
    let end = rows.end;
    for r in rows.step_by(MR) {
        let dq = &mut slot.dq[r * wide..(r + MR) * wide];
        let mut acc = [[s.zero(); NC]; MR];
        for i in 0..MR {
            for v in 0..NC {
                acc[i][v] = s.load(&dq[i * wide + first + v * S::LANES..]);
            }
        }
        let mut slopes: [&[f32]; MR] = [&[]; MR];
        for i in 0..MR {
            slopes[i] = &slot.ds[row_of_slopes::<S, W>(r + i, keys)..];
        }
        let acc = dots::<S, W, MR, NC>(s, words, acc, slopes, k);
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
