//! Softmax in WGSL: `shaders/softmax.wgsl`.

use super::Softmax;
use crate::backend::wgpu::{Wgpu, row_lanes, shader::rows_shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Wgpu> for Softmax {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("softmax__wgsl_subgroup", |_, caps| caps.needs_subgroups(), launch::<true>).takes(&[Takes::Rows]),
        Kernel::new("softmax__wgsl", always, launch::<false>).takes(&[Takes::Rows]),
    ];
}

fn launch<const SUBGROUPS: bool>(k: &Kernel<Wgpu, Softmax>, op: &Softmax, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    if op.cols == 0 {
        return Ok(());
    }
    let shader = rows_shader!(SUBGROUPS, "softmax", "dtype", "math", "row_out");
    l.call(k.name, shader)
        .dtype("x_dtype", op.dtype)
        .dtype("out_dtype", op.dtype)
        .constant("lanes", row_lanes(op.cols))
        .bind(l.input(0))
        .bind(l.output(0))
        .params(&[op.rows, op.cols, l.layout(0).strides[0]])
        .dispatch_many(op.rows)
}
