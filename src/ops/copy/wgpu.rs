//! Copies in WGSL: `shaders/copy.wgsl`.

use super::Copy;
use crate::backend::wgpu::{Wgpu, always, shader::shader};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::walk::Walk;

impl Kernels<Wgpu> for Copy {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("copy__wgsl", always, launch).takes(&[Takes::Strided])];
}

fn launch(k: &Kernel<Wgpu, Copy>, op: &Copy, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let walk = Walk::new([Some(*l.layout(0)), None, None]);
    let out = l.output(0);
    l.call(k.name, shader!("copy", "dtype", "walk", "flat"))
        .constant("x_run", walk.is_run(0, l.layout(0).offset) && out.offset().is_multiple_of(4))
        .bind(l.input(0))
        .bind(out)
        .params(&[walk.rank, 0, 0])
        .params(&Walk::words(&walk.dims))
        .params(&Walk::words(&walk.strides[0]))
        .dispatch_flat(out, op.dtype)
}
