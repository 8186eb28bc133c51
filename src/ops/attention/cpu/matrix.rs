//! Products of the flash kernel by AMX: `attention_flash_bf16__amx`.
//!
//! A tile is 32 keys by 32 queries, or 16 where no more are left: Sᵀ = K · Qᵀ, whose weights become words of two keys, and
//! Oᵀ = Oᵀ + Vᵀ · P for 32 columns of the result and all keys of a block. Both are a [`Product`], whose right side and sums are rows of
//! lanes, as everything in the kernel is. Left sides are packed: keys as [tile][16 words of a row][key][word], values as [32 columns][16
//! words of keys][column][word]. What lies beyond the last key, column or query counts as 0.
//!
//! Memory: of L1 Qᵀ 4 / 8 KiB (head_dim 64 / 128), scores of a tile 4 KiB, P 14 KiB; a tile of keys 4 / 8 KiB and values stream from L2,
//! where Qᵀ and Oᵀ of up to 1024 queries lie (384 / 768 KiB), for which a block of keys is packed once.
//!
//! Bound: AMX and vectors, one after the other. With head_dim 64 a tile takes 256 cycles of products, 200 more for loads and stores of their
//! tiles, and 340 to 370 for 64 vectors of scores: their maxima, exponentials and rounding (Xeon, family 6, model 167, 3.7 GHz; loops in
//! C, in L1). So 30 % of the peak is the most, 50 % with 128. A tile takes 1330 cycles here (577 queries and keys, one thread): what is
//! left are packing and turning (15 %), asking for rows ahead (8 %), whose lines come from L3, and lanes beyond the last key and query.
//! With whole tiles alone 197 queries and keys take 8 % longer, 577 4 %.
//!
//! Tried and lost, in loops of one head in C, 577 queries and keys:
//! - products beside exponentials: those of the next tile before the exponentials of this one 5 to 9 % longer, with their tiles stored after
//!   these 5 to 8 %, results of the queries before between them 9 to 19 %. A single instruction of AMX lets 512-bit multiply-adds
//!   run at half their rate for 250 cycles (256 of them take 125 cycles, with one `tilezero` between them 240; additions of integers
//!   take no longer), so what overlaps gains nothing;
//! - exponentials by way of the bits of an f32 and a polynomial instead of `vreduceps` and `vscalefps`: 10 % longer than these;
//! - asking for the next tile of keys in L1: 3 % longer. BK 128: 3 % longer with head_dim 64, 13 % with 128; 256: 6 % longer, 3 % less.
//!
//! And here:
//! - values turned eight words at a time through memory: 77 cycles a key instead of 20.

// Loops over registers name them by number: iterators over the arrays keep some of them in memory.
#![allow(clippy::needless_range_loop)]

use super::block::{self, Ahead, Mask, Rise, Shape, Slot};
use super::flash::{self, Head, Products};
use crate::backend::cpu::simd::amx::{self, Amx, BLOCK, Product, SIDE, Unit};
use crate::backend::cpu::simd::{Avx512, Bf16Dot, Lane, Simd, math};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Launch};
use crate::error::{Result, Unsupported};
use crate::ops::attend::cpu::Words;
use crate::ops::attention::Attention;
use crate::simd_fn;
use half::bf16;
use std::ops::Range;

/// Lanes that a part holds, at most.
const MAX_HELD: usize = 1024;
/// Queries and results that it holds.
const HELD_BYTES: usize = 768 << 10;
/// Words of a group of a product's left side.
const GROUP: usize = Product::GROUP / 2;

pub fn supports(op: &Attention, caps: &Caps) -> Result<(), Unsupported> {
    Unsupported::require("a processor with AMX for bf16, and a system that allows it", caps.amx)?;
    flash::supports_bf16(op, caps)
}

pub fn workspace(op: &Attention, caps: &Caps) -> usize {
    flash::workspace_of::<Avx512, Matrices<Amx>>(op, caps)
}

