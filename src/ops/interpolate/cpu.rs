//! Resampling on the CPU. `x` and `out` are contiguous, either way round.
//!
//! Algorithm: the taps of each axis are computed once, in f64. A line of the result is made by itself: first down, the taps'
//! lines of `x` times their weights into a line of f32 that stays in L1 (vectors along the line); then across, for each
//! pixel its taps: with channels last vectors over channels, else one pixel at a time. Lines are spread over threads
//! in parts of about 16 KiB of output.
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
    let (down, across) = (Axis::new(op, op.in_h, op.out_h), Axis::new(op, op.in_w, op.out_w));
    let inner = if op.channels_last { op.channels } else { 1 };
    let (given, wanted) = (op.in_w * inner, op.out_w * inner);
    let lines = (4096 / wanted).max(1);
    l.pool().chunks_mut(out, lines * wanted, |i, out| {
        let mut blend = vec![0f32; if op.mode == Mode::Nearest { 0 } else { given }];
        for (j, out) in out.chunks_exact_mut(wanted).enumerate() {
            let (plane, y) = ((i * lines + j) / op.out_h, (i * lines + j) % op.out_h);
            let line = |y: usize| &x[(plane * op.in_h + y) * given..][..given];
            let taps = y * down.taps..(y + 1) * down.taps;
            if op.mode == Mode::Nearest {
                let line = line(down.points[y]);
                if inner == 1 {
                    for (out, &at) in out.iter_mut().zip(&across.points) {
                        *out = line[at];
                    }
                } else {
                    for (out, &at) in out.chunks_exact_mut(inner).zip(&across.points) {
                        out.copy_from_slice(&line[at * inner..][..inner]);
                    }
                }
                continue;
            }
            for (t, (&y, &w)) in down.points[taps.clone()].iter().zip(&down.weights[taps]).enumerate() {
                accumulate(s, w, line(y), t == 0, &mut blend);
            }
            let pixels = across.points.chunks_exact(across.taps).zip(across.weights.chunks_exact(across.taps));
            if inner == 1 {
                for (out, (points, weights)) in out.iter_mut().zip(pixels) {
                    *out = points.iter().zip(weights).map(|(&p, &w)| w * blend[p]).sum();
                }
            } else {
                for (out, (points, weights)) in out.chunks_exact_mut(inner).zip(pixels) {
                    for (t, (&p, &w)) in points.iter().zip(weights).enumerate() {
                        accumulate(s, w, &blend[p * inner..][..inner], t == 0, out);
                    }
                }
            }
        }
    });
    Ok(())
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
