//! Padding and folding in WGSL: `shaders/pad.wgsl`.

use super::Pad;
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Wgpu> for Pad {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[Kernel::new("pad__wgsl", always, launch).takes(&[Takes::Strided])];
}

fn launch(k: &Kernel<Wgpu, Pad>, op: &Pad, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let ([outer, z, y, x, ..], out) = (l.layout(0).strides, l.output(0));
    // In uniforms three numbers take the place of four.
    let triple = |[z, y, x]: [usize; 3]| [z, y, x, 0];
    l.call(k.name, shader!("pad", "dtype", "flat"))
        .constant("padding", op.padding as u32)
        .constant("fold", op.fold)
        .bind(l.input(0))
        .bind(out)
        .params(&[outer, 0, 0])
        .params(&triple([z, y, x]))
        .params(&triple(*op.size))
        .params(&triple(*op.before))
        .params(&triple(op.padded()))
        .dispatch_flat(out, op.dtype)
}
