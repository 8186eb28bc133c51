//! The register tile of quantised weights: up to mr rows of rounded lhs against two vectors of columns.
//!
//! lhs is rounded to numbers of about 15 bits and a sign, `254·high + low`, both of which are bytes. Eight bits, as other
//! engines have them, are too few: their noise decided between the best two tokens of SmolLM2 in the sixth step.
//!
//! For each 32 values of k: eight steps of four values, in each of which a vector of weights meets the same four high bytes,
//! and the same four low ones, of every row; then the sums, exact in i32, are turned into f32, joined, and added up with
//! their factors. What weights have in excess (8 of Q4_0, 128 of Q8_0, 32 of Q6_K) is where the integer sums start:
//! -excess·Σ lhs. What they are shifted by (Q4_1, Q4_K) meets the f32 sum of the block. So a block costs 16 + 5 or 6
//! instructions per row and vector.
//!
//! Registers of mr = 4: 16 integer sums, 8 f32 sums, 2 of weights, 2 of lhs, 2 on the way: 30 of 32 with AVX-512.
#![allow(unsafe_code)] // the innermost loop reads through pointers whose ranges are asserted before it

use super::dot::{Dot, Path, dot_fn};
use super::weights::{BLOCK, BLOCKS, Kind, Weights, bias, shift_sign};
use crate::backend::cpu::simd::{Lane, Simd};
use crate::dtype::Quant;

/// What a high byte counts of low ones: with bytes from -127 to 127, every number up to `BASE·127 + 127` has one form.
const BASE: f32 = 254.0;

/// 32 values of a row of lhs, rounded.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Rounded {
    /// The high bytes, and the low ones.
    values: [[i8; BLOCK]; 2],
    /// Where sums of each half of the block (or, the first, of all of it) begin: of high bytes, and of low ones.
    start: [[i32; 2]; 2],
    /// What values were divided by: the largest magnitude over 127·254.
    factor: f32,
    /// `factor · Σ values`, with the sign of the shift.
    sum: f32,
}

// SAFETY: plain numbers, 88 bytes without padding; any bits will do.
unsafe impl bytemuck::Zeroable for Rounded {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Rounded {}

dot_fn! {
    /// acc[r, :] += Σ_k lhs[r, k] · weights[k, :] for ROWS rows and `blocks` blocks; lhs rows lie `BLOCKS` blocks apart, acc
    /// rows two vectors.
    pub(super) fn tile[D, W: Weights<D>; const ROWS: usize](d, lhs: &[Rounded], weights: [W; 2], blocks: usize, acc: &mut [f32]) {
        let (s, lanes) = (d.simd(), D::S::LANES);
        assert!(lhs.len() >= (ROWS - 1) * BLOCKS + blocks && acc.len() >= ROWS * 2 * lanes);
        let mut sums = [[s.zero(); 2]; ROWS];
        for (sums, acc) in sums.iter_mut().zip(acc.chunks_exact(2 * lanes)) {
            *sums = [s.load(acc), s.load(&acc[lanes..])];
        }
        for block in 0..blocks {
            // SAFETY: row r < ROWS of a block below `blocks` is inside of lhs by the assertion above.
            let row = |r: usize| unsafe { &*lhs.as_ptr().add(r * BLOCKS + block) };
            let steps = 8 / W::K::GROUPS;
            for group in 0..W::K::GROUPS {
                // Of each row and vector, the sums of high and of low bytes.
                let mut ints = [[[d.splat(0); 2]; 2]; ROWS];
                if bias::<D>(W::K::QUANT) != 0 {
                    for (r, ints) in ints.iter_mut().enumerate() {
                        let start = row(r).start[group];
                        *ints = [[d.splat(start[0]), d.splat(start[1])]; 2];
                    }
                }
                for g in group * steps..(group + 1) * steps {
                    for w in weights {
                        w.fetch(block, g);
                    }
                    // SAFETY (here and below): whoever made the weights has checked that they have as many blocks.
                    let w = unsafe { [weights[0].integers(d, block, g), weights[1].integers(d, block, g)] };
                    for (r, ints) in ints.iter_mut().enumerate() {
                        for (half, values) in row(r).values.iter().enumerate() {
                            let x = d.four([values[4 * g], values[4 * g + 1], values[4 * g + 2], values[4 * g + 3]]);
                            for (ints, w) in ints.iter_mut().zip(w) {
                                let sum = ints[half];
                                ints[half] = if W::K::WIDE { d.dot_wide(sum, w, x) } else { d.dot(sum, w, x) };
                            }
                        }
                    }
                }
                for (v, w) in weights.iter().enumerate() {
                    let scale = unsafe { w.scale(d, block, group) };
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let factor = s.mul(scale, s.splat(row(r).factor));
                        let (high, low) = (d.to_floats(ints[r][v][0]), d.to_floats(ints[r][v][1]));
                        sums[v] = s.fma(s.fma(high, s.splat(BASE), low), factor, sums[v]);
                    }
                }
            }
            if W::K::SHIFTS {
                for (v, w) in weights.iter().enumerate() {
                    let shift = unsafe { w.shift(d, block) };
                    for (r, sums) in sums.iter_mut().enumerate() {
                        sums[v] = s.fma(shift, s.splat(row(r).sum), sums[v]);
                    }
                }
            }
        }
        for (sums, acc) in sums.iter().zip(acc.chunks_exact_mut(2 * lanes)) {
            s.store(sums[0], acc);
            s.store(sums[1], &mut acc[lanes..]);
        }
    }
}

