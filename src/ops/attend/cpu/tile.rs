//! The register tiles of blocked attention.
//!
//! Both products have the shape `acc[i][v] += a[i] · b[v]`, where `a` is a word ([`Words`]) broadcast from a row of one side, and `b`
//! are vectors whose lanes are rows of the other: the flash kernel of `attention` has queries in lanes, `attention_bwd`
//! keys. The words that are broadcast together lie side by side in a matrix of [`PANEL`](super::PANEL)s ([`weigh`]), or each
//! in a row of its own ([`dots`]); tiles run at the FMA peak either way, so a transposition has to pay elsewhere. Strides are
//! known at run time alone: loops that cut slices by them spend twenty instructions a step on lengths, so they go by pointers.
//!
//! Register budget: MR·NV accumulators, NV vectors of `b` and one broadcast: 8·3 + 3 + 1 = 28 of 32 with AVX-512,
//! 4·2 + 2 + 1 = 11 of 16 with AVX2. A step of 24 products needs 11 loads, so loads (two in a cycle) are not the bound.
// Loops over registers name them by number: iterators over the arrays keep some of them in memory.
#![allow(clippy::needless_range_loop)]
#![allow(unsafe_code)] // the innermost loops read through pointers whose ranges are asserted before them

use super::Words;
use crate::backend::cpu::simd::Simd;
use std::marker::PhantomData;

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
    let mut dots = Dots::<MR>::new(rows, columns, NV * S::LANES);
    dots.advance(s, words, &mut acc, dots.left);
    acc
}

/// [`dots`] in pieces, for what is to be done between them.
pub struct Dots<'a, const MR: usize> {
    /// The next step's words of each row and vectors of columns.
    rows: [*const f32; MR],
    columns: *const f32,
    /// Values of a step of columns.
    width: usize,
    /// Steps that all of them have yet.
    left: usize,
    operands: PhantomData<&'a [f32]>,
}

impl<'a, const MR: usize> Dots<'a, MR> {
    /// `columns` has `width` values for each step.
    #[inline(always)]
    pub fn new(rows: [&'a [f32]; MR], columns: &'a [f32], width: usize) -> Self {
        let left = columns.len() / width;
        let mut from = [std::ptr::null(); MR];
        for i in 0..MR {
            from[i] = rows[i][..left].as_ptr();
        }
        Dots { rows: from, columns: columns.as_ptr(), width, left, operands: PhantomData }
    }

    /// Up to `steps` more.
    #[inline(always)]
    pub fn advance<S: Simd, W: Words<S>, const NV: usize>(
        &mut self,
        s: S,
        words: W,
        acc: &mut Tile<S, MR, NV>,
        steps: usize,
    ) {
        assert!(self.width == NV * S::LANES);
        let steps = steps.min(self.left);
        let mut columns = self.columns;
        for t in 0..steps {
            // SAFETY: the steps that are left are inside of each row and of the columns, of which each takes NV vectors.
            unsafe { multiply(s, words, acc, |i| *self.rows[i].add(t), columns) };
            columns = columns.wrapping_add(NV * S::LANES);
        }
        self.columns = columns;
        self.left -= steps;
        for i in 0..MR {
            self.rows[i] = self.rows[i].wrapping_add(steps);
        }
    }
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
