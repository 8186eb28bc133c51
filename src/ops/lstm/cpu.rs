//! The recurrence of an LSTM on the CPU.
//!
//! Layout: `gates` [batch, len, 4·hidden] and `w_hh` [4·hidden, hidden] with contiguous rows at any distance, all else
//! contiguous.
//!
//! Algorithm: one step after the other. A part of a step is `UNITS` units of the state for all sequences: the four rows of
//! a unit meet h of each sequence (so a row is read from memory once for all), then the gates are vectors of units. What
//! parts hold is gathered between steps, into `h` that the next step reads. Steps with fewer than `SMALL` products are
//! not worth waking threads for.
//!
//! Workspace, f32: h [batch][hidden], and for each part [batch][c, h, four sums][UNITS]. Bound: reading w_hh once a step,
//! from the cache that holds it.

use super::Lstm;
use crate::backend::cpu::simd::{Lane, Simd, math};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for Lstm {
    const KERNELS: &'static [Kernel<Cpu, Self>] =
        isa_rows![("lstm", supports, launch).takes(&[Takes::Rows, Takes::Rows]).workspace(workspace)];
}

/// Units of a part: a multiple of the widest vector.
const UNITS: usize = 32;
/// Values that a part holds for a sequence.
const HELD: usize = 6 * UNITS;
/// Products of a step below which one thread takes it all.
const SMALL: usize = 1 << 16;

fn supports<S: Simd>(_: &Lstm, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn workspace(op: &Lstm, _: &Caps) -> usize {
    op.batch * (op.hidden + op.hidden.div_ceil(UNITS) * HELD) * size_of::<f32>()
}

fn launch<S: Simd>(_: &Kernel<Cpu, Lstm>, op: &Lstm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    if op.batch * op.hidden > 0 {
        with_float!(op.dtype, T => steps::<S, T>(s, op, l));
    }
    Ok(())
}

/// What a part reads.
#[derive(Clone, Copy)]
struct Step<'a, T> {
    /// The gates of all sequences at this step, [4·hidden] each, `gates_stride` apart.
    gates: &'a [f32],
    gates_stride: usize,
    w_hh: &'a [T],
    w_stride: usize,
    h: &'a [f32],
    hidden: usize,
}

fn steps<S: Simd, T: Lane>(s: S, op: &Lstm, l: &mut Launch<'_, Cpu>) {
    let (gates, [gates_stride, t_stride, ..]) = (l.input::<f32>(0), l.layout(0).strides);
    let (w_hh, w_stride, hidden) = (l.input::<T>(1), l.layout(1).strides[0], op.hidden);
    let (h, held) = l.scratch::<f32>().split_at_mut(op.batch * hidden);
    let (Some(out), Some(h_out), Some(c_out)) = (l.output::<f32>(0), l.output::<f32>(1), l.output::<f32>(2)) else {
        return;
    };
    match l.optional::<f32>(2) {
        Some(h0) => h.copy_from_slice(h0),
        None => h.fill(0.0),
    }
    held.fill(0.0);
    if let Some(c0) = l.optional::<f32>(3) {
        each(op, held, |at, held| held[..at.len()].copy_from_slice(&c0[at]));
    }
    let part_len = op.batch * HELD;
    for step in 0..op.len {
        let t = if op.reverse { op.len - 1 - step } else { step };
        let read = Step { gates: &gates[t * t_stride..], gates_stride, w_hh, w_stride, h, hidden };
        let work = |i: usize, held: &mut [f32]| part(s, &read, i * UNITS, held);
        if 4 * hidden * hidden * op.batch < SMALL {
            held.chunks_exact_mut(part_len).enumerate().for_each(|(i, held)| work(i, held));
        } else {
            l.pool().chunks_mut(held, part_len, work);
        }
        each(op, held, |at, held| h[at.clone()].copy_from_slice(&held[UNITS..][..at.len()]));
        for (b, h) in h.chunks_exact(hidden).enumerate() {
            out[(b * op.len + t) * hidden..][..hidden].copy_from_slice(h);
        }
    }
    h_out.copy_from_slice(h);
    each(op, held, |at, held| c_out[at.clone()].copy_from_slice(&held[..at.len()]));
}

/// Hands on what each part holds for each sequence, and the places [batch, hidden] that it is for.
fn each(op: &Lstm, held: &mut [f32], mut work: impl FnMut(std::ops::Range<usize>, &mut [f32])) {
    for (i, held) in held.chunks_exact_mut(HELD).enumerate() {
        let (b, first) = (i % op.batch, i / op.batch * UNITS);
        let end = op.hidden.min(first + UNITS);
        work(b * op.hidden + first..b * op.hidden + end, held);
    }
}

