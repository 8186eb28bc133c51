//! The gradient of softmax on the CPU, a row at a time.
//!
//! Layout: `y` and `dy` [rows, cols] with contiguous rows at any distance, `dx` contiguous.
//!
//! Algorithm, two passes over rows that stay in L1: Σ y·dy in four vectors, folded in a fixed order; y·(dy - Σ). Rows are
//! spread over threads in chunks of about 16 KiB of output; a row is never split. Bound: memory (two reads, one write).

use super::SoftmaxBwd;
use crate::backend::cpu::simd::{Lane, Simd};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for SoftmaxBwd {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("softmax_bwd", supports, launch).takes(&[Takes::Rows; 2])];
}

fn supports<S: Simd>(_: &SoftmaxBwd, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, SoftmaxBwd>, op: &SoftmaxBwd, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.dtype, T => {
        let (y, dy) = (l.input::<T>(0), l.input::<f32>(1));
        let (y_stride, dy_stride) = (l.layout(0).strides[0], l.layout(1).strides[0]);
        let Some(dx) = l.output::<f32>(0) else { return Ok(()) };
        if dx.is_empty() {
            return Ok(());
        }
        let rows = (4096 / op.cols).max(1);
        l.pool().chunks_mut(dx, rows * op.cols, |part, dx| {
            for (j, dx) in dx.chunks_exact_mut(op.cols).enumerate() {
                let i = part * rows + j;
                row(s, &y[i * y_stride..][..op.cols], &dy[i * dy_stride..][..op.cols], dx);
            }
        });
    });
    Ok(())
}

simd_fn! {
    fn row[S, T: Lane](s, y: &[T], dy: &[f32], dx: &mut [f32]) {
        let body = y.len() - y.len() % S::LANES;
        let ((y, y_tail), (dy, dy_tail)) = (y.split_at(body), dy.split_at(body));
        let (dx, dx_tail) = dx.split_at_mut(body);
        let (y_last, dy_last) = (T::load_part(s, y_tail), s.load_part(dy_tail));
        let mut sums = [s.mul(y_last, dy_last), s.zero(), s.zero(), s.zero()];
        for (y, dy) in y.chunks(4 * S::LANES).zip(dy.chunks(4 * S::LANES)) {
            for (sum, (y, dy)) in sums.iter_mut().zip(y.chunks_exact(S::LANES).zip(dy.chunks_exact(S::LANES))) {
                *sum = s.fma(T::load(s, y), s.load(dy), *sum);
            }
        }
        let sum = s.splat(s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]))));
        let rows = y.chunks_exact(S::LANES).zip(dy.chunks_exact(S::LANES));
        for ((y, dy), dx) in rows.zip(dx.chunks_exact_mut(S::LANES)) {
            s.store(s.mul(T::load(s, y), s.sub(s.load(dy), sum)), dx);
        }
        s.store_part(s.mul(y_last, s.sub(dy_last, sum)), dx_tail);
    }
}
