//! Few rows of lhs against a plain rhs whose rows are not contiguous: a matrix [k, n] as it lies, seen transposed.
//!
//! A part of the work is `COLUMNS` columns of the result. It sweeps over k: `STEPS` values of k at a time, a vector of rhs
//! meets each row of lhs, whose sums lie in L1 (8 KiB for four rows) and are loaded and stored once for all of them. What is
//! `AHEAD` steps further on is asked for early, since each step is another place of memory. Where columns are no neighbours
//! either, vectors are gathered.
//!
//! Bound: reading rhs once. For more rows of lhs packing pays.

use super::epilogue::{self, Epilogue, Rows};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd, fetch_near};
use crate::backend::cpu::{Aligned, Caps, Cpu};
use crate::backend::{Kernel, Launch};
use crate::dtype::Format;
use crate::error::{Result, Unsupported};
use crate::ops::gemm::Gemm;
use crate::ops::with_float;
use crate::simd_fn;

/// The most rows of lhs.
const MOST_ROWS: usize = 4;
/// Columns of a part.
const COLUMNS: usize = 512;
/// Values of k at a time, and how many are asked for ahead.
const STEPS: usize = 4;
const AHEAD: usize = 8;

pub(super) fn supports<S: Simd>(op: &Gemm, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)?;
    Unsupported::at_most("rows", op.m, MOST_ROWS)?;
    Unsupported::require("a plain rhs", op.format == Format::Plain)
}

pub(super) fn launch<S: Simd>(_: &Kernel<Cpu, Gemm>, op: &Gemm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.lhs, L => with_float!(op.rhs, R => with_float!(op.out, O => run::<S, L, R, O>(s, op, l))));
    Ok(())
}

fn run<S: Simd, L: Lane, R: Lane, O: Lane>(s: S, op: &Gemm, l: &mut Launch<'_, Cpu>) {
    let strides = |i: usize, batch: usize| {
        let s = l.layout(i).strides;
        if batch > 1 { [s[0], s[1], s[2]] } else { [0, s[0], s[1]] }
    };
    let (ls, rs) = (strides(0, op.batch), strides(1, op.rhs_batch));
    let (lhs, rhs) = (l.input::<L>(0), l.input::<R>(1));
    let e =
        Epilogue { bias: l.optional(2), activation: op.activation, residual: l.optional(3), gated: op.gated, n: op.n };
    let pool = l.pool();
    let Some(out) = l.output::<O>(0).filter(|out| !out.is_empty()) else { return };
    let out = Rows::new(out, op.n);
    let blocks = op.n.div_ceil(COLUMNS);
    pool.run(op.batch * blocks, |part| {
        let (b, left) = (part / blocks, part % blocks * COLUMNS);
        let right = (left + COLUMNS).min(op.n);
        let rhs = Columns { values: rhs, from: b * rs[0], column: rs[1], step: rs[2] };
        let value = |row: usize, p: usize| lhs[b * ls[0] + row * ls[1] + p * ls[2]].to_f64() as f32;
        let mut acc = Aligned([0f32; MOST_ROWS * 2 * COLUMNS]);
        let panel = if op.gated { S::LANES } else { 2 * S::LANES };
        let acc = &mut acc.0[..(right - left).div_ceil(panel) * op.m * 2 * S::LANES];
        for from in (0..op.k).step_by(STEPS) {
            let count = STEPS.min(op.k - from);
            let mut x = [[0f32; STEPS]; MOST_ROWS];
            for (row, x) in x.iter_mut().enumerate().take(op.m) {
                x[..count].iter_mut().zip(from..).for_each(|(x, p)| *x = value(row, p));
            }
            sweep(s, op, rhs, &x[..op.m], from..from + count, left..right, acc);
        }
        for (i, acc) in acc.chunks_exact(op.m * 2 * S::LANES).enumerate() {
            epilogue::store(s, &e, acc, b * op.m, left + i * panel, right, &out);
        }
    });
}

