//! The gradient of row normalisations on the CPU.
//!
//! Layout: `x`, `dout`, `scale`, `dsum` have contiguous rows at any distance; `weight` [cols] and the results are contiguous.
//!
//! Algorithm, passes over rows of `x` and `dout` that stay in L1: the statistics as in the forward kernel, so that they need
//! not be kept; Σ h and Σ h·(x - mean) with h = dout·gain; then dx, while dout·x̂ and dout are added to a row of partial
//! products and one of partial sums. Rows are spread over threads in parts of at least `ROWS` rows, at most `PARTS` for
//! a group; each part has partial rows of its own in the workspace, which a second pass adds up in order.
//!
//! Bound: memory (two reads, one write) for wide rows, the six passes over L1 for narrow ones.

use super::{DOUT, DSUM, NormBwd, SCALE, WEIGHT, X};
use crate::backend::cpu::simd::{Lane, Simd};
use crate::backend::cpu::{Caps, Cpu, Pool};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::norm::cpu::{sum, sum_squares};
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};
use std::sync::{Mutex, PoisonError};

impl Kernels<Cpu> for NormBwd {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![
        ("norm_bwd", supports, launch)
            .takes(&[Takes::Rows, Takes::Rows, Takes::Contiguous, Takes::Rows, Takes::Rows])
            .workspace(|op, _| partials(op) * 4)
    ];
}

/// Rows of a part, at least: the partial rows are written once in this many.
const ROWS: usize = 8;
/// Parts of a group, at most: bounds the workspace.
const PARTS: usize = 128;
/// Columns that a part of the second pass adds up.
const COLUMNS: usize = 512;

fn supports<S: Simd>(_: &NormBwd, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

/// Rows of a part; parts never span groups.
fn part_rows(op: &NormBwd) -> usize {
    let group = op.rows / op.groups;
    (8192 / op.cols.max(1)).max(ROWS).max(group.div_ceil(PARTS)).min(group).max(1)
}

/// Parts of a group.
fn parts(op: &NormBwd) -> usize {
    (op.rows / op.groups).div_ceil(part_rows(op))
}

/// Elements of the workspace: a row of products and one of sums for each part.
fn partials(op: &NormBwd) -> usize {
    if op.products || op.sums { op.groups * parts(op) * 2 * op.cols } else { 0 }
}

fn launch<S: Simd>(_: &Kernel<Cpu, NormBwd>, op: &NormBwd, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.dtype, T => all_rows::<S, T>(s, op, l));
    Ok(())
}

fn all_rows<S: Simd, T: Lane>(s: S, op: &NormBwd, l: &mut Launch<'_, Cpu>) {
    let (cols, pool) = (op.cols, l.pool());
    let (x, dout) = (l.input::<T>(X), l.input::<f32>(DOUT));
    let (weight, scale, dsum) = (l.optional::<f32>(WEIGHT), l.optional::<f32>(SCALE), l.optional::<f32>(DSUM));
    let stride = |i: usize| l.inputs[i].as_ref().map_or(0, |arg| arg.layout.strides[0]);
    let strides = [X, DOUT, SCALE, DSUM].map(stride);
    let scratch = l.scratch::<f32>();
    let (Some(dx), products, sums) = (l.output::<f32>(0), l.output::<f32>(1), l.output::<f32>(2)) else { return };
    if cols == 0 {
        return;
    }
    let (rows, group_rows, group_parts) = (part_rows(op), op.rows / op.groups, parts(op));
    let partials = &mut scratch[..partials(op)];
    partials.fill(0.0);
    let mut partial_rows = partials.chunks_exact_mut(2 * cols);
    let cut = dx.chunks_mut((group_rows * cols).max(1)).flat_map(|group| group.chunks_mut(rows * cols));
    let cut: Vec<_> = cut.map(|dx| Mutex::new((dx, partial_rows.next().unwrap_or_default()))).collect();
    pool.run(cut.len(), |i| {
        let mut part = cut[i].lock().unwrap_or_else(PoisonError::into_inner);
        let (dx, partial) = &mut *part;
        let (group, first) = (i / group_parts, i / group_parts * group_rows + i % group_parts * rows);
        let mut gain = weight.map_or_else(|| vec![1.0; cols], <[f32]>::to_vec);
        if let Some(scale) = scale {
            gain.iter_mut().zip(&scale[group * strides[2]..]).for_each(|(gain, scale)| *gain *= 1.0 + scale);
        }
        for (j, dx) in dx.chunks_exact_mut(cols).enumerate() {
            let i = first + j;
            let (x, dout) = (&x[i * strides[0]..][..cols], &dout[i * strides[1]..][..cols]);
            let dsum = dsum.map(|dsum| &dsum[i * strides[3]..][..cols]);
            row(s, x, dout, &gain, dsum, op.centred, op.eps.0, dx, partial);
        }
    });
    drop(cut);
    for (which, out) in [products, sums].into_iter().enumerate() {
        if let Some(out) = out {
            add_up(pool, out, cols, group_parts, partials, which * cols);
        }
    }
}

