//! Reductions on the CPU.
//!
//! Layout: `x` [outer, len, inner] contiguous, `out` [outer, inner].
//!
//! Algorithm: `len` is cut into segments; a first pass reduces each segment to [outer, segments, inner], a second one
//! the segments. Both cut their results, taken flat, into parts for the threads. Where `inner` is 1 a segment is a row
//! read along: four vectors of sums, folded at the end. Else vectors of columns are walked down the segment.
//! Sums of columns are kept in blocks of `BLOCK_ROWS`, whose sums are added: the error grows like that of
//! len / BLOCK_ROWS summands, where the plain loop's grows like that of len.
//!
//! Bound: memory, one read. Columns: four vectors (256 bytes with AVX-512) of each row at a time, so that several lines
//! of a page are used while it is at hand.

use super::{Kind, Reduce};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd, math};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for Reduce {
    const KERNELS: &'static [Kernel<Cpu, Self>] =
        isa_rows![("reduce", supports, launch).workspace(|op, _| Cut::new(op).partials(op) * 4)];
}

/// Values of a row's segment.
const ROW_SEGMENT: usize = 32768;
/// Rows of a segment of columns.
const COLUMN_SEGMENT: usize = 1024;
/// Rows whose sums are kept apart.
const BLOCK_ROWS: usize = 64;
/// Values that a part reads, at least.
const PART: usize = 32768;
/// Columns of a part, at least.
const COLUMNS: usize = 256;

/// The cut of a problem.
struct Cut {
    segment: usize,
    segments: usize,
    /// Results of a part of the first pass.
    part: usize,
}

impl Cut {
    fn new(op: &Reduce) -> Cut {
        let segment = if op.inner == 1 { ROW_SEGMENT } else { COLUMN_SEGMENT }.min(op.len.max(1));
        let part = (PART / segment).max(if op.inner == 1 { 1 } else { COLUMNS });
        Cut { segment, segments: op.len.div_ceil(segment).max(1), part }
    }

    /// Results of the first pass, where there is a second.
    fn partials(&self, op: &Reduce) -> usize {
        if self.segments > 1 { op.outer * self.segments * op.inner } else { 0 }
    }
}

fn supports<S: Simd>(_: &Reduce, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, Reduce>, op: &Reduce, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.dtype, T => match op.kind {
        Kind::Sum | Kind::Mean => passes::<S, T, SUM>(s, op, l),
        Kind::Norm2 => passes::<S, T, SQUARES>(s, op, l),
        Kind::Max => passes::<S, T, MAX>(s, op, l),
        Kind::Min => passes::<S, T, MIN>(s, op, l),
    });
    Ok(())
}

const SUM: u8 = 0;
const SQUARES: u8 = 1;
const MAX: u8 = 2;
const MIN: u8 = 3;

fn passes<S: Simd, T: Lane, const K: u8>(s: S, op: &Reduce, l: &mut Launch<'_, Cpu>) {
    let (x, cut) = (l.input::<T>(0), Cut::new(op));
    let partials = l.scratch::<f32>();
    let Some(out) = l.output::<f32>(0) else { return };
    if op.inner == 0 || op.outer == 0 {
        return;
    }
    let last = match op.kind {
        Kind::Mean => |v: f32, len: usize| v / len as f32,
        Kind::Norm2 => |v: f32, _| v.sqrt(),
        _ => |v: f32, _| v,
    };
    let first_pass = |out: &mut [f32], last: &(dyn Fn(&mut f32) + Sync)| {
        l.pool().chunks_mut(out, cut.part, |part, out| {
            pieces(op.inner, part * cut.part, out, |row, column, out| {
                let (o, segment) = (row / cut.segments, row % cut.segments);
                let from = segment * cut.segment;
                let rows = cut.segment.min(op.len - from);
                let x = &x[(o * op.len + from) * op.inner..][..rows * op.inner];
                match op.inner {
                    1 => out[0] = along::<S, T, K>(s, x),
                    inner => down::<S, T, K>(s, x, inner, column, out),
                }
            });
            out.iter_mut().for_each(last);
        });
    };
    if cut.segments == 1 {
        return first_pass(out, &|v| *v = last(*v, op.len));
    }
    let partials = &mut partials[..cut.partials(op)];
    first_pass(partials, &|_| {});
    // What was squared in the first pass is only added in the second.
    let combine = |a: f32, b: f32| if K == SQUARES { a + b } else { scalar::<K>(a, b) };
    l.pool().chunks_mut(out, PART, |part, out| {
        pieces(op.inner, part * PART, out, |o, column, out| {
            for segment in 0..cut.segments {
                let from = &partials[(o * cut.segments + segment) * op.inner + column..];
                for (v, &p) in out.iter_mut().zip(from) {
                    *v = if segment == 0 { p } else { combine(*v, p) };
                }
            }
            out.iter_mut().for_each(|v| *v = last(*v, op.len));
        });
    });
}

/// Calls `work(row, column, piece)` for the pieces of single rows that a run of a [rows, cols] array consists of.
fn pieces(cols: usize, first: usize, mut run: &mut [f32], mut work: impl FnMut(usize, usize, &mut [f32])) {
    let (mut row, mut column) = (first / cols, first % cols);
    while !run.is_empty() {
        let piece;
        (piece, run) = run.split_at_mut((cols - column).min(run.len()));
        work(row, column, piece);
        (row, column) = (row + 1, 0);
    }
}

/// What the reduction of nothing is.
const fn neutral<const K: u8>() -> f32 {
    match K {
        MAX => f32::NEG_INFINITY,
        MIN => f32::INFINITY,
        _ => 0.0,
    }
}

