//! Patches in WGSL: `shaders/patchify.wgsl`, over the view of the pixels that the patches are.

use super::Patchify;
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Wgpu> for Patchify {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("patchify__wgsl", always, launch).takes(&[Takes::Strided])];
}

fn launch(k: &Kernel<Wgpu, Patchify>, op: &Patchify, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let (out, walk) = (l.output(0), op.walk(l.layout(0).strides));
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
