//! Products of the gradients by AMX: `attention_bwd_bf16__amx`.
//!
//! A tile is 32 queries by 32 keys, a strip. Scores Q · Kᵀ and dO · Vᵀ of a tile become words of two queries of P and dS, right sides of
//! dVᵀ += dOᵀ · P and dKᵀ += Qᵀ · dS over the queries of a block, and rows of dS, left sides of dQ = dS · K over the keys of a span. So a
//! [`Product`] has lanes of keys or columns on its right side and in its sums, as register tiles have, and nothing is turned but
//! operands. Left sides are packed in groups of 32 rows and 16 words: queries and dO as they lie, and turned; dS of a tile of queries
//! strip after strip. What lies beyond the last column, query or key counts as 0. Exponentials are the short ones, as what they are
//! for is rounded to bf16.
//!
//! Memory, head_dim 64 / 128: of L1 Kᵀ and Vᵀ of a strip 8 / 16 KiB, scores and products of a tile 8 KiB, P and dS of a strip 16 KiB; of
//! L2 a span of 768 / 672 keys 672 KiB / 1.15 MiB, rows of dS 192 / 168 KiB, queries and dO of a block, both ways, 64 / 128 KiB, dQ
//! 32 / 64 KiB.
//!
//! Bound: AMX and vectors, one after the other (see the forward kernel's `matrix.rs`). With head_dim 128 the products of a tile take 1280
//! cycles by themselves; loads of their operands from L2, and of sums, which have four groups for each load and store, as much again;
//! exponentials, slopes and rounding 500. 4096 causal queries of 8 heads take 116 ms (Xeon, family 6, model 167, 3.7 GHz, one
//! thread): 6500 cycles a tile, 19 % of the peak, 4.5 times as fast as in f32. Products take 43 % of that; packing and adding
//! rows that lie a power of 2 apart, and thus share sets of the caches, 25 %.
//!
//! Tried, 577 x 577 x 64, 2048 and 4096 causal of 128, ms: blocks of 256 queries 6.6, 152, 115, of 64 7.0, 143, 121, instead of 128 6.4,
//! 136, 116; spans of 800 KiB 6.5, 149, 123. More queries at once are more rows in L2 that share its sets.

// Loops over registers name them by number: iterators over the arrays keep some of them in memory.
#![allow(clippy::needless_range_loop)]

use super::queries::{Mask, Queries};
use super::slot::{Ahead, Shape, Sight, Slot};
use super::{Products, run, workspace_of};
use crate::backend::cpu::simd::amx::{self, Amx, BLOCK, Product, SIDE, Unit};
use crate::backend::cpu::simd::{Avx512, Bf16Dot, Lane, Simd, math};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Launch};
use crate::error::{Result, Unsupported};
use crate::ops::attend::cpu::{Rows, Words};
use crate::ops::attention_bwd::AttentionBwd;
use crate::simd_fn;
use half::bf16;
use std::ops::Range;

/// Queries of a block, and their tiles.
const QUERIES: usize = 128;
const TILES: usize = QUERIES / BLOCK;
/// Bytes that a span's keys, values and their gradients take, at most.
const SPAN_BYTES: usize = 1200 << 10;
/// Words of a group of a product's left side, and of its right side.
const GROUP: usize = Product::GROUP / 2;
const SQUARE: usize = BLOCK * BLOCK;
/// Vectors of a row of a tile.
const NV: usize = BLOCK / Avx512::LANES;
/// Words of weights of a strip, or of gradients of its scores.
const WORDS: usize = QUERIES / 2 * BLOCK;

pub fn supports(op: &AttentionBwd, caps: &Caps) -> Result<(), Unsupported> {
    Unsupported::require("a processor with AMX for bf16, and a system that allows it", caps.amx)?;
    super::supports_bf16(op, caps)
}

/// Fewer rows leave most of a tile empty: 8 x 8 x 32 takes 1.8 times as long as in f32.
pub fn suits(op: &AttentionBwd, _: &Caps) -> bool {
    op.attend().rows_per_head() >= BLOCK / 2
}

pub fn workspace(op: &AttentionBwd, caps: &Caps) -> usize {
    workspace_of::<Avx512, Matrices<Amx>>(op, caps)
}

