//! Softmax on the CPU, a row at a time.
//!
//! Layout: `x` [rows, cols] with contiguous rows at any distance, `out` contiguous.
//!
//! Algorithm, three passes over a row that stays in L1: the maximum; 2^((x - m)·log2 e) into the result, summed; a scaling
//! by 1/sum. Rows are spread over threads in chunks of about 16 KiB of output; a row is never split.
//!
//! Bound: memory (one read, one write); the exponential costs about 10 instructions per vector.

use super::Softmax;
use crate::backend::cpu::simd::{Lane, Simd, math};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_lane;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for Softmax {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("softmax", supports, launch).takes(&[Takes::Rows])];
}

fn supports<S: Simd>(_: &Softmax, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, Softmax>, op: &Softmax, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_lane!(op.dtype, T => {
        let (x, stride) = (l.input::<T>(0), l.layout(0).strides[0]);
        let Some(out) = l.output::<T>(0) else { return Ok(()) };
        if op.cols == 0 {
            return Ok(());
        }
        let rows = (4096 / op.cols).max(1);
        l.pool().chunks_mut(out, rows * op.cols, |i, out| {
            for (j, out) in out.chunks_exact_mut(op.cols).enumerate() {
                let first = (i * rows + j) * stride;
                softmax_row(s, &x[first..first + op.cols], out);
            }
        });
    });
    Ok(())
}

simd_fn! {
    /// One row. Maxima and sums are carried per lane and folded at the end, in a fixed order.
    fn softmax_row[S, T: Lane](s, x: &[T], out: &mut [T]) {
        let (body, tail) = x.split_at(x.len() - x.len() % S::LANES);
        let lowest = s.splat(f32::NEG_INFINITY);
        let mut largest = lowest;
        for v in body.chunks_exact(S::LANES) {
            largest = s.max(largest, T::load(s, v));
        }
        let mut m = s.max_lane(largest);
        for v in tail {
            m = m.max(v.to_f64() as f32);
        }
        if m == f32::NEG_INFINITY {
            out.fill(<T as bytemuck::Zeroable>::zeroed());
            return;
        }
        let (scale, shift) = (s.splat(std::f32::consts::LOG2_E), s.splat(m));
        let mut sums = s.zero();
        let (out_body, out_tail) = out.split_at_mut(body.len());
        // Exponentials of narrow types are computed twice rather than rounded before they are summed.
        for (v, o) in body.chunks_exact(S::LANES).zip(out_body.chunks_exact_mut(S::LANES)) {
            let e = math::exp2(s, s.mul(s.sub(T::load(s, v), shift), scale));
            sums = s.add(sums, e);
            if T::DTYPE == crate::DType::F32 {
                T::store(s, e, o);
            }
        }
        let tail_e = math::exp2(s, s.mul(s.sub(T::load_part(s, tail), shift), scale));
        let mut kept = [0f32; crate::backend::cpu::simd::MAX_LANES];
        s.store(tail_e, &mut kept);
        let sum = s.sum(sums) + kept[..tail.len()].iter().sum::<f32>();
        let inverse = s.splat(1.0 / sum);
        for (v, o) in body.chunks_exact(S::LANES).zip(out_body.chunks_exact_mut(S::LANES)) {
            let e = match T::DTYPE {
                crate::DType::F32 => T::load(s, o),
                _ => math::exp2(s, s.mul(s.sub(T::load(s, v), shift), scale)),
            };
            T::store(s, s.mul(e, inverse), o);
        }
        T::store_part(s, s.mul(tail_e, inverse), out_tail);
    }
}