/// `out` [groups, cols]: the sum of the parts' partial rows, which begin at `from` in each pair of them.
fn add_up(pool: &Pool, out: &mut [f32], cols: usize, parts: usize, partials: &[f32], from: usize) {
    let pieces = cols.div_ceil(COLUMNS);
    let cut: Vec<_> = out.chunks_mut(cols).flat_map(|row| row.chunks_mut(COLUMNS)).map(Mutex::new).collect();
    pool.run(cut.len(), |i| {
        let mut out = cut[i].lock().unwrap_or_else(PoisonError::into_inner);
        out.fill(0.0);
        for part in 0..parts {
            let at = (i / pieces * parts + part) * 2 * cols + from + i % pieces * COLUMNS;
            let row = &partials[at..at + out.len()];
            out.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
        }
    });
}

/// A whole vector, or the values that there are.
#[inline(always)]
fn load<S: Simd, T: Lane>(s: S, x: &[T]) -> S::V {
    if x.len() == S::LANES { T::load(s, x) } else { T::load_part(s, x) }
}

#[inline(always)]
fn store<S: Simd>(s: S, v: S::V, to: &mut [f32]) {
    if to.len() == S::LANES { s.store(v, to) } else { s.store_part(v, to) }
}

simd_fn! {
    /// One row; `partial` is a row of products and one of sums, or empty where nobody wants them.
    fn row[S, T: Lane](
        s, x: &[T], dout: &[f32], gain: &[f32], dsum: Option<&[f32]>, centred: bool, eps: f32, dx: &mut [f32],
        partial: &mut [f32],
    ) {
        let (count, cols) = (x.len() as f32, x.len());
        let mean = if centred { sum(s, x) / count } else { 0.0 };
        let inverse = 1.0 / (sum_squares(s, x, mean) / count + eps).sqrt();
        // A vector's places, fewer or none at the end.
        let span = |at: usize| at.min(cols)..(at + S::LANES).min(cols);
        let m = s.splat(mean);
        let (mut h_sums, mut along) = ([s.zero(); 2], [s.zero(); 2]);
        for at in (0..cols).step_by(2 * S::LANES) {
            for (j, (h_sum, along)) in h_sums.iter_mut().zip(&mut along).enumerate() {
                let here = span(at + j * S::LANES);
                let h = s.mul(load(s, &dout[here.clone()]), load(s, &gain[here.clone()]));
                *h_sum = s.add(*h_sum, h);
                // Beyond the end h is 0.
                *along = s.fma(h, s.sub(load(s, &x[here]), m), *along);
            }
        }
        let h_mean = if centred { s.sum(s.add(h_sums[0], h_sums[1])) / count } else { 0.0 };
        let along = s.sum(s.add(along[0], along[1])) * inverse / count;
        let (inv, h_mean, along) = (s.splat(inverse), s.splat(h_mean), s.splat(along));
        let (products, sums) = partial.split_at_mut(partial.len() / 2);
        for at in (0..cols).step_by(S::LANES) {
            let (d, gain) = (load(s, &dout[span(at)]), load(s, &gain[span(at)]));
            let normed = s.mul(s.sub(load(s, &x[span(at)]), m), inv);
            let mut v = s.mul(s.fnma(normed, along, s.sub(s.mul(d, gain), h_mean)), inv);
            if let Some(dsum) = dsum {
                v = s.add(v, load(s, &dsum[span(at)]));
            }
            store(s, v, &mut dx[span(at)]);
            if !sums.is_empty() {
                let product = s.fma(d, normed, load(s, &products[span(at)]));
                store(s, product, &mut products[span(at)]);
                let sum = s.add(d, load(s, &sums[span(at)]));
                store(s, sum, &mut sums[span(at)]);
            }
        }
    }
}