pub fn launch(_: &Kernel<Cpu, AttentionBwd>, op: &AttentionBwd, l: &mut Launch<'_, Cpu>) -> Result<()> {
    run_on(Amx::detect().expect("supports() has checked it"), op, l)
}

fn run_on<U: Unit>(unit: U, op: &AttentionBwd, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let (s, words) = Avx512::detect().zip(Bf16Dot::detect()).expect("supports() has checked it");
    run::<_, _, bf16>(s, Matrices { words, unit }, op, l)
}

#[derive(Clone, Copy)]
struct Matrices<U> {
    words: Bf16Dot,
    unit: U,
}

/// What a thread holds: the unit's registers, and the strips that each tile of queries has met.
struct Turn<U: Unit> {
    unit: U::Turn,
    met: [Range<usize>; TILES],
}

impl<U: Unit> Products<Avx512> for Matrices<U> {
    type Words = Bf16Dot;
    type Turn = Turn<U>;
    const UNIT: usize = NV;
    const ADDS: bool = false;

    fn words(self) -> Bf16Dot {
        self.words
    }
    fn begin(self) -> Turn<U> {
        Turn { unit: self.unit.begin(), met: [const { 0..0 }; TILES] }
    }
    fn units() -> usize {
        1
    }
    fn columns() -> usize {
        NV
    }
    fn shape(head_dim: usize) -> Shape {
        let mut shape = Shape {
            head_dim,
            values: 2,
            whole: [SIDE, BLOCK],
            tile: [BLOCK; 2],
            queries: QUERIES,
            room: QUERIES,
            packed: [0; 2],
            strips: BLOCK,
            bytes: SPAN_BYTES,
            scores: [WORDS + SQUARE; 2],
            sums: [BLOCK; 2],
        };
        shape.packed = [QUERIES * shape.depth(), QUERIES / 2 * shape.wide()];
        shape.scores[1] += QUERIES * shape.keys() / 2;
        shape
    }

    fn pack<T: Lane>(
        self,
        s: Avx512,
        queries: &Queries<'_>,
        rows: &Rows<'_, T>,
        sight: &Sight<'_>,
        [plain, turned]: &mut [&mut [f32]; 2],
    ) {
        pack(s, self.words, queries, rows, sight, plain);
        turn(s, queries.count, queries.masks.op.head_dim, plain, turned);
    }

    fn step(
        self,
        s: Avx512,
        turn: &mut Turn<U>,
        strip: Range<usize>,
        rows: Range<usize>,
        mask: Mask<'_>,
        ahead: &mut Ahead,
        slot: &mut Slot<'_>,
    ) {
        step::<_, _, U>(s, self.words, turn, strip, rows, mask, ahead, slot);
    }

    /// dQ = dS · K
    fn end(self, turn: &mut Turn<U>, queries: usize, slot: &mut Slot<'_>) {
        let (shape, (_, rows)) = (slot.shape, slot.ds.split_at(WORDS + SQUARE));
        let (keys, strips) = (shape.keys(), shape.keys() / BLOCK);
        for (column, k) in slot.k.chunks_exact(keys / 2 * BLOCK).enumerate() {
            for (tile, met) in turn.met.iter().enumerate().take(queries.div_ceil(BLOCK)) {
                let sums = &mut slot.dq[tile * BLOCK * shape.wide() + column * SQUARE..][..SQUARE];
                if met.is_empty() {
                    sums.fill(0.0);
                    continue;
                }
                let (lhs, rhs) = (&rows[(tile * strips + met.start) * GROUP..], &k[met.start * GROUP..]);
                U::multiply(&mut turn.unit, Product::of_words(met.len(), lhs, rhs, sums, false));
            }
        }
        turn.met = [const { 0..0 }; TILES];
    }
}