simd_fn! {
    /// One step of `UNITS` units (at the end fewer) from `first` on, for all sequences.
    fn part[S, T: Lane](s, step: &Step<'_, T>, first: usize, held: &mut [f32]) {
        let hidden = step.hidden;
        let units = UNITS.min(hidden - first);
        for u in 0..units {
            let rows = [0, 1, 2, 3].map(|gate| &step.w_hh[(gate * hidden + first + u) * step.w_stride..][..hidden]);
            for (held, h) in held.chunks_exact_mut(HELD).zip(step.h.chunks_exact(hidden)) {
                for (sums, sum) in held[2 * UNITS..].chunks_exact_mut(UNITS).zip(dot4(s, h, rows)) {
                    sums[u] = sum;
                }
            }
        }
        for (b, held) in held.chunks_exact_mut(HELD).enumerate() {
            let gates = &step.gates[b * step.gates_stride..][..4 * hidden];
            let (c, rest) = held.split_at_mut(UNITS);
            let (h, sums) = rest.split_at_mut(UNITS);
            for from in (0..units).step_by(S::LANES) {
                let to = units.min(from + S::LANES);
                let mut pre = [s.zero(); 4];
                for (gate, pre) in pre.iter_mut().enumerate() {
                    let x = s.load_part(&gates[gate * hidden + first + from..][..to - from]);
                    *pre = s.add(x, s.load_part(&sums[gate * UNITS + from..][..to - from]));
                }
                let [i, f, g, o] = pre;
                let kept = s.mul(math::sigmoid(s, f), s.load_part(&c[from..to]));
                let cell = s.fma(math::sigmoid(s, i), math::tanh(s, g), kept);
                s.store_part(cell, &mut c[from..to]);
                s.store_part(s.mul(math::sigmoid(s, o), math::tanh(s, cell)), &mut h[from..to]);
            }
        }
    }
}

/// Four dot products with the same left side.
#[inline(always)]
fn dot4<S: Simd, T: Lane>(s: S, x: &[f32], rows: [&[T]; 4]) -> [f32; 4] {
    let mut acc = [[s.zero(); 2]; 4];
    let whole = x.len() - x.len() % (2 * S::LANES);
    for at in (0..whole).step_by(2 * S::LANES) {
        let (x0, x1) = (s.load(&x[at..]), s.load(&x[at + S::LANES..]));
        for (acc, row) in acc.iter_mut().zip(rows) {
            acc[0] = s.fma(x0, T::load(s, &row[at..]), acc[0]);
            acc[1] = s.fma(x1, T::load(s, &row[at + S::LANES..]), acc[1]);
        }
    }
    for at in (whole..x.len()).step_by(S::LANES) {
        let to = x.len().min(at + S::LANES);
        let x = s.load_part(&x[at..to]);
        for (acc, row) in acc.iter_mut().zip(rows) {
            acc[0] = s.fma(x, T::load_part(s, &row[at..to]), acc[0]);
        }
    }
    acc.map(|a| s.sum(s.add(a[0], a[1])))
}

#[cfg(test)]
mod tests {
    use crate::ops::lstm::*;
    use crate::{Device, Tensor};

    #[test]
    fn a_layer_goes_on_where_it_stopped() {
        let d = Device::cpu_with_threads(2).unwrap();
        let (batch, len, inputs, hidden) = (2, 6, 5, 7);
        let values = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin() * 0.5).collect::<Vec<f32>>();
        let tensor =
            |shape: &[usize], step: f32| Tensor::from_slice(&d, &values(shape.iter().product(), step), shape).unwrap();
        let (w_ih, w_hh) = (tensor(&[4 * hidden, inputs], 0.7), tensor(&[4 * hidden, hidden], 1.3));
        let biases = (tensor(&[4 * hidden], 0.9), tensor(&[4 * hidden], 0.4));
        let weights = Weights { w_ih: &w_ih, w_hh: &w_hh, biases: Some((&biases.0, &biases.1)) };
        let x = tensor(&[batch, len, inputs], 0.31);
        let whole = lstm(&x, &weights, None, false).unwrap();
        let head = lstm(&x.slice(1, 0..2).unwrap(), &weights, None, false).unwrap();
        let tail = lstm(&x.slice(1, 2..len).unwrap(), &weights, Some((&head.h, &head.c)), false).unwrap();
        let values = |t: &Tensor| t.contiguous().unwrap().to_vec::<f32>().unwrap();
        // The gates may come from another kernel where there are fewer steps.
        let same = |a: &Tensor, b: &Tensor| {
            assert_eq!(a.shape(), b.shape());
            values(a).iter().zip(values(b)).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{a} for {b}"));
        };
        let step = |t: &Tensor, at: usize| t.slice(1, at..at + 1).unwrap().contiguous().unwrap();
        let state = |t: &Tensor| t.reshape(&[batch, 1, hidden]).unwrap();
        same(&whole.out.slice(1, 2..len).unwrap(), &tail.out);
        same(&whole.h, &tail.h);
        same(&whole.c, &tail.c);
        assert_eq!(values(&step(&whole.out, len - 1)), values(&state(&whole.h)));
        let reverse = lstm(&x, &weights, None, true).unwrap();
        assert_eq!(values(&step(&reverse.out, 0)), values(&state(&reverse.h)));
        let first = lstm(&x.slice(1, len - 1..len).unwrap(), &weights, None, false).unwrap();
        same(&step(&reverse.out, len - 1), &first.out);

        assert!(lstm(&x, &Weights { w_hh: &w_ih, ..weights }, None, false).is_err());
        assert!(lstm(&x, &weights, Some((&head.h, &x)), false).is_err());
    }
}
