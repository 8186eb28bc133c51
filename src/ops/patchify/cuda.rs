//! Patches in CUDA: `kernels/patchify.cu`, over the view of the pixels that the patches are.

use super::Patchify;
use crate::backend::cuda::{Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::walk::MAX_INDEX;

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
    let call = l.call(k.name, ptx!("patchify")).pointer(l.input(0)).pointer(l.input(1)).pointer(l.input(2));
    let walk = op.walk(l.layout(0).strides);
    walk.launch(call.pointer(l.output(0)), op.scale.0, (l.input(0), op.dtype), op.out)
}
