//! Row normalisation on the CPU: layer norm and rms norm, with residual, affine and modulation.
//!
//! Layout: `x`, `residual`, `scale`, `shift` have contiguous rows at any distance; `weight`, `bias` [cols] and the results are
//! contiguous.
//!
//! Algorithm, passes over a row that stays in L1: x + residual into the second result; the mean; Σ(x - mean)², so that
//! no digits are lost where the mean is large; (x - mean)·gain/deviation + offset. Sums run in four vectors and are
//! folded in a fixed order. A modulated row has gain = w·(1 + scale) and offset = b·(1 + scale) + shift, made once per
//! part and group. Rows are spread over threads in parts of about 32 KiB; a row is never split.
//!
//! Bound: memory (one read, one write). Tried and lost: testing for weight and bias inside the loop over a row.

use super::{BIAS, Norm, RESIDUAL, SCALE, SHIFT, WEIGHT, X};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Launch, cpu::Pool};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_lane;
use crate::simd_fn;
use std::sync::{Mutex, PoisonError};

/// What the rows of both ops take.
pub const TAKES: &[Takes] = &[Takes::Rows, Takes::Contiguous, Takes::Contiguous, Takes::Rows, Takes::Rows, Takes::Rows];

/// Elements of a part.
const PART: usize = 8192;

pub fn supports<S: Simd>(caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

/// A matrix whose rows lie at a distance.
#[derive(Clone, Copy)]
struct Rows<'a, T> {
    values: &'a [T],
    stride: usize,
    cols: usize,
}

impl<'a, T: Lane> Rows<'a, T> {
    /// An operand, if the problem has it.
    fn of(l: &Launch<'a, Cpu>, i: usize, cols: usize) -> Option<Rows<'a, T>> {
        Some(Rows { values: l.optional(i)?, stride: l.layout(i).strides[0], cols })
    }

    fn row(&self, i: usize) -> &'a [T] {
        &self.values[i * self.stride..][..self.cols]
    }
}

pub fn launch<S: Simd>(n: &Norm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    if n.rows * n.cols > 0 {
        with_lane!(n.dtype, T => with_lane!(n.out, U => all_rows::<S, T, U>(s, n, l)));
    }
    Ok(())
}

fn all_rows<S: Simd, T: Lane, U: Lane>(s: S, n: &Norm, l: &mut Launch<'_, Cpu>) {
    let cols = n.cols;
    let Some(x) = Rows::<T>::of(l, X, cols) else { return };
    let affine = Affine {
        weight: l.optional(WEIGHT),
        bias: l.optional(BIAS),
        modulation: Rows::of(l, SCALE, cols).zip(Rows::of(l, SHIFT, cols)),
    };
    let residual = Rows::<f32>::of(l, RESIDUAL, cols);
    let (Some(out), sum) = (l.output::<U>(0), l.output::<f32>(1)) else { return };
    let (rows, per_group) = ((PART / cols).max(1), n.rows / n.groups);
    let part = |first: usize, out: &mut [U], mut sum: Option<&mut [f32]>| {
        let mut combined = Combined { group: usize::MAX, gain: Vec::new(), offset: Vec::new() };
        for (j, out) in out.chunks_exact_mut(cols).enumerate() {
            let i = first + j;
            let (gain, offset) = affine.of_group(i / per_group, cols, &mut combined);
            match (residual, sum.as_deref_mut()) {
                (Some(residual), Some(sum)) => {
                    let sum = &mut sum[j * cols..(j + 1) * cols];
                    add_row(s, x.row(i), residual.row(i), sum);
                    norm_row(s, sum, n.centred, n.eps.0, gain, offset, out);
                }
                _ => norm_row(s, x.row(i), n.centred, n.eps.0, gain, offset, out),
            }
        }
    };
    match sum {
        None => l.pool().chunks_mut(out, rows * cols, |i, out| part(i * rows, out, None)),
        Some(sum) => pairs(l.pool(), out, sum, rows * cols, |i, out, sum| part(i * rows, out, Some(sum))),
    }
}

/// Chunks of two results of equal length, by the pool's threads.
fn pairs<U: Send>(
    pool: &Pool,
    a: &mut [U],
    b: &mut [f32],
    len: usize,
    work: impl Fn(usize, &mut [U], &mut [f32]) + Sync,
) {
    let parts: Vec<_> = a.chunks_mut(len).zip(b.chunks_mut(len)).map(Mutex::new).collect();
    pool.run(parts.len(), |i| {
        let mut part = parts[i].lock().unwrap_or_else(PoisonError::into_inner);
        let (a, b) = &mut *part;
        work(i, a, b);
    });
}

/// What follows the normalisation.
struct Affine<'a> {
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    modulation: Option<(Rows<'a, f32>, Rows<'a, f32>)>,
}

/// Gain and offset of one group.
struct Combined {
    group: usize,
    gain: Vec<f32>,
    offset: Vec<f32>,
}

