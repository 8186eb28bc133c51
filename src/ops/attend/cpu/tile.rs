//! The register tiles of blocked attention.
//!
//! Both products have the shape `acc[i][v] += a[i] · b[v]`, where `a` is a word ([`Words`]) broadcast from a row of one side, and `b`
//! are vectors whose lanes are rows of the other: the flash kernel of `attention` has queries in lanes, `attention_bwd`
//! keys. The words that are broadcast together lie side by side in a matrix of [`PANEL`](super::PANEL)s ([`weigh`]), or each
//! in a row of its own ([`dots`]); tiles run at the FMA peak either way, so a transposition has to pay elsewhere. Strides are
//! known at run time alone: loops that cut slices by them spend twenty instructions a step on lengths, so they go by pointers.
//!
//! Register budget: MR·NV accumulators, NV vectors of `b` and one broadcast: 8·3 + 3 + 1 = 28 of 32 with AVX-512,
//! 4·3 + 3 + 1 = 16 of 16 with AVX2. A step of 24 products needs 11 loads, so loads (two in a cycle) are not the bound.
// Loops over registers name them by number: iterators over the arrays keep some of them in memory.
#![allow(clippy::needless_range_loop)]
#![allow(unsafe_code)] // the innermost loops read through pointers whose ranges are asserted before them

use super::Words;
use crate::backend::cpu::simd::Simd;

/// A tile of accumulators.
pub type Tile<S, const MR: usize, const NV: usize> = [[<S as Simd>::V; NV]; MR];

/// `tile[i] += Σ_t rows[i][t] · columns[t]`, with `columns` [t][NV vectors].
#[inline(always)]
pub fn dots<S: Simd, W: Words<S>, const MR: usize, const NV: usize>(
    s: S,
    words: W,
    mut acc: Tile<S, MR, NV>,
    rows: [&[f32]; MR],
    columns: &[f32],
) -> Tile<S, MR, NV> {
    let width = NV * S::LANES;
    let depth = columns.len() / width;
    let mut from = [std::ptr::null(); MR];
    for i in 0..MR {
        from[i] = rows[i][..depth].as_ptr();
    }
    let mut b = columns.as_ptr();
    for t in 0..depth {
        // SAFETY: t is below the length of each row, and `b` has advanced by t steps of what `columns` has `depth` of.
        unsafe { multiply(s, words, &mut acc, |i| *from[i].add(t), b) };
        b = b.wrapping_add(width);
    }
    acc
}

/// `tile[i] += Σ_j rows[j][i] · columns[j]` for some steps j, with rows of both at a distance, and NV vectors in one of `columns`.
#[inline(always)]
pub fn weigh<S: Simd, W: Words<S>, const MR: usize, const NV: usize>(
    s: S,
    words: W,
    mut acc: Tile<S, MR, NV>,
    steps: usize,
    (rows, row_stride): (&[f32], usize),
    (columns, column_stride): (&[f32], usize),
) -> Tile<S, MR, NV> {
    let Some(last) = steps.checked_sub(1) else { return acc };
    assert!(rows.len() >= last * row_stride + MR && columns.len() >= last * column_stride + NV * S::LANES);
    let (mut a, mut b) = (rows.as_ptr(), columns.as_ptr());
    for _ in 0..steps {
        // SAFETY: both have advanced by less than `steps` rows, so what follows is inside by the assertion.
        unsafe { multiply(s, words, &mut acc, |i| *a.add(i), b) };
        (a, b) = (a.wrapping_add(row_stride), b.wrapping_add(column_stride));
    }
    acc
}

/// `acc[i][v] += a(i) · b[v]`, with NV vectors from `b` on.
///
/// # Safety
/// They can be read, and so can what `a` reads.
#[inline(always)]
unsafe fn multiply<S: Simd, W: Words<S>, const MR: usize, const NV: usize>(
    s: S,
    words: W,
    acc: &mut Tile<S, MR, NV>,
    a: impl Fn(usize) -> f32,
    b: *const f32,
) {
    let mut column = [s.zero(); NV];
    for v in 0..NV {
        // SAFETY: as the caller warrants.
        column[v] = s.load(unsafe { std::slice::from_raw_parts(b.add(v * S::LANES), S::LANES) });
    }
    for i in 0..MR {
        let a = s.splat(a(i));
        for v in 0..NV {
            acc[i][v] = words.fma(s, a, column[v], acc[i][v]);
        }
    }
}
