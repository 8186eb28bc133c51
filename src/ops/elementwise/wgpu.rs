//! Elementwise functions in WGSL: `shaders/elementwise.wgsl`.

use super::Elementwise;
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::walk::Walk;

impl Kernels<Wgpu> for Elementwise {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("elementwise__wgsl", always, launch).takes(&[Takes::Strided; 3])];
}

fn launch(k: &Kernel<Wgpu, Elementwise>, op: &Elementwise, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let n = op.kind.operands();
    let walk = Walk::new(std::array::from_fn(|i| (i < n).then(|| *l.layout(i))));
    let out = l.output(0);
    // Quads start at multiples of four where the result does.
    let run = |i: usize| i < n && walk.is_run(i, l.layout(i).offset) && out.offset().is_multiple_of(4);
    l.call(k.name, shader!("elementwise", "dtype", "math", "walk", "flat"))
        .dtype("x_dtype", op.dtype)
        .constant("kind", op.kind as u32)
        .constant("operands", n as u32)
        .constant("x_run", run(0))
        .constant("y_run", run(1))
        .constant("z_run", run(2))
        .constant("walk_quads", walk.has_quads(out.offset()))
        .bind(l.input(0))
        .bind(l.input(1))
        .bind(l.input(2))
        .bind(out)
        .param(walk.rank)
        .param_f32(op.a.0)
        .param_f32(op.b.0)
        .params(&walk.dims)
        .params(&walk.strides[0])
        .params(&walk.strides[1])
        .params(&walk.strides[2])
        .dispatch_flat(out, op.out)
}
