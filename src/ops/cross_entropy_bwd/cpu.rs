//! The gradient of cross-entropy on the CPU.
//!
//! Layout: `logits` [rows, classes] with contiguous rows at any distance, all else contiguous.
//!
//! Labels are checked first. Threads take rows, about 16 Ki logits at a time: e^(x - lse) times the sum of both gradients,
//! and then the gradient of the loss is taken from the label's place. Bound: memory, one read and one write; the
//! exponential costs about 15 instructions per vector.

use super::CrossEntropyBwd;
use crate::backend::cpu::simd::{Lane, Simd, math};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::labels::Labels;
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for CrossEntropyBwd {
    const KERNELS: &'static [Kernel<Cpu, Self>] =
        isa_rows![("cross_entropy_bwd", supports, launch).takes(&[Takes::Rows])];
}

/// Logits of a part.
const PART: usize = 16384;

fn supports<S: Simd>(_: &CrossEntropyBwd, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, CrossEntropyBwd>, op: &CrossEntropyBwd, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let labels = Labels::new("cross_entropy_bwd", l, 1, op.labels, op.ignore, op.classes)?;
    with_float!(op.dtype, T => rows::<S, T>(s, op, &labels, l));
    Ok(())
}

fn rows<S: Simd, T: Lane>(s: S, op: &CrossEntropyBwd, labels: &Labels<'_>, l: &mut Launch<'_, Cpu>) {
    let (logits, stride) = (l.input::<T>(0), l.layout(0).strides[0]);
    let (weights, lse) = (l.optional::<f32>(2), l.input::<f32>(3));
    let (grad_loss, grad_lse) = (l.input::<f32>(4), l.optional::<f32>(5));
    let Some(out) = l.output::<f32>(0) else { return };
    if out.is_empty() {
        return;
    }
    let rows = (PART / op.classes).max(1);
    l.pool().chunks_mut(out, rows * op.classes, |part, out| {
        for (i, out) in out.chunks_exact_mut(op.classes).enumerate() {
            let row = part * rows + i;
            let Some(class) = labels.class(row) else {
                out.fill(0.0);
                continue;
            };
            let g = weights.map_or(1.0, |weights| weights[row]) * grad_loss[row];
            let both = g + grad_lse.map_or(0.0, |grad| grad[row]);
            scaled_softmax(s, &logits[row * stride..][..op.classes], lse[row], both, out);
            out[class] -= g;
        }
    });
}

simd_fn! {
    /// e^(x - lse) · factor
    fn scaled_softmax[S, T: Lane](s, x: &[T], lse: f32, factor: f32, out: &mut [f32]) {
        let (lse, factor) = (s.splat(lse), s.splat(factor));
        let (x, x_tail) = x.split_at(x.len() - x.len() % S::LANES);
        let (out, out_tail) = out.split_at_mut(x.len());
        for (x, out) in x.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
            s.store(s.mul(math::exp(s, s.sub(T::load(s, x), lse)), factor), out);
        }
        s.store_part(s.mul(math::exp(s, s.sub(T::load_part(s, x_tail), lse)), factor), out_tail);
    }
}
