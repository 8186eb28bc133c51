//! Patches to planes in WGSL: `shaders/patchify.wgsl`, over the view of the patches that the planes are.

use super::{PatchOrder, Unpatchify};
use crate::backend::wgpu::{Bind, Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::walk::Walk;

impl Kernels<Wgpu> for Unpatchify {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("unpatchify__wgsl", always, launch).takes(&[Takes::Strided])];
}

fn launch(k: &Kernel<Wgpu, Unpatchify>, op: &Unpatchify, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let (out, [batch, patch, value, ..]) = (l.output(0), l.layout(0).strides);
    let [grid_t, grid_h, grid_w] = op.grid();
    // From value to value of a patch along channels, frames, rows and columns.
    let (c, x) = match op.order {
        PatchOrder::ChannelFirst => (op.tubelet * op.patch_h * op.patch_w * value, value),
        PatchOrder::ChannelLast => (value, op.channels * value),
    };
    let (f, y) = (op.patch_h * op.patch_w * x, op.patch_w * x);
    let dims = [
        [op.batch, batch],
        [op.channels, c],
        [grid_t, grid_h * grid_w * patch],
        [op.tubelet, f],
        [grid_h, grid_w * patch],
        [op.patch_h, y],
        [grid_w, patch],
        [op.patch_w, x],
    ];
    let walk = Walk::of(dims.map(|[n, stride]| [n, stride, 0, 0]));
    l.call(k.name, shader!("patchify", "dtype", "walk", "flat"))
        .dtype("x_dtype", op.dtype)
        .constant("walk_quads", walk.has_quads(out.offset()))
        .bind(l.input(0))
        .bind(Bind::NONE)
        .bind(Bind::NONE)
        .bind(out)
        .params(&[walk.rank, 0, 0])
        .params(&walk.dims)
        .params(&walk.strides[0])
        .params(&walk.strides[1])
        .dispatch_flat(out, DType::F32)
}
