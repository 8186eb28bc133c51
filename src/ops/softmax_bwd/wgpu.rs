//! The gradient of softmax in WGSL: `shaders/softmax_bwd.wgsl`.

use super::SoftmaxBwd;
use crate::backend::wgpu::{Wgpu, row_lanes, shader::rows_shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Wgpu> for SoftmaxBwd {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("softmax_bwd__wgsl_subgroup", |_, caps| caps.needs_subgroups(), launch::<true>)
            .takes(&[Takes::Rows; 2]),
        Kernel::new("softmax_bwd__wgsl", always, launch::<false>).takes(&[Takes::Rows; 2]),
    ];
}

fn launch<const SUBGROUPS: bool>(
    k: &Kernel<Wgpu, SoftmaxBwd>,
    op: &SoftmaxBwd,
    l: &mut Launch<'_, Wgpu>,
) -> Result<()> {
    if op.cols == 0 {
        return Ok(());
    }
    let shader = rows_shader!(SUBGROUPS, "softmax_bwd", "dtype");
    l.call(k.name, shader)
        .dtype("y_dtype", op.dtype)
        .constant("quads", l.in_quads(0) && l.in_quads(1))
        .constant("lanes", row_lanes(op.cols.div_ceil(4)))
        .bind(l.input(0))
        .bind(l.input(1))
        .bind(l.output(0))
        .params(&[op.rows, op.cols, l.row_stride(0), l.row_stride(1)])
        .dispatch_many(op.rows)
}
