//! Patches to planes in CUDA: `kernels/patchify.cu`, over the view of the patches that the planes are.

use super::Unpatchify;
use crate::backend::cuda::{Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::walk::MAX_INDEX;

impl Kernels<Cuda> for Unpatchify {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        Kernel::new("unpatchify_f32__sm80", |op, _| supports(op, DType::F32), launch).takes(&[Takes::Strided]),
        Kernel::new("unpatchify_bf16__sm80", |op, _| supports(op, DType::BF16), launch).takes(&[Takes::Strided]),
        Kernel::new("unpatchify_f16__sm80", |op, _| supports(op, DType::F16), launch).takes(&[Takes::Strided]),
    ];
}

fn supports(op: &Unpatchify, from: DType) -> Result<(), Unsupported> {
    Unsupported::require("patches of this kernel's dtype", op.dtype == from)?;
    Unsupported::at_most("values", op.batch * op.channels * op.frames * op.height * op.width, MAX_INDEX)
}

fn launch(k: &Kernel<Cuda, Unpatchify>, op: &Unpatchify, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let walk = op.walk(l.layout(0).strides);
    let call = l.call(k.name, ptx!("patchify")).pointer(l.input(0)).pointer(l.output(0));
    walk.launch(call, 1.0, (l.input(0), op.dtype), DType::F32)
}
