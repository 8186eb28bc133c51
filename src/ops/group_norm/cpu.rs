//! Group norm on the CPU. `x` [batch, channels, inner] and `out` are contiguous, so that a group is one run.
//!
//! Algorithm: a group is cut into chunks of `CHUNK` elements, which stay in cache for two passes: their mean, then
//! Σ(x - mean)². The chunks of a group are merged in order, in f64 (Chan, Golub and LeVeque 1979, eq. 2.1); then every chunk
//! is read again and written as x·gain[c] + offset[c], with SiLU if asked. So a large group is read twice, not three
//! times, no digits are lost where the mean is large, and even one group keeps all threads busy.
//!
//! Bound: memory, two reads and one write; with SiLU about 12 instructions per vector.

use super::GroupNorm;
use crate::backend::cpu::simd::{Lane, Simd, math};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::ops::norm::cpu::{sum, sum_squares};
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};
use std::sync::{Mutex, PoisonError};

impl Kernels<Cpu> for GroupNorm {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("group_norm", supports, launch)];
}

/// Elements of a chunk: 32 KiB of f32.
const CHUNK: usize = 8192;

fn supports<S: Simd>(_: &GroupNorm, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, GroupNorm>, op: &GroupNorm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    if op.batch * op.group_len() > 0 {
        with_float!(op.dtype, T => with_float!(op.out, U => all_groups::<S, T, U>(s, op, l)));
    }
    Ok(())
}

fn all_groups<S: Simd, T: Lane, U: Lane>(s: S, op: &GroupNorm, l: &mut Launch<'_, Cpu>) {
    let (x, len) = (l.input::<T>(0), op.group_len());
    let affine = l.optional::<f32>(1).zip(l.optional::<f32>(2));
    let Some(out) = l.output::<U>(0) else { return };
    // Chunks per group; a chunk never spans two groups.
    let chunks = len.div_ceil(CHUNK);
    let mut moments = vec![(0f32, 0f32); op.batch * op.groups * chunks];
    let range = |i: usize| {
        let (group, chunk) = (i / chunks, i % chunks);
        (group, chunk * CHUNK..len.min((chunk + 1) * CHUNK))
    };
    l.pool().chunks_mut(&mut moments, 1, |i, moments| {
        let (group, places) = range(i);
        moments[0] = chunk_moments(s, &x[group * len..][places]);
    });
    let statistics: Vec<(f32, f32)> = moments
        .chunks_exact(chunks)
        .map(|moments| {
            let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
            for (i, &(m, sq)) in moments.iter().enumerate() {
                let n = (len - i * CHUNK).min(CHUNK) as f64;
                let delta = f64::from(m) - mean;
                squares += f64::from(sq) + delta * delta * count * n / (count + n);
                mean += delta * n / (count + n);
                count += n;
            }
            (mean as f32, (1.0 / (squares / count + f64::from(op.eps.0)).sqrt()) as f32)
        })
        .collect();
    let parts: Vec<_> = out.chunks_mut(len).flat_map(|group| group.chunks_mut(CHUNK)).map(Mutex::new).collect();
    l.pool().run(parts.len(), |i| {
        let mut out = parts[i].lock().unwrap_or_else(PoisonError::into_inner);
        let (group, places) = range(i);
        let (mean, inverse) = statistics[group];
        let x = &x[group * len..][places.clone()];
        // The chunk, cut where channels end.
        let mut at = places.start;
        while at < places.end {
            let end = places.end.min((at / op.inner + 1) * op.inner);
            let c = group % op.groups * (op.channels / op.groups) + at / op.inner;
            let (gain, offset) = affine.map_or((1.0, 0.0), |(weight, bias)| (weight[c], bias[c]));
            let here = at - places.start..end - places.start;
            finish_run(s, &x[here.clone()], [mean, inverse * gain, offset], op.silu, &mut out[here]);
            at = end;
        }
    });
}

simd_fn! {
    /// Mean and Σ(x - mean)².
    fn chunk_moments[S, T: Lane](s, x: &[T]) -> (f32, f32) {
        let mean = sum(s, x) / x.len() as f32;
        (mean, sum_squares(s, x, mean))
    }
}

simd_fn! {
    /// `(x - mean)·gain + offset` of places of one channel, with SiLU if asked.
    fn finish_run[S, T: Lane, U: Lane](s, x: &[T], map: [f32; 3], silu: bool, out: &mut [U]) {
        let [m, g, o] = map.map(|v| s.splat(v));
        let body = x.len() - x.len() % S::LANES;
        let ((x, x_tail), (out, out_tail)) = (x.split_at(body), out.split_at_mut(body));
        let runs = x.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES));
        if silu {
            for (x, out) in runs {
                U::store(s, with_silu(s, s.fma(s.sub(T::load(s, x), m), g, o)), out);
            }
            U::store_part(s, with_silu(s, s.fma(s.sub(T::load_part(s, x_tail), m), g, o)), out_tail);
        } else {
            for (x, out) in runs {
                U::store(s, s.fma(s.sub(T::load(s, x), m), g, o), out);
            }
            U::store_part(s, s.fma(s.sub(T::load_part(s, x_tail), m), g, o), out_tail);
        }
    }
}

/// y·σ(y).
#[inline(always)]
fn with_silu<S: Simd>(s: S, y: S::V) -> S::V {
    s.div(y, s.add(s.splat(1.0), math::exp2(s, s.mul(y, s.splat(-std::f32::consts::LOG2_E)))))
}
