//! Cross-entropy in WGSL: `shaders/cross_entropy.wgsl`.

use super::CrossEntropy;
use crate::backend::wgpu::{Wgpu, row_lanes, shader::rows_shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::{Op, labels};

impl Kernels<Wgpu> for CrossEntropy {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("cross_entropy__wgsl_subgroup", |_, caps| caps.needs_subgroups(), launch::<true>)
            .takes(&[Takes::Rows]),
        Kernel::new("cross_entropy__wgsl", always, launch::<false>).takes(&[Takes::Rows]),
    ];
}

fn launch<const SUBGROUPS: bool>(
    k: &Kernel<Wgpu, CrossEntropy>,
    op: &CrossEntropy,
    l: &mut Launch<'_, Wgpu>,
) -> Result<()> {
    let shader = rows_shader!(SUBGROUPS, "cross_entropy", "dtype", "math", "faults", "labels");
    let ignored = labels::ignored(op.labels, op.ignore);
    l.call(k.name, shader)
        .dtype("x_dtype", op.dtype)
        .constant("labels_signed", op.labels == DType::I32)
        .constant("ignores", ignored.is_some())
        .constant("weighted", op.weights)
        .constant("quads", l.in_quads(0))
        .constant("lanes", row_lanes(op.classes.div_ceil(4)))
        .bind(l.input(0))
        .bind(l.input(1))
        .bind(l.input(2))
        .bind(l.output(0))
        .bind(l.output(1))
        .faults(CrossEntropy::NAME)
        .params(&[op.rows, op.classes, l.row_stride(0), ignored.unwrap_or(0) as usize])
        .dispatch_many(op.rows)
}