pub fn launch(_: &Kernel<Cpu, Attention>, op: &Attention, l: &mut Launch<'_, Cpu>) -> Result<()> {
    run(Amx::detect().expect("supports() has checked it"), op, l)
}

fn run<U: Unit>(unit: U, op: &Attention, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let (s, words) = Avx512::detect().zip(Bf16Dot::detect()).expect("supports() has checked it");
    flash::run::<_, _, bf16, bf16>(s, Matrices { words, unit, exact: op.lse }, op, l)
}

#[derive(Clone, Copy)]
struct Matrices<U> {
    words: Bf16Dot,
    unit: U,
    /// Whether sums of weights are a result, and not only what rounded ones are divided by.
    exact: bool,
}

impl<U: Unit> Products<Avx512> for Matrices<U> {
    type Words = Bf16Dot;
    type Turn = U::Turn;
    const TILE: usize = BLOCK;
    const BK: usize = 192;
    const MORE: usize = BLOCK;
    const UNIT: usize = 1;

    fn words(self) -> Bf16Dot {
        self.words
    }
    fn begin(self) -> U::Turn {
        self.unit.begin()
    }
    fn units() -> usize {
        BLOCK / Avx512::LANES
    }
    fn shape(op: &Attention) -> Shape {
        let lanes = (HELD_BYTES / (6 * op.head_dim)).clamp(BLOCK, MAX_HELD) / BLOCK * BLOCK;
        let keys = Self::BK + Self::MORE;
        Shape { head_dim: op.head_dim, values: 2, whole: [SIDE, BLOCK], keys, width: BLOCK, lanes }
    }

    fn pack_keys<T: Lane>(self, s: Avx512, of: &Head<'_, '_, T>, keys: Range<usize>, to: &mut [f32]) {
        pack_keys(s, of, keys, to);
    }
    fn pack_values<T: Lane>(self, s: Avx512, of: &Head<'_, '_, T>, keys: Range<usize>, to: &mut [f32]) {
        pack_values(s, of, keys, to);
    }

    fn step(
        self,
        s: Avx512,
        turn: &mut U::Turn,
        at: Range<usize>,
        first: bool,
        mask: Mask,
        ahead: &mut Ahead,
        slot: &mut Slot<'_>,
    ) {
        match slot.m.len() / Avx512::LANES {
            1 => step::<_, _, U, 1>(s, self.words, self.exact, turn, at, first, mask, ahead, slot),
            _ => step::<_, _, U, 2>(s, self.words, self.exact, turn, at, first, mask, ahead, slot),
        }
    }
}

/// A row's values from number `at` on; what is not there counts as 0. The last ones are copied to `padded`, which holds zeros, or the last
/// ones of a row of the same length.
#[inline(always)]
fn piece<'a>(row: &'a [bf16], at: usize, padded: &'a mut [bf16; BLOCK]) -> &'a [bf16; BLOCK] {
    let row = row.get(at..).unwrap_or_default();
    if row.is_empty() {
        return &[bf16::ZERO; BLOCK];
    }
    row.first_chunk().unwrap_or_else(|| {
        padded[..row.len()].copy_from_slice(row);
        padded
    })
}

simd_fn! {
    /// Packs some keys: [tile][32 values of a row][key][value].
    fn pack_keys[S, T: Lane](_s, of: &Head<'_, '_, T>, keys: Range<usize>, to: &mut [f32]) {
        let (groups, mut padded) = (of.head_dim().div_ceil(BLOCK), [bf16::ZERO; BLOCK]);
        for (n, key) in keys.enumerate() {
            let row = bytemuck::cast_slice(of.key(key));
            let to = &mut to[n / BLOCK * groups * GROUP + n % BLOCK * SIDE..];
            for (group, to) in to.chunks_mut(GROUP).take(groups).enumerate() {
                let to: &mut [bf16] = bytemuck::cast_slice_mut(&mut to[..SIDE]);
                to.copy_from_slice(piece(row, group * BLOCK, &mut padded));
            }
        }
    }
}

