//! The gradient of cross-entropy in WGSL: `shaders/cross_entropy_bwd.wgsl`.

use super::CrossEntropyBwd;
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::{Op, labels};

impl Kernels<Wgpu> for CrossEntropyBwd {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("cross_entropy_bwd__wgsl", always, launch).takes(&[Takes::Rows])];
}

fn launch(k: &Kernel<Wgpu, CrossEntropyBwd>, op: &CrossEntropyBwd, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let out = l.output(0);
    let ignored = labels::ignored(op.labels, op.ignore);
    let quads = l.in_quads(0) && out.offset().is_multiple_of(4) && op.classes.is_multiple_of(4);
    l.call(k.name, shader!("cross_entropy_bwd", "dtype", "math", "faults", "labels", "flat"))
        .dtype("x_dtype", op.dtype)
        .constant("labels_signed", op.labels == DType::I32)
        .constant("ignores", ignored.is_some())
        .constant("weighted", op.weights)
        .constant("has_grad_lse", op.grad_lse)
        .constant("quads", quads)
        .bind(l.input(0))
        .bind(l.input(1))
        .bind(l.input(2))
        .bind(l.input(3))
        .bind(l.input(4))
        .bind(l.input(5))
        .bind(out)
        .faults(CrossEntropyBwd::NAME)
        .params(&[op.classes, l.row_stride(0), ignored.unwrap_or(0) as usize])
        .dispatch_flat(out, DType::F32)
}