impl<'a> Affine<'a> {
    /// A factor and an offset per column; an offset never comes without a factor.
    fn of_group<'c>(&self, group: usize, cols: usize, c: &'c mut Combined) -> (Option<&'c [f32]>, Option<&'c [f32]>)
    where
        'a: 'c,
    {
        match (self.weight, self.bias, self.modulation) {
            (weight, None, None) => return (weight, None),
            (Some(weight), Some(bias), None) => return (Some(weight), Some(bias)),
            (_, _, modulation) if c.group != group => {
                c.group = group;
                c.gain.clear();
                c.gain.extend_from_slice(self.weight.unwrap_or(&[]));
                c.gain.resize(cols, 1.0);
                c.offset.clear();
                c.offset.extend_from_slice(self.bias.unwrap_or(&[]));
                c.offset.resize(cols, 0.0);
                if let Some((scale, shift)) = modulation {
                    let gains = c.gain.iter_mut().zip(&mut c.offset);
                    for ((gain, offset), (scale, shift)) in gains.zip(scale.row(group).iter().zip(shift.row(group))) {
                        *gain *= 1.0 + scale;
                        *offset = *offset * (1.0 + scale) + shift;
                    }
                }
            }
            _ => {}
        }
        (Some(&c.gain), Some(&c.offset))
    }
}

simd_fn! {
    /// sum = x + residual.
    fn add_row[S, T: Lane](s, x: &[T], residual: &[f32], sum: &mut [f32]) {
        let body = x.len() - x.len() % S::LANES;
        let ((x, x_tail), (r, r_tail)) = (x.split_at(body), residual.split_at(body));
        let (sum, sum_tail) = sum.split_at_mut(body);
        let operands = x.chunks_exact(S::LANES).zip(r.chunks_exact(S::LANES));
        for ((x, r), sum) in operands.zip(sum.chunks_exact_mut(S::LANES)) {
            s.store(s.add(T::load(s, x), s.load(r)), sum);
        }
        s.store_part(s.add(T::load_part(s, x_tail), s.load_part(r_tail)), sum_tail);
    }
}

/// The sum of a row.
#[inline(always)]
pub fn sum<S: Simd, T: Lane>(s: S, x: &[T]) -> f32 {
    fold::<S, T, false>(s, x, 0.0)
}

/// Σ(x - mean)² of a row.
#[inline(always)]
pub fn sum_squares<S: Simd, T: Lane>(s: S, x: &[T], mean: f32) -> f32 {
    fold::<S, T, true>(s, x, mean)
}

/// Four vectors of partial sums, so that additions do not wait for each other.
#[inline(always)]
fn fold<S: Simd, T: Lane, const SQUARES: bool>(s: S, x: &[T], mean: f32) -> f32 {
    let (m, means) = (s.splat(mean), [mean; MAX_LANES]);
    let mut sums = [s.zero(); 4];
    let blocks = x.chunks_exact(4 * S::LANES);
    let rest = blocks.remainder().chunks_exact(S::LANES);
    let last = rest.remainder();
    for block in blocks {
        for (sum, v) in sums.iter_mut().zip(block.chunks_exact(S::LANES)) {
            *sum = fold_vector::<S, SQUARES>(s, *sum, T::load(s, v), m);
        }
    }
    for (sum, v) in sums.iter_mut().zip(rest) {
        *sum = fold_vector::<S, SQUARES>(s, *sum, T::load(s, v), m);
    }
    if !last.is_empty() {
        // Lanes past the end are zero less zero.
        let means = s.load_part(&means[..last.len()]);
        sums[3] = fold_vector::<S, SQUARES>(s, sums[3], T::load_part(s, last), means);
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

#[inline(always)]
fn fold_vector<S: Simd, const SQUARES: bool>(s: S, sum: S::V, v: S::V, mean: S::V) -> S::V {
    if SQUARES {
        let d = s.sub(v, mean);
        s.fma(d, d, sum)
    } else {
        s.add(sum, v)
    }
}

simd_fn! {
    /// One row; an offset never comes without a gain.
    fn norm_row[S, T: Lane, U: Lane](
        s, x: &[T], centred: bool, eps: f32, gain: Option<&[f32]>, offset: Option<&[f32]>, out: &mut [U],
    ) {
        let count = x.len() as f32;
        let mean = if centred { sum(s, x) / count } else { 0.0 };
        let (m, squares) = (s.splat(mean), sum_squares(s, x, mean));
        let inverse = s.splat(1.0 / (squares / count + eps).sqrt());
        let body = x.len() - x.len() % S::LANES;
        let ((x, x_tail), (out, out_tail)) = (x.split_at(body), out.split_at_mut(body));
        let rows = x.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES));
        match (gain, offset) {
            (Some(gain), Some(offset)) => {
                let ((g, g_tail), (o, o_tail)) = (gain.split_at(body), offset.split_at(body));
                for ((x, out), (g, o)) in rows.zip(g.chunks_exact(S::LANES).zip(o.chunks_exact(S::LANES))) {
                    U::store(s, s.fma(s.mul(s.sub(T::load(s, x), m), inverse), s.load(g), s.load(o)), out);
                }
                let y = s.fma(s.mul(s.sub(T::load_part(s, x_tail), m), inverse), s.load_part(g_tail), s.load_part(o_tail));
                U::store_part(s, y, out_tail);
            }
            (Some(gain), None) => {
                let (g, g_tail) = gain.split_at(body);
                for ((x, out), g) in rows.zip(g.chunks_exact(S::LANES)) {
                    U::store(s, s.mul(s.mul(s.sub(T::load(s, x), m), inverse), s.load(g)), out);
                }
                U::store_part(s, s.mul(s.mul(s.sub(T::load_part(s, x_tail), m), inverse), s.load_part(g_tail)), out_tail);
            }
            _ => {
                for (x, out) in rows {
                    U::store(s, s.mul(s.sub(T::load(s, x), m), inverse), out);
                }
                U::store_part(s, s.mul(s.sub(T::load_part(s, x_tail), m), inverse), out_tail);
            }
        }
    }
}