/// rhs of one product: value `p` of column `j` is `values[from + j · column + p · step]`.
#[derive(Clone, Copy)]
struct Columns<'a, R> {
    values: &'a [R],
    from: usize,
    column: usize,
    step: usize,
}

impl<R: Lane> Columns<'_, R> {
    /// Value `p` of `count` columns, of which `j` is the first.
    #[inline(always)]
    fn vector<S: Simd>(self, s: S, p: usize, j: usize, count: usize) -> S::V {
        let at = self.from + j * self.column + p * self.step;
        if self.column == 1 && count == S::LANES {
            fetch_near(self.values.as_ptr().wrapping_add(at + AHEAD * self.step).cast());
            return R::load(s, &self.values[at..at + S::LANES]);
        }
        let mut some = [<R as bytemuck::Zeroable>::zeroed(); MAX_LANES];
        for (i, some) in some[..count].iter_mut().enumerate() {
            *some = self.values[at + i * self.column];
        }
        R::load(s, &some)
    }
}

simd_fn! {
    /// Adds the products of some values of k to `acc`: for each two vectors of columns (gates and values) all rows.
    fn sweep[S, R: Lane](
        s, op: &Gemm, rhs: Columns<'_, R>, x: &[[f32; STEPS]], k: std::ops::Range<usize>, columns: std::ops::Range<usize>,
        acc: &mut [f32],
    ) {
        let (panel, halves) = if op.gated { (S::LANES, op.n) } else { (2 * S::LANES, S::LANES) };
        for (left, acc) in columns.clone().step_by(panel).zip(acc.chunks_exact_mut(x.len() * 2 * S::LANES)) {
            for v in 0..2 {
                let from = left + v * halves;
                let count = if op.gated { columns.end - left } else { columns.end.saturating_sub(from) }.min(S::LANES);
                let mut b = [s.zero(); STEPS];
                for (b, p) in b.iter_mut().zip(k.clone()) {
                    *b = rhs.vector(s, p, from, count);
                }
                for (x, acc) in x.iter().zip(acc.chunks_exact_mut(2 * S::LANES)) {
                    let acc = &mut acc[v * S::LANES..(v + 1) * S::LANES];
                    let mut sum = s.load(acc);
                    for (&x, b) in x.iter().zip(b) {
                        sum = s.fma(s.splat(x), b, sum);
                    }
                    s.store(sum, acc);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::activation::Activation;
    use crate::ops::gemm::{Epilogue, linear_with};
    use crate::{Device, Tensor};

    /// `check` has columns at a distance; here they are neighbours.
    #[test]
    fn a_transposed_weight_gives_what_its_copy_gives() {
        let device = Device::cpu_with_threads(2).unwrap();
        let values = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>();
        for (m, n, k, gated) in [(1, 67, 33, false), (4, 600, 9, false), (3, 37, 30, true), (2, 530, 5, true)] {
            let (rows, activation) = if gated { (2 * n, Activation::Silu) } else { (n, Activation::None) };
            let x = Tensor::from_slice(&device, &values(m * k, 0.37), &[m, k]).unwrap();
            let weight = Tensor::from_slice(&device, &values(k * rows, 0.11), &[k, rows]).unwrap();
            let weight = weight.transpose(0, 1).unwrap();
            let bias = Tensor::from_slice(&device, &values(rows, 0.5), &[rows]).unwrap();
            let epilogue = Epilogue { bias: Some(&bias), activation, gated, ..Epilogue::default() };
            let of = |weight: &Tensor| linear_with(&x, weight, &epilogue).unwrap().to_vec::<f32>().unwrap();
            for (a, b) in of(&weight).iter().zip(of(&weight.contiguous().unwrap())) {
                assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} {b} ({m} x {n} x {k}, gated {gated})");
            }
        }
    }
}