/// Packs the values of some keys: [32 columns][32 keys][column][key]. Keys and columns beyond the last ones count as 0.
fn pack_values<T: Lane>(s: Avx512, of: &Head<'_, '_, T>, keys: Range<usize>, to: &mut [f32]) {
    let columns = of.head_dim().div_ceil(BLOCK);
    let (panel, mut padded) = (to.len() / columns, [[bf16::ZERO; BLOCK]; BLOCK]);
    for (group, first) in keys.clone().step_by(BLOCK).enumerate() {
        let mut rows: [&[bf16]; BLOCK] = [&[]; BLOCK];
        for (key, row) in (first..keys.end).zip(&mut rows) {
            *row = bytemuck::cast_slice(of.value(key).unwrap_or_default());
        }
        for (column, to) in to.chunks_exact_mut(panel).enumerate() {
            let mut padded = padded.iter_mut();
            let rows = rows.map(|row| piece(row, column * BLOCK, padded.next().expect("as many")));
            let to: &mut [[u32; SIDE]] = bytemuck::cast_slice_mut(&mut to[group * GROUP..(group + 1) * GROUP]);
            amx::turn(s, &rows, to.try_into().expect("a group"));
        }
    }
}

/// Sums of products of the result so far.
struct Sums {
    /// The tile that a step begins with, and the rows of P that are in the result.
    tile: usize,
    done: usize,
    /// Whether the result holds anything.
    begun: bool,
}

impl Sums {
    /// Adds what the weights before row `j` of P say.
    #[inline(always)]
    fn add<U: Unit>(&mut self, turn: &mut U::Turn, j: usize, slot: &mut Slot<'_>) {
        if j == self.done {
            return;
        }
        let width = slot.m.len();
        let panel = slot.v.data.len() / (slot.o.len() / (BLOCK * width));
        let (at, rhs) = ((self.tile + self.done / BLOCK) * GROUP, &slot.p[self.done / 2 * width..j / 2 * width]);
        for (values, sums) in slot.v.data.chunks_exact(panel).zip(slot.o.chunks_exact_mut(BLOCK * width)) {
            let product = Product::of_words((j - self.done) / BLOCK, &values[at..], rhs, sums, self.begun);
            U::multiply(turn, Product { narrow: width < BLOCK, ..product });
        }
        (self.done, self.begun) = (j, true);
    }
}

simd_fn! {
    fn step[S, W: Words<S>, U: Unit; const NV: usize](
        s, words: W, exact: bool, turn: &mut U::Turn, at: Range<usize>, first: bool, mask: Mask, ahead: &mut Ahead, slot: &mut Slot<'_>,
    ) {
        let (n, width, weights) = (at.len(), NV * S::LANES, slot.p.len() / 2);
        let depth = slot.qt.len() / width;
        let mut sums = Sums { tile: at.start / BLOCK, done: 0, begun: !first };
        let shares = ahead.each_ref().map(|rows| rows.left.div_ceil(n.div_ceil(BLOCK)));
        for j in (0..n).step_by(BLOCK) {
            for (rows, share) in ahead.iter_mut().zip(shares) {
                rows.fetch(share);
            }
            let keys = j..n.min(j + BLOCK);
            let half = keys.len() <= SIDE;
            let rows = if half { SIDE } else { BLOCK };
            let lhs = &slot.k.data[(sums.tile + j / BLOCK) * BLOCK * depth..];
            let product = Product::of_words(depth / SIDE, lhs, slot.qt, &mut slot.p[weights..weights + rows * width], false);
            U::multiply(turn, Product { half, narrow: width < BLOCK, ..product });
            let (scores, lanes) = slot.scores(weights, rows * width);
            let mut scale = mask.scale;
            // The largest of scores times a factor comes from the largest score only where the factor is positive.
            let top = if mask.bounded || mask.added || keys.len() < BLOCK || scale < 0.0 {
                let top = block::hide::<S, NV>(s, keys, mask, scale, scores, lanes);
                scale = 1.0;
                top
            } else {
                largest::<S, NV>(s, scores, scale)
            };
            if block::is_above::<S, NV>(s, top, slot.m) {
                let rise = Rise::<S, NV>::new(s, top, slot);
                if rise.scales {
                    sums.add::<U>(turn, j, slot);
                }
                rise.apply(s, slot);
                if rise.scales && sums.begun {
                    scale_rows::<S, NV>(s, slot.alpha, slot.o);
                }
            }
            let (p, scores) = slot.p.split_at_mut(weights);
            let (scores, p) = (&scores[..rows * width], &mut p[j / 2 * width..(j + BLOCK) / 2 * width]);
            p[rows / 2 * width..].fill(0.0);
            if exact {
                weigh::<S, W, NV, true>(s, words, scores, scale, slot.m, slot.l, p);
            } else {
                weigh::<S, W, NV, false>(s, words, scores, scale, slot.m, slot.l, p);
            }
        }
        sums.add::<U>(turn, n.next_multiple_of(BLOCK), slot);
    }
}