simd_fn! {
    /// Packs rows of queries as they lie: [tile][16 words of a row][query][word].
    fn pack[S, W: Words<S>, T: Lane](s, words: W, queries: &Queries<'_>, rows: &Rows<'_, T>, sight: &Sight<'_>, to: &mut [f32]) {
        let groups = queries.masks.op.head_dim.div_ceil(BLOCK);
        for r in 0..queries.count.next_multiple_of(BLOCK) {
            let ((head, i), to) = (queries.row(r), &mut to[r / BLOCK * groups * GROUP + r % BLOCK * SIDE..]);
            let row = if r < queries.count && sight.sees(r) { rows.row(queries.b, i, head) } else { &[] };
            for (group, to) in to.chunks_mut(GROUP).take(groups).enumerate() {
                let (row, to) = (row.get(group * BLOCK..).unwrap_or_default(), &mut to[..SIDE]);
                let row = &row[..row.len().min(BLOCK)];
                if row.len() < BLOCK {
                    to.fill(0.0);
                }
                words.of_row(s, row, to);
            }
        }
    }
}

/// Turns packed rows: [32 columns][16 words of queries][column][word], of as many queries as there is room for.
fn turn(s: Avx512, queries: usize, head_dim: usize, from: &[f32], to: &mut [f32]) {
    let groups = head_dim.div_ceil(BLOCK);
    for (i, group) in from.chunks_exact(GROUP).take(queries.div_ceil(BLOCK) * groups).enumerate() {
        let (tile, column) = (i / groups, i % groups);
        let rows: &[[bf16; BLOCK]; BLOCK] = bytemuck::cast_slice(group).try_into().expect("a group");
        let to: &mut [[u32; SIDE]] = bytemuck::cast_slice_mut(&mut to[(column * TILES + tile) * GROUP..][..GROUP]);
        amx::turn(s, &rows.each_ref(), to.try_into().expect("a group"));
    }
}

simd_fn! {
    fn step[S, W: Words<S>, U: Unit](
        s, words: W, turn: &mut Turn<U>, strip: Range<usize>, rows: Range<usize>, mask: Mask<'_>, ahead: &mut Ahead, slot: &mut Slot<'_>,
    ) {
        let (depth, columns, strips) = (slot.shape.depth(), slot.shape.columns(), slot.shape.keys() / BLOCK);
        let of_strip = strip.start * depth..strip.end * depth;
        let (kt, vt) = (&slot.kt[of_strip.clone()], &slot.vt[of_strip]);
        let (p, scores) = slot.p.split_at_mut(WORDS);
        let (ds, rest) = slot.ds.split_at_mut(WORDS);
        let (products, rows_of_ds) = rest.split_at_mut(SQUARE);
        let (at, zeros) = (strip.start / BLOCK, [0.0; BLOCK]);
        for row in rows.clone().step_by(BLOCK) {
            ahead.fetch();
            let (tile, groups, lhs) = (row / BLOCK, depth / SIDE, row * depth..(row + BLOCK) * depth);
            U::multiply(&mut turn.unit, Product::of_words(groups, &slot.q[0][lhs.clone()], kt, scores, false));
            ahead.fetch();
            U::multiply(&mut turn.unit, Product::of_words(groups, &slot.dout[0][lhs], vt, products, false));
            let (mut scale, mut minus_lse) = (mask.scale, &slot.minus_lse[row..row + BLOCK]);
            if mask.hides() {
                hide(s, scale, minus_lse, (row, strip.start), mask, &slot.sight, scores);
                (scale, minus_lse) = (1.0, &zeros);
            }
            // Strips between two that a tile meets count as well.
            if turn.met[tile].is_empty() {
                turn.met[tile] = at..at;
            }
            let met = &mut turn.met[tile];
            let of_tile = tile * strips * GROUP;
            rows_of_ds[of_tile + met.end * GROUP..of_tile + at * GROUP].fill(0.0);
            met.end = at + 1;
            let of_words = row / 2 * BLOCK..(row + BLOCK) / 2 * BLOCK;
            let to = (&mut p[of_words.clone()], &mut ds[of_words], &mut rows_of_ds[of_tile + at * GROUP..][..GROUP]);
            slopes(s, words, scale, minus_lse, &slot.delta[row..row + BLOCK], scores, products, to);
        }
        let (tiles, words) = (rows.start / BLOCK..rows.end / BLOCK, rows.start / 2 * BLOCK..rows.end / 2 * BLOCK);
        let of_strip = strip.start * columns..strip.end * columns;
        for (lhs, rhs, sums) in [(&*slot.dout[1], &p[words.clone()], &mut *slot.dvt), (&*slot.q[1], &ds[words], &mut *slot.dkt)] {
            let sums = sums[of_strip.clone()].chunks_exact_mut(SQUARE);
            for (lhs, sums) in lhs.chunks_exact(TILES * GROUP).zip(sums) {
                U::multiply(&mut turn.unit, Product::of_words(tiles.len(), &lhs[tiles.start * GROUP..], rhs, sums, true));
            }
        }
    }
}

