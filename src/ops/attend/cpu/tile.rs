//! The register tiles of blocked attention, and transposition.
//!
//! Both products have the shape `acc[i][v] += a[i] · b[v]`, where `a` is a value broadcast from a row of one side as
//! it lies in memory, and `b` are vectors whose lanes are rows of the other: the flash kernel of `attention` has queries
//! in lanes, `attention_bwd` keys. So the first side needs no transposition, and any head_dim runs without padding.
//!
//! Register budget: MR·NV accumulators, NV vectors of `b` and one broadcast: 8·3 + 3 + 1 = 28 of 32 with AVX-512,
//! 4·3 + 3 + 1 = 16 of 16 with AVX2. A step of 24 products needs 11 loads, so loads (two in a cycle) are not the bound.
#![allow(unsafe_code)] // for the shuffles that the vector trait does not have

use crate::backend::cpu::simd::{Isa, Simd};

/// A tile of accumulators.
pub type Tile<S, const MR: usize, const NV: usize> = [[<S as Simd>::V; NV]; MR];

/// `tile[i] = Σ_t rows[i][t] · columns[t]`, with `columns` [t][NV vectors].
#[inline(always)]
pub fn dots<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    rows: [&[f32]; MR],
    depth: usize,
    columns: &[f32],
) -> Tile<S, MR, NV> {
    let mut acc = [[s.zero(); NV]; MR];
    let mut cut: [&[f32]; MR] = [&[]; MR];
    for i in 0..MR {
        cut[i] = &rows[i][..depth];
    }
    for (t, b) in (0..depth).zip(columns.chunks_exact(NV * S::LANES)) {
        let mut column = [s.zero(); NV];
        for v in 0..NV {
            column[v] = s.load(&b[v * S::LANES..]);
        }
        for i in 0..MR {
            let a = s.splat(cut[i][t]);
            for v in 0..NV {
                acc[i][v] = s.fma(a, column[v], acc[i][v]);
            }
        }
    }
    acc
}

/// `tile[i] += Σ_j rows[j][i] · columns[j]`, with rows of both at a distance, and NV vectors in one of `columns`.
#[inline(always)]
pub fn weigh<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    mut acc: Tile<S, MR, NV>,
    (rows, row_stride): (&[f32], usize),
    (columns, column_stride): (&[f32], usize),
) -> Tile<S, MR, NV> {
    for (row, b) in rows.chunks(row_stride).zip(columns.chunks(column_stride)) {
        let (row, b) = (&row[..MR], &b[..NV * S::LANES]);
        let mut column = [s.zero(); NV];
        for v in 0..NV {
            column[v] = s.load(&b[v * S::LANES..]);
        }
        for i in 0..MR {
            let a = s.splat(row[i]);
            for v in 0..NV {
                acc[i][v] = s.fma(a, column[v], acc[i][v]);
            }
        }
    }
    acc
}

/// `to[c · to_stride + r] = from[r · from_stride + c]` for `rows` × `cols` values.
#[inline(always)]
pub fn transpose<S: Simd>(
    s: S,
    from: &[f32],
    from_stride: usize,
    (rows, cols): (usize, usize),
    to: &mut [f32],
    to_stride: usize,
) {
    let (full_rows, full_cols) = if S::ISA == Isa::Portable { (0, 0) } else { (rows & !7, cols & !7) };
    for r in (0..full_rows).step_by(8) {
        for c in (0..full_cols).step_by(8) {
            let from = &from[r * from_stride + c..][..7 * from_stride + 8];
            let to = &mut to[c * to_stride + r..][..7 * to_stride + 8];
            eight_by_eight(s, from, from_stride, to, to_stride);
        }
    }
    for r in 0..rows {
        for c in if r < full_rows { full_cols } else { 0 }..cols {
            to[c * to_stride + r] = from[r * from_stride + c];
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn eight_by_eight<S: Simd>(_: S, _: &[f32], _: usize, _: &mut [f32], _: usize) {}

/// One 8 × 8 square; only called with AVX2 or AVX-512.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn eight_by_eight<S: Simd>(_: S, from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
    use std::arch::x86_64::*;
    assert!(from.len() >= 7 * from_stride + 8 && to.len() >= 7 * to_stride + 8 && S::ISA != Isa::Portable);
    // SAFETY: a value of `S` other than portable exists only where the processor has AVX2; rows 0 to 7 of eight values
    // lie inside both slices, as just checked.
    unsafe {
        // Macros, because a closure would be compiled without the instruction set.
        macro_rules! row {
            ($i:literal) => {
                _mm256_loadu_ps(from.as_ptr().add($i * from_stride))
            };
        }
        macro_rules! pairs {
            ($i:literal, $j:literal) => {{
                let (a, b) = (row!($i), row!($j));
                (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b))
            }};
        }
        macro_rules! put {
            ($i:literal, $low:expr, $high:expr) => {{
                let (low, high) = ($low, $high);
                _mm256_storeu_ps(to.as_mut_ptr().add($i * to_stride), _mm256_permute2f128_ps::<0x20>(low, high));
                _mm256_storeu_ps(to.as_mut_ptr().add(($i + 4) * to_stride), _mm256_permute2f128_ps::<0x31>(low, high));
            }};
        }
        let ((a0, a1), (a2, a3)) = (pairs!(0, 1), pairs!(2, 3));
        let ((a4, a5), (a6, a7)) = (pairs!(4, 5), pairs!(6, 7));
        put!(0, _mm256_shuffle_ps::<0x44>(a0, a2), _mm256_shuffle_ps::<0x44>(a4, a6));
        put!(1, _mm256_shuffle_ps::<0xee>(a0, a2), _mm256_shuffle_ps::<0xee>(a4, a6));
        put!(2, _mm256_shuffle_ps::<0x44>(a1, a3), _mm256_shuffle_ps::<0x44>(a5, a7));
        put!(3, _mm256_shuffle_ps::<0xee>(a1, a3), _mm256_shuffle_ps::<0xee>(a5, a7));
    }
}
