//! Casts in WGSL: `shaders/cast.wgsl`.

use super::Cast;
use crate::backend::wgpu::{Wgpu, always, shader::shader};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::walk::Walk;

impl Kernels<Wgpu> for Cast {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("cast__wgsl", always, launch).takes(&[Takes::Strided])];
}

fn launch(k: &Kernel<Wgpu, Cast>, op: &Cast, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let walk = Walk::new([Some(*l.layout(0)), None, None]);
    let out = l.output(0);
    l.call(k.name, shader!("cast", "dtype", "walk", "flat"))
        .dtype("x_dtype", op.from)
        .constant("x_run", walk.is_run(0, l.layout(0).offset) && out.offset().is_multiple_of(4))
        .constant("walk_quads", walk.has_quads(out.offset()))
        .bind(l.input(0))
        .bind(out)
        .params(&[walk.rank, 0, 0])
        .params(&Walk::words(&walk.dims))
        .params(&Walk::words(&walk.strides[0]))
        .dispatch_flat(out, op.to)
}
