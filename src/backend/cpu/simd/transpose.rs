//! Transposition, eight rows at a time.
#![allow(unsafe_code)] // for the shuffles that the vector trait does not have

use super::{Isa, Simd};
use crate::simd_fn;

simd_fn! {
    /// `to[c · to_stride + r] = from[r · from_stride + c]` for `rows` × `cols` values, times a factor if there is one. Without,
    /// values are moved and may be any 32 bits.
    pub fn transpose[S](
        s, from: &[f32], from_stride: usize, extents: (usize, usize), factor: Option<f32>, to: &mut [f32], to_stride: usize,
    ) {
        let row = |r: usize| &from[r * from_stride..];
        match factor {
            Some(factor) => moved::<S, true>(s, row, extents, factor, to, to_stride),
            None => moved::<S, false>(s, row, extents, 1.0, to, to_stride),
        }
    }
}

simd_fn! {
    /// `to[c · to_stride + r] = rows[r][from + c]` for `cols` columns of rows that lie anywhere.
    pub fn transpose_rows[S](s, rows: &[&[f32]], from: usize, cols: usize, to: &mut [f32], to_stride: usize) {
        moved::<S, false>(s, |r| &rows[r][from..], (rows.len(), cols), 1.0, to, to_stride)
    }
}

#[inline(always)]
fn moved<'a, S: Simd, const SCALED: bool>(
    s: S,
    row: impl Fn(usize) -> &'a [f32],
    (rows, cols): (usize, usize),
    factor: f32,
    to: &mut [f32],
    to_stride: usize,
) {
    let whole = if S::ISA != Isa::Portable && rows >= 8 { cols & !3 } else { 0 };
    if whole > 0 {
        for r in (0..rows).step_by(8) {
            // The last eight rows may be some of the ones before.
            let r = r.min(rows - 8);
            let eight = std::array::from_fn(|i| row(r + i));
            eight_rows::<S, SCALED>(s, eight, whole, factor, &mut to[r..], to_stride);
        }
    }
    if whole == cols {
        return;
    }
    for r in 0..rows {
        let from = row(r);
        for c in whole..cols {
            let value = from[c];
            to[c * to_stride + r] = if SCALED { factor * value } else { value };
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn eight_rows<S: Simd, const SCALED: bool>(_: S, _: [&[f32]; 8], _: usize, _: f32, _: &mut [f32], _: usize) {}

/// Eight rows of a multiple of four columns; only called with AVX2 or AVX-512. 8 x 8 values take 12 cycles out of L1 and 22 out
/// of L2; sixteen rows at a time with 512-bit vectors take 13 and 22.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn eight_rows<S: Simd, const SCALED: bool>(
    _: S,
    from: [&[f32]; 8],
    cols: usize,
    factor: f32,
    to: &mut [f32],
    to_stride: usize,
) {
    use std::arch::x86_64::*;
    assert!(S::ISA != Isa::Portable && cols > 0 && cols.is_multiple_of(4));
    assert!(from.iter().all(|row| row.len() >= cols) && to.len() >= (cols - 1) * to_stride + 8);
    // SAFETY: a value of `S` other than portable exists only where the processor has AVX2; eight rows have `cols`
    // values and `cols` rows of eight lie inside of `to`, as just checked.
    unsafe {
        let factor = _mm256_set1_ps(factor);
        let (from, mut to) = (from.map(<[f32]>::as_ptr), to.as_mut_ptr());
        for c in (0..cols).step_by(4) {
            // Rows 0 to 3 in the lower halves and 4 to 7 in the upper ones: no shuffle crosses from half to half, which
            // only one port does. (A macro, because a closure would be compiled without the instruction set.)
            macro_rules! halves {
                ($i:literal) => {{
                    let low = _mm256_castps128_ps256(_mm_loadu_ps(from[$i].add(c)));
                    let both = _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(from[$i + 4].add(c)));
                    if SCALED { _mm256_mul_ps(both, factor) } else { both }
                }};
            }
            let (a, b, c, d) = (halves!(0), halves!(1), halves!(2), halves!(3));
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(ab_low, cd_low));
            _mm256_storeu_ps(to.add(to_stride), _mm256_shuffle_ps::<0xee>(ab_low, cd_low));
            _mm256_storeu_ps(to.add(2 * to_stride), _mm256_shuffle_ps::<0x44>(ab_high, cd_high));
            _mm256_storeu_ps(to.add(3 * to_stride), _mm256_shuffle_ps::<0xee>(ab_high, cd_high));
            to = to.wrapping_add(4 * to_stride);
        }
    }
}
