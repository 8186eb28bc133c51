//! Adding up rows in WGSL: `shaders/scatter_add.wgsl`.

use super::ScatterAdd;
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::Op;

impl Kernels<Wgpu> for ScatterAdd {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[Kernel::new("scatter_add__wgsl", always, launch)
        .takes(&[Takes::Rows])
        .workspace(|op, _| (op.count + op.n) * size_of::<u32>())];
}

/// Invocations of a workgroup.
const WORKGROUP: usize = 256;

fn launch(k: &Kernel<Wgpu, ScatterAdd>, op: &ScatterAdd, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let limit = if op.ids == DType::I32 { op.count.min(1 << 31) } else { op.count };
    for (entry, items) in [("clear", op.count), ("link", op.n), ("add", op.count * op.width)] {
        l.call(k.name, shader!("scatter_add", "dtype", "faults"))
            .entry(entry)
            .dtype("x_dtype", op.dtype)
            .bind(l.input(0))
            .bind(l.input(1))
            .bind(l.output(0))
            .bind(l.scratch())
            .faults(ScatterAdd::NAME)
            .params(&[op.count, op.width, op.n, l.layout(0).strides[0], limit])
            .dispatch_many(items.div_ceil(WORKGROUP))?;
    }
    Ok(())
}