#[inline(always)]
fn scalar<const K: u8>(all: f32, v: f32) -> f32 {
    match K {
        SUM => all + v,
        SQUARES => v * v + all,
        // A NaN compares with nothing: it is taken, and stays.
        MAX if all >= v || all.is_nan() => all,
        MIN if all <= v || all.is_nan() => all,
        _ => v,
    }
}

#[inline(always)]
fn vector<S: Simd, const K: u8>(s: S, all: S::V, v: S::V) -> S::V {
    match K {
        SUM => s.add(all, v),
        SQUARES => s.fma(v, v, all),
        MAX => math::maximum(s, all, v),
        _ => math::minimum(s, all, v),
    }
}

/// The reductions of two sets of values: what was squared is only added.
#[inline(always)]
fn join<S: Simd, const K: u8>(s: S, a: S::V, b: S::V) -> S::V {
    if K == SQUARES { s.add(a, b) } else { vector::<S, K>(s, a, b) }
}

simd_fn! {
    /// The reduction of a run.
    fn along[S, T: Lane; const K: u8](s, x: &[T]) -> f32 {
        let nothing = s.splat(neutral::<K>());
        let mut all = [nothing; 4];
        let mut fours = x.chunks_exact(4 * S::LANES);
        for four in &mut fours {
            for (all, v) in all.iter_mut().zip(four.chunks_exact(S::LANES)) {
                *all = vector::<S, K>(s, *all, T::load(s, v));
            }
        }
        let mut ones = fours.remainder().chunks_exact(S::LANES);
        for v in &mut ones {
            all[0] = vector::<S, K>(s, all[0], T::load(s, v));
        }
        let [a, b, c, d] = all;
        let mut lanes = [0f32; MAX_LANES];
        s.store(join::<S, K>(s, join::<S, K>(s, a, b), join::<S, K>(s, c, d)), &mut lanes);
        let folded = match K {
            SUM | SQUARES => s.sum(s.load(&lanes)),
            _ => lanes[..S::LANES].iter().fold(neutral::<K>(), |m, &v| scalar::<K>(m, v)),
        };
        ones.remainder().iter().fold(folded, |m, v| scalar::<K>(m, v.to_f64() as f32))
    }
}

simd_fn! {
    /// The reductions of the columns `column..column + out.len()` of rows of `cols` values.
    fn down[S, T: Lane; const K: u8](s, x: &[T], cols: usize, column: usize, out: &mut [f32]) {
        let wide = 4 * S::LANES;
        let (body, tail) = out.split_at_mut(out.len() - out.len() % wide);
        let nothing = s.splat(neutral::<K>());
        for (i, out) in body.chunks_exact_mut(wide).enumerate() {
            let at = column + i * wide;
            let mut total = [nothing; 4];
            for block in x.chunks(BLOCK_ROWS * cols) {
                let mut all = [nothing; 4];
                for row in block.chunks_exact(cols) {
                    let row = &row[at..at + wide];
                    for (all, v) in all.iter_mut().zip(row.chunks_exact(S::LANES)) {
                        *all = vector::<S, K>(s, *all, T::load(s, v));
                    }
                }
                for (total, all) in total.iter_mut().zip(all) {
                    *total = join::<S, K>(s, *total, all);
                }
            }
            for (out, total) in out.chunks_exact_mut(S::LANES).zip(total) {
                s.store(total, out);
            }
        }
        let at = column + body.len();
        for (i, out) in tail.chunks_mut(S::LANES).enumerate() {
            let at = at + i * S::LANES;
            let mut total = nothing;
            for block in x.chunks(BLOCK_ROWS * cols) {
                let mut all = nothing;
                for row in block.chunks_exact(cols) {
                    all = vector::<S, K>(s, all, T::load_part(s, &row[at..at + out.len()]));
                }
                total = join::<S, K>(s, total, all);
            }
            s.store_part(total, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::reduce::*;
    use crate::{Device, Tensor};

    #[test]
    fn dimensions_stay_with_extent_one() {
        let d = Device::cpu_with_threads(2).unwrap();
        let x: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let x = Tensor::from_slice(&d, &x, &[2, 3, 4]).unwrap();
        let s = sum(&x, 1).unwrap();
        assert_eq!(s.shape(), [2, 1, 4]);
        assert_eq!(s.to_vec::<f32>().unwrap(), [12.0, 15.0, 18.0, 21.0, 48.0, 51.0, 54.0, 57.0]);
        assert_eq!(max(&x.permute(&[2, 0, 1]).unwrap(), 2).unwrap().to_vec::<f32>().unwrap()[..3], [8.0, 20.0, 9.0]);
        assert_eq!(mean(&x, 2).unwrap().to_vec::<f32>().unwrap()[1], 5.5);
        assert!(sum(&x, 3).is_err());
        assert!(max(&Tensor::zeros(&d, DType::F32, &[2, 0]).unwrap(), 1).is_err());
        assert!("reduce(outer=18446744073709551615,len=2)".parse::<Reduce>().is_err());
    }

    #[test]
    fn extremes_of_rows_with_nan_are_nan() {
        let d = Device::cpu_with_threads(1).unwrap();
        for (at, len) in [(0, 1), (5, 9), (63, 64), (64, 65), (99, 500), (3, 40000), (39999, 40000)] {
            let mut x = vec![1.0f32; len];
            x[at] = f32::NAN;
            for shape in [[1, len, 1], [1, len, 1]] {
                let x = Tensor::from_slice(&d, &x, &shape).unwrap();
                assert!(max(&x, 1).unwrap().to_vec::<f32>().unwrap()[0].is_nan(), "{at} of {len}");
                assert!(min(&x, 1).unwrap().to_vec::<f32>().unwrap()[0].is_nan(), "{at} of {len}");
            }
        }
    }
}