dot_fn! {
    /// Rounds a row, or a part of one, for weights of a kind. A block with a value that is not finite gives NaN.
    pub(super) fn round[D, L: Lane](d, row: &[L], out: &mut [Rounded], quant: Quant) {
        let (s, lanes) = (d.simd(), D::S::LANES);
        let (zero, bias, sign) = (s.zero(), bias::<D>(quant), shift_sign(quant));
        for (x, out) in row.chunks_exact(BLOCK).zip(out) {
            let mut values = [zero; 4];
            let (mut largest, mut finite) = (zero, zero);
            for (v, x) in values.iter_mut().zip(x.chunks_exact(lanes)) {
                *v = L::load(s, x);
                largest = s.max(largest, s.abs(*v));
                finite = s.fma(*v, zero, finite);
            }
            out.factor = s.max_lane(largest) / (127.0 * BASE) + s.sum(finite);
            // Of numbers so small that the inverse overflows, none is left.
            let inverse = if out.factor >= f32::MIN_POSITIVE { 1.0 / out.factor } else { 0.0 };
            // Of the two halves of the block: the sums of high and of low bytes.
            let mut sums = [[zero; 2]; 2];
            for (i, v) in values.iter().enumerate().take(BLOCK / lanes) {
                let whole = s.round(s.mul(*v, s.splat(inverse)));
                let high = s.round(s.mul(whole, s.splat(1.0 / BASE)));
                let parts = [high, s.fnma(high, s.splat(BASE), whole)];
                for (half, part) in parts.into_iter().enumerate() {
                    d.store(part, &mut out.values[half][i * lanes..(i + 1) * lanes]);
                    let sum = &mut sums[2 * i * lanes / BLOCK][half];
                    *sum = s.add(*sum, part);
                }
            }
            let [first, second] = [[s.sum(sums[0][0]), s.sum(sums[0][1])], [s.sum(sums[1][0]), s.sum(sums[1][1])]];
            let all = [first[0] + second[0], first[1] + second[1]];
            let two = matches!(quant, Quant::Q6_K);
            out.start = [if two { first } else { all }, second].map(|half| half.map(|sum| -bias * sum as i32));
            out.sum = sign * out.factor * (BASE * all[0] + all[1]);
        }
    }
}
