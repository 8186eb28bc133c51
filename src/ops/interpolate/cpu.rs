//! Resampling on the CPU. `x` and `out` are contiguous, either way round.
//!
//! Algorithm: the taps of each axis are computed once, in f64. A line of the result is made by itself: first down, the taps'
//! lines of `x` times their weights into a line of f32 that stays in L1 (vectors along the line); then across, for each
//! pixel its taps: with channels last vectors over channels, else one pixel at a time. Lines are spread over threads
//! in parts of about 16 KiB of output. The adjoint is the same with the taps of the transposed maps, so that it gathers too.
//!
//! Bound: the taps across where pixels are single values (a load and a multiply-add each), else memory. Enlarging by
//! first going across would do that for fewer lines, at the price of a plane of scratch memory and a barrier.

use super::axis::Axis;
use super::{Interpolate, Mode};
use crate::backend::cpu::simd::Simd;
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for Interpolate {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("interpolate", supports, launch)];
}

fn supports<S: Simd>(_: &Interpolate, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, Interpolate>, op: &Interpolate, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let x = l.input::<f32>(0);
    let Some(out) = l.output::<f32>(0) else { return Ok(()) };
    if out.is_empty() {
        return Ok(());
    }
    let (mut down, mut across) = (Axis::new(op, op.in_h, op.out_h), Axis::new(op, op.in_w, op.out_w));
    if op.adjoint {
        (down, across) = (down.transposed(op.in_h), across.transposed(op.in_w));
    }
    let inner = if op.channels_last { op.channels } else { 1 };
    let ([from_h, from_w], [to_h, to_w]) = (op.given(), op.wanted());
    let (given, wanted) = (from_w * inner, to_w * inner);
    let lines = (4096 / wanted).max(1);
    let copies = op.mode == Mode::Nearest && !op.adjoint;
    l.pool().chunks_mut(out, lines * wanted, |i, out| {
        let mut blend = vec![0f32; if copies { 0 } else { given }];
        for (j, out) in out.chunks_exact_mut(wanted).enumerate() {
            let (plane, y) = ((i * lines + j) / to_h, (i * lines + j) % to_h);
            let line = |y: usize| &x[(plane * from_h + y) * given..][..given];
            let (points, weights) = down.taps(y);
            if copies {
                let line = line(points[0]);
                for (x, out) in out.chunks_exact_mut(inner).enumerate() {
                    out.copy_from_slice(&line[across.taps(x).0[0] * inner..][..inner]);
                }
                continue;
            }
            blend_of(s, points.iter().map(|&y| line(y)).zip(weights), &mut blend);
            if inner == 1 {
                for (x, out) in out.iter_mut().enumerate() {
                    let (points, weights) = across.taps(x);
                    *out = points.iter().zip(weights).map(|(&p, &w)| w * blend[p]).sum();
                }
            } else {
                for (x, out) in out.chunks_exact_mut(inner).enumerate() {
                    let (points, weights) = across.taps(x);
                    blend_of(s, points.iter().map(|&p| &blend[p * inner..][..inner]).zip(weights), out);
                }
            }
        }
    });
    Ok(())
}

/// out = Σ w·x; zeros of nothing.
fn blend_of<'a, S: Simd>(s: S, mut taps: impl Iterator<Item = (&'a [f32], &'a f32)>, out: &mut [f32]) {
    match taps.next() {
        Some((x, &w)) => accumulate(s, w, x, true, out),
        None => out.fill(0.0),
    }
    taps.for_each(|(x, &w)| accumulate(s, w, x, false, out));
}

simd_fn! {
    /// out = w·x, or out + w·x unless it is the `first`.
    fn accumulate[S](s, w: f32, x: &[f32], first: bool, out: &mut [f32]) {
        let w = s.splat(w);
        let body = x.len() - x.len() % S::LANES;
        let ((x, x_tail), (out, out_tail)) = (x.split_at(body), out.split_at_mut(body));
        let vectors = x.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES));
        if first {
            for (x, out) in vectors {
                s.store(s.mul(w, s.load(x)), out);
            }
            s.store_part(s.mul(w, s.load_part(x_tail)), out_tail);
        } else {
            for (x, out) in vectors {
                s.store(s.fma(w, s.load(x), s.load(out)), out);
            }
            s.store_part(s.fma(w, s.load_part(x_tail), s.load_part(out_tail)), out_tail);
        }
    }
}
