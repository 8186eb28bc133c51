//! What happens to sums on their way out: bias, activation, gate, residual, rounding.
#![allow(unsafe_code)] // blocks of the result are written by different threads through one pointer

use super::ahead::Lines;
use crate::backend::cpu::simd::{Lane, Simd, Wide, fetch_line, fetch_line_to_write};
use crate::dtype::DType;
use crate::ops::activation::Activation;
use crate::simd_fn;
use std::marker::PhantomData;
use std::ops::Range;

/// What a problem asks for.
pub(super) struct Epilogue<'a> {
    /// [n], gated [2n].
    pub bias: Option<&'a [f32]>,
    pub activation: Activation,
    /// [rows, n]
    pub residual: Option<&'a [f32]>,
    pub gated: bool,
    /// Columns of the result.
    pub n: usize,
}

/// The rows of a result, of which each thread writes other parts.
pub(super) struct Rows<'a, O> {
    base: *mut O,
    rows: usize,
    n: usize,
    whole: PhantomData<&'a mut [O]>,
}

// SAFETY: threads write disjoint parts, see `part`.
unsafe impl<O: Send> Sync for Rows<'_, O> {}

impl<'a, O> Rows<'a, O> {
    pub fn new(out: &'a mut [O], n: usize) -> Self {
        Rows { base: out.as_mut_ptr(), rows: out.len() / n.max(1), n, whole: PhantomData }
    }

    /// Columns `from..to` of a row.
    ///
    /// # Safety
    /// While the slice lives, nobody else may hold one that overlaps it.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub unsafe fn part(&self, row: usize, from: usize, to: usize) -> &mut [O] {
        assert!(row < self.rows && from <= to && to <= self.n);
        // SAFETY: inside the slice that `new` was given; the caller vouches for uniqueness.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(row * self.n + from), to - from) }
    }
}

/// Rows of two vectors of an f32 result that takes sums as they are, or with a bias: a tile stores them from its registers.
pub(super) struct Direct<'a> {
    base: *mut f32,
    /// From one row to the next.
    stride: usize,
    rows: usize,
    bias: Option<&'a [f32]>,
}

impl<'a> Direct<'a> {
    /// Rows `rows` from column `left` on; `None` where more is to be done to sums, or fewer columns are left.
    pub fn new<O: Lane>(
        e: &Epilogue<'a>,
        out: &Rows<'_, O>,
        rows: Range<usize>,
        left: usize,
        nr: usize,
    ) -> Option<Direct<'a>> {
        let plain = e.activation == Activation::None && e.residual.is_none() && !e.gated;
        if O::DTYPE != DType::F32 || !plain || left + nr > e.n {
            return None;
        }
        assert!(rows.end <= out.rows && e.n == out.n);
        // SAFETY: inside of the result by the line above.
        let base = unsafe { out.base.add(rows.start * out.n + left) }.cast();
        Some(Direct { base, stride: out.n, rows: rows.len(), bias: e.bias.map(|b| &b[left..left + nr]) })
    }

    #[allow(clippy::needless_range_loop)] // as for `Sums`
    #[inline(always)]
    pub fn store<S: Simd, const ROWS: usize>(self, s: S, c: &[[S::V; 2]; ROWS]) {
        assert!(ROWS <= self.rows);
        let bias = match self.bias {
            Some(bias) => [s.load(bias), s.load(&bias[S::LANES..])],
            None => [s.zero(); 2],
        };
        for r in 0..ROWS {
            // SAFETY: two vectors of row r, which `new` has found inside of the result. Blocks of it do not overlap, and one
            // thread works on each.
            let row = unsafe { std::slice::from_raw_parts_mut(self.base.add(r * self.stride), 2 * S::LANES) };
            s.store(s.add(c[r][0], bias[0]), row);
            s.store(s.add(c[r][1], bias[1]), &mut row[S::LANES..]);
        }
    }
}

