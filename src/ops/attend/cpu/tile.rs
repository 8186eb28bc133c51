//! The register tiles of blocked attention, and transposition.
//!
//! Both products have the shape `acc[i][v] += a[i] · b[v]`, where `a` is a value broadcast from a row of one side, and `b`
//! are vectors whose lanes are rows of the other: the flash kernel of `attention` has queries in lanes, `attention_bwd`
//! keys. The values that are broadcast together should lie side by side ([`PANEL`](super::PANEL)): one stream of lines
//! instead of as many as rows; then a tile runs at 98 % of the FMA peak out of L1. That is worth a transposition where
//! the side is read more than once ([`weigh`]), and not where it is read once ([`dots`]).
//!
//! Register budget: MR·NV accumulators, NV vectors of `b` and one broadcast: 8·3 + 3 + 1 = 28 of 32 with AVX-512,
//! 4·3 + 3 + 1 = 16 of 16 with AVX2. A step of 24 products needs 11 loads, so loads (two in a cycle) are not the bound.
#![allow(unsafe_code)] // for the shuffles that the vector trait does not have

use crate::backend::cpu::simd::{Isa, Simd};

/// A tile of accumulators.
pub type Tile<S, const MR: usize, const NV: usize> = [[<S as Simd>::V; NV]; MR];

/// `tile[i] = Σ_t rows[i][t] · columns[t]`, with `columns` [t][NV vectors].
#[inline(always)]
pub fn dots<S: Simd, const MR: usize, const NV: usize>(s: S, rows: [&[f32]; MR], columns: &[f32]) -> Tile<S, MR, NV> {
    let mut acc = [[s.zero(); NV]; MR];
    let depth = columns.len() / (NV * S::LANES);
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

/// `to[c · to_stride + r] = factor · from[r · from_stride + c]` for `rows` × `cols` values.
#[inline(always)]
pub fn transpose<S: Simd>(
    s: S,
    from: &[f32],
    from_stride: usize,
    (rows, cols): (usize, usize),
    factor: f32,
    to: &mut [f32],
    to_stride: usize,
) {
    let (full_rows, full_cols) = if S::ISA == Isa::Portable { (0, 0) } else { (rows & !7, cols & !3) };
    for r in (0..full_rows).step_by(8) {
        eight_rows(s, &from[r * from_stride..], from_stride, full_cols, factor, &mut to[r..], to_stride);
    }
    for r in 0..rows {
        for c in if r < full_rows { full_cols } else { 0 }..cols {
            to[c * to_stride + r] = factor * from[r * from_stride + c];
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn eight_rows<S: Simd>(_: S, _: &[f32], _: usize, _: usize, _: f32, _: &mut [f32], _: usize) {}

/// Eight rows of a multiple of four columns; only called with AVX2 or AVX-512. 8 x 8 values take 12 cycles out of L1 and 22 out
/// of L2; sixteen rows at a time with 512-bit vectors take 13 and 22.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn eight_rows<S: Simd>(
    _: S,
    from: &[f32],
    from_stride: usize,
    cols: usize,
    factor: f32,
    to: &mut [f32],
    to_stride: usize,
) {
    use std::arch::x86_64::*;
    if cols == 0 {
        return;
    }
    assert!(S::ISA != Isa::Portable && cols.is_multiple_of(4));
    assert!(from.len() >= 7 * from_stride + cols && to.len() >= (cols - 1) * to_stride + 8);
    // SAFETY: a value of `S` other than portable exists only where the processor has AVX2; eight rows of `cols` values lie
    // inside of `from` and `cols` rows of eight inside of `to`, as just checked.
    unsafe {
        let factor = _mm256_set1_ps(factor);
        let (mut row, mut to) = (from.as_ptr(), to.as_mut_ptr());
        for _ in 0..cols / 4 {
            // Rows 0 to 3 in the lower halves and 4 to 7 in the upper ones: no shuffle crosses from half to half, which
            // only one port does. (A macro, because a closure would be compiled without the instruction set.)
            macro_rules! halves {
                ($i:literal) => {{
                    let low = _mm256_castps128_ps256(_mm_loadu_ps(row.add($i * from_stride)));
                    let both = _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(row.add(($i + 4) * from_stride)));
                    _mm256_mul_ps(both, factor)
                }};
            }
            let (a, b, c, d) = (halves!(0), halves!(1), halves!(2), halves!(3));
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(ab_low, cd_low));
            _mm256_storeu_ps(to.add(to_stride), _mm256_shuffle_ps::<0xee>(ab_low, cd_low));
            _mm256_storeu_ps(to.add(2 * to_stride), _mm256_shuffle_ps::<0x44>(ab_high, cd_high));
            _mm256_storeu_ps(to.add(3 * to_stride), _mm256_shuffle_ps::<0xee>(ab_high, cd_high));
            (row, to) = (row.add(4), to.wrapping_add(4 * to_stride));
        }
    }
}
