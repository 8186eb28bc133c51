//! Patches to planes in WGSL: `shaders/patchify.wgsl`, over the view of the patches that the planes are.

use super::Unpatchify;
use crate::backend::wgpu::{Bind, Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Wgpu> for Unpatchify {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("unpatchify__wgsl", always, launch).takes(&[Takes::Strided])];
}

fn launch(k: &Kernel<Wgpu, Unpatchify>, op: &Unpatchify, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let (out, walk) = (l.output(0), op.walk(l.layout(0).strides));
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