/// Asks for what a tile ends in, the result's lines and the residual's: otherwise its stores wait for them, and with them the
/// loads and stores of the next tile.
pub(super) fn fetch<O>(e: &Epilogue<'_>, out: &Rows<'_, O>, rows: Range<usize>, left: usize, cols: usize) {
    let (at, cols) = (rows.start * e.n + left, cols.min(e.n - left));
    let lines = |base: *const u8, element: usize| {
        Lines::new(base.wrapping_add(at * element), e.n * element, cols * element, rows.len())
    };
    lines(out.base.cast(), size_of::<O>()).each(fetch_line_to_write);
    if let Some(residual) = e.residual {
        lines(residual.as_ptr().cast(), size_of::<f32>()).each(fetch_line);
    }
}

simd_fn! {
    /// Finishes `acc`, rows of two vectors, and stores it from row `top` and column `left` of the result, up to column
    /// `right`. A gated row holds a vector of gates and one of the values that they open.
    pub(super) fn store[S, O: Lane](s, e: &Epilogue<'_>, acc: &[f32], top: usize, left: usize, right: usize, out: &Rows<'_, O>) {
        let nr = 2 * S::LANES;
        if !e.gated && left + nr <= right {
            // Both in one: of bf16 they are a line, which is then stored once.
            return activate(Wide::<S, 2>(s), e, acc.chunks_exact(nr), 0, (top, left, left + nr), out);
        }
        for (v, from) in (0..if e.gated { 1 } else { 2 }).zip((left..right).step_by(S::LANES)) {
            activate(s, e, acc.chunks_exact(nr), v, (top, from, (from + S::LANES).min(right)), out);
        }
    }
}

/// [`finish`] with the activation, which is chosen here and not for each vector. (A closure of it might not be inlined, and then lack
/// the instruction set: products with a GELU took three times as long.)
#[inline(always)]
fn activate<'a, S: Simd, O: Lane>(
    s: S,
    e: &Epilogue<'_>,
    rows: impl Iterator<Item = &'a [f32]>,
    v: usize,
    at: (usize, usize, usize),
    out: &Rows<'_, O>,
) {
    match e.activation {
        Activation::None => finish(s, e, Activation::None, rows, v, at, out),
        activation => finish(s, e, activation, rows, v, at, out),
    }
}

/// Vector `v` of every row: columns `from..to` of the result from row `top` on.
#[inline(always)]
fn finish<'a, S: Simd, O: Lane>(
    s: S,
    e: &Epilogue<'_>,
    activation: Activation,
    rows: impl Iterator<Item = &'a [f32]>,
    v: usize,
    (top, from, to): (usize, usize, usize),
    out: &Rows<'_, O>,
) {
    let (mut shift, mut value_shift) = (s.zero(), s.zero());
    if let Some(bias) = e.bias {
        shift = load(s, &bias[from..], to - from);
        if e.gated {
            value_shift = load(s, &bias[e.n + from..], to - from);
        }
    }
    for (row, sums) in (top..).zip(rows) {
        let mut x = activation.apply(s, s.add(s.load(&sums[v * S::LANES..]), shift));
        if e.gated {
            x = s.mul(x, s.add(s.load(&sums[S::LANES..]), value_shift));
        }
        if let Some(residual) = e.residual {
            x = s.add(x, load(s, &residual[row * e.n + from..], to - from));
        }
        // SAFETY: blocks of the result do not overlap, and one thread works on each.
        let out = unsafe { out.part(row, from, to) };
        if out.len() == S::LANES {
            O::store(s, x, out);
        } else {
            O::store_part(s, x, out);
        }
    }
}

/// A whole vector, or the `count` values that there are.
#[inline(always)]
fn load<S: Simd>(s: S, x: &[f32], count: usize) -> S::V {
    if count == S::LANES { s.load(x) } else { s.load_part(&x[..count]) }
}