simd_fn! {
    /// Scales and masks the scores of a tile, whose first query and key have the numbers `at`.
    fn hide[S](s, scale: f32, minus_lse: &[f32], at: (usize, usize), mask: Mask<'_>, sight: &Sight<'_>, scores: &mut [f32]) {
        for (i, (row, &minus_lse)) in scores.chunks_exact_mut(BLOCK).zip(minus_lse).enumerate() {
            for (v, x) in row.chunks_exact_mut(S::LANES).enumerate() {
                let score = s.fma(s.load(x), s.splat(scale), s.splat(minus_lse));
                s.store(mask.apply(s, score, at.0 + i, at.1 + v * S::LANES, sight), x);
            }
        }
    }
}

simd_fn! {
    /// P = 2^(scale · scores - lse) and dS = P ∘ (products - delta) of a tile: words of two queries of both, and rows of dS.
    fn slopes[S, W: Words<S>](
        s, words: W, scale: f32, minus_lse: &[f32], delta: &[f32], scores: &[f32], products: &[f32],
        to: (&mut [f32], &mut [f32], &mut [f32]),
    ) {
        let ((p, ds, rows), scale) = (to, s.splat(scale));
        let (scores, products) = (&scores[..SQUARE], &products[..SQUARE]);
        let (p, ds, rows) = (&mut p[..SQUARE / 2], &mut ds[..SQUARE / 2], &mut rows[..SQUARE / 2]);
        let (minus_lse, delta) = (&minus_lse[..BLOCK], &delta[..BLOCK]);
        for i in (0..BLOCK).step_by(2) {
            let mut slopes = [[s.zero(); NV]; 2];
            for v in 0..NV {
                let (mut weights, mut pair, lane) = ([s.zero(); 2], [s.zero(); 2], v * S::LANES);
                for n in 0..2 {
                    let (row, at) = (i + n, (i + n) * BLOCK + lane);
                    weights[n] = math::exp2_of_bf16(s, s.fma(s.load(&scores[at..]), scale, s.splat(minus_lse[row])));
                    pair[n] = s.mul(weights[n], s.sub(s.load(&products[at..]), s.splat(delta[row])));
                    slopes[n][v] = pair[n];
                }
                s.store(words.of_vectors(s, weights), &mut p[i / 2 * BLOCK + lane..]);
                s.store(words.of_vectors(s, pair), &mut ds[i / 2 * BLOCK + lane..]);
            }
            for n in 0..2 {
                s.store_two_bf16(slopes[n], bytemuck::cast_slice_mut(&mut rows[(i + n) * SIDE..(i + n + 1) * SIDE]));
            }
        }
    }
}

#[cfg(test)]
pub use tests::row;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::backend::Backend;
    use crate::backend::cpu::simd::amx::Model;
    use crate::bench::check_kernel;

    const NAME: &str = "attention_bwd_bf16__model";

    /// For the table of kernels while the library is tested; by name only.
    pub const fn row() -> Kernel<Cpu, AttentionBwd> {
        Kernel::new(NAME, super::super::supports_bf16, |_, op, l| run_on(Model, op, l))
            .takes(super::super::TAKES)
            .suits(|_, _| false)
            .workspace(workspace)
    }

    #[test]
    fn cases_agree_with_the_reference() {
        let device = Device::cpu().unwrap();
        let op = "attention_bwd(dtype=bf16)".parse().unwrap();
        let runs = super::super::supports_bf16(&op, Cpu::caps(device.as_cpu().unwrap()));
        // More queries than a block has, heads of a group that see different keys in turn.
        let more = [
            "attention_bwd(len_q=300,len_k=330,head_dim=64,dtype=bf16,causal=true)",
            "attention_bwd(len_q=40,len_k=500,heads_q=6,heads_kv=1,head_dim=32,dtype=bf16,causal=true,window=50)",
        ];
        assert_eq!(check_kernel("attention_bwd", NAME, &more) > 0, runs.is_ok());
    }
}
