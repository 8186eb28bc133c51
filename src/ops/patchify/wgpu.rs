//! Patches in WGSL: `shaders/patchify.wgsl`, over the view of the pixels that the patches are.

use super::{PatchOrder, Patchify, PixelLayout};
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::walk::Walk;

impl Kernels<Wgpu> for Patchify {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("patchify__wgsl", always, launch).takes(&[Takes::Strided])];
}

fn launch(k: &Kernel<Wgpu, Patchify>, op: &Patchify, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let (out, strides) = (l.output(0), l.layout(0).strides);
    let [b, c, t, y, x] = match op.layout {
        PixelLayout::Planar => std::array::from_fn(|d| strides[d]),
        PixelLayout::Interleaved => [0, 4, 1, 2, 3].map(|d| strides[d]),
    };
    // Extent, and strides of the pixels and of the channels.
    let [grid_t, grid_h, grid_w] = op.grid();
    let grid = [
        [op.batch, b, 0, 0],
        [grid_t, op.tubelet * t, 0, 0],
        [grid_h, op.patch_h * y, 0, 0],
        [grid_w, op.patch_w * x, 0, 0],
    ];
    let channel = [op.channels, c, usize::from(op.normalised), 0];
    let [frame, row, column] = [[op.tubelet, t, 0, 0], [op.patch_h, y, 0, 0], [op.patch_w, x, 0, 0]];
    let patch = match op.order {
        PatchOrder::ChannelFirst => [channel, frame, row, column],
        PatchOrder::ChannelLast => [frame, row, column, channel],
    };
    let walk = Walk::of(grid.into_iter().chain(patch));
    l.call(k.name, shader!("patchify", "dtype", "walk", "flat"))
        .dtype("x_dtype", op.dtype)
        .constant("normalised", op.normalised)
        .constant("walk_quads", walk.has_quads(out.offset()))
        .bind(l.input(0))
        .bind(l.input(1))
        .bind(l.input(2))
        .bind(out)
        .param(walk.rank)
        .param_f32(op.scale.0)
        .param(0)
        .params(&walk.dims)
        .params(&walk.strides[0])
        .params(&walk.strides[1])
        .dispatch_flat(out, op.out)
}