simd_fn! {
    /// The largest of each lane, times a factor.
    fn largest[S; const NV: usize](s, scores: &[f32], scale: f32) -> [S::V; NV] {
        let mut top = [s.splat(f32::NEG_INFINITY); NV];
        for row in scores.chunks_exact(NV * S::LANES) {
            for v in 0..NV {
                top[v] = s.max(top[v], s.load(&row[v * S::LANES..]));
            }
        }
        top.map(|top| s.mul(top, s.splat(scale)))
    }
}

simd_fn! {
    fn scale_rows[S; const NV: usize](s, factors: &[f32], rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(NV * S::LANES) {
            for v in 0..NV {
                let lane = v * S::LANES;
                s.store(s.mul(s.load(&row[lane..]), s.load(&factors[lane..])), &mut row[lane..]);
            }
        }
    }
}

simd_fn! {
    /// P = 2^(scores · scale - m) in words of two keys; weights are added up.
    fn weigh[S, W: Words<S>; const NV: usize, const EXACT: bool](
        s, words: W, scores: &[f32], scale: f32, m: &[f32], l: &mut [f32], p: &mut [f32],
    ) {
        let (scale, width) = (s.splat(scale), NV * S::LANES);
        for v in 0..NV {
            let lane = v * S::LANES;
            let (below, mut sum) = (s.sub(s.zero(), s.load(&m[lane..])), s.load(&l[lane..]));
            for (scores, p) in scores.chunks_exact(2 * width).zip(p.chunks_exact_mut(width)) {
                let mut weights = [s.zero(); 2];
                for k in 0..2 {
                    let score = s.fma(s.load(&scores[k * width + lane..]), scale, below);
                    weights[k] = if EXACT { math::exp2(s, score) } else { math::exp2_of_bf16(s, score) };
                }
                sum = s.add(sum, s.add(weights[0], weights[1]));
                s.store(words.of_vectors(s, weights), &mut p[lane..]);
            }
            s.store(sum, &mut l[lane..]);
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

    const NAME: &str = "attention_flash_bf16__model";

    /// For the table of kernels while the library is tested; by name only.
    pub const fn row() -> Kernel<Cpu, Attention> {
        Kernel::new(NAME, flash::supports_bf16, |_, op, l| run(Model, op, l))
            .takes(super::super::TAKES)
            .suits(|_, _| false)
            .workspace(workspace)
    }

    #[test]
    fn cases_agree_with_the_reference() {
        let device = Device::cpu().unwrap();
        let op = "attention(dtype=bf16,out=bf16)".parse().unwrap();
        let runs = flash::supports_bf16(&op, Cpu::caps(device.as_cpu().unwrap()));
        // More queries than a part holds.
        let more = ["attention(len_q=1100,len_k=33,head_dim=64,dtype=bf16,out=bf16,lse=true)"];
        assert_eq!(check_kernel("attention", NAME, &more) > 0, runs.is_ok());
    }
}
