//! Patches in CUDA: `kernels/patchify.cu`, over the view of the pixels that the patches are.

use super::{PatchOrder, Patchify, PixelLayout};
use crate::backend::cuda::{Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::walk::{MAX_INDEX, Walk};

/// The row of a dtype of pixels and one of patches.
macro_rules! row {
    ($name:literal, $from:ident, $to:ident) => {
        Kernel::new($name, |op, _| supports(op, DType::$from, DType::$to), launch).takes(&[Takes::Strided])
    };
}

impl Kernels<Cuda> for Patchify {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        row!("patchify_f32_f32__sm80", F32, F32),
        row!("patchify_f32_bf16__sm80", F32, BF16),
        row!("patchify_f32_f16__sm80", F32, F16),
        row!("patchify_u8_f32__sm80", U8, F32),
        row!("patchify_u8_bf16__sm80", U8, BF16),
        row!("patchify_u8_f16__sm80", U8, F16),
    ];
}

fn supports(op: &Patchify, from: DType, to: DType) -> Result<(), Unsupported> {
    Unsupported::require("pixels and patches of this kernel's dtypes", op.dtype == from && op.out == to)?;
    let values = op.batch * op.grid().iter().product::<usize>() * op.patch_len();
    Unsupported::at_most("values", values, MAX_INDEX)
}

fn launch(k: &Kernel<Cuda, Patchify>, op: &Patchify, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let strides = l.layout(0).strides;
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
    let call = l.call(k.name, ptx!("patchify")).pointer(l.input(0)).pointer(l.input(1)).pointer(l.input(2));
    let walk = Walk::of(grid.into_iter().chain(patch));
    walk.launch(call.pointer(l.output(0)), op.scale.0, (l.input(0), op.dtype), op.out)
}
