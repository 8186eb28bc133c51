//! Rotary embeddings in WGSL: `shaders/rope.wgsl`.

use super::{Pairs, Rope};
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Wgpu> for Rope {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[Kernel::new("rope__wgsl", always, launch).takes(&[Takes::Rows])];
}

fn launch(k: &Kernel<Wgpu, Rope>, op: &Rope, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let (layout, out) = (*l.layout(0), l.output(0));
    let [batch, place, head, ..] = layout.strides;
    let part = if op.pairs == Pairs::Halves { op.rotary_dim / 2 } else { op.rotary_dim };
    let quads = [op.head_dim, part, batch, place, head, layout.offset, out.offset()];
    // The pairs of axis a begin behind those of all before; axes that do not exist behind all.
    let begin = |axis: usize| op.sections.iter().take(axis).sum::<usize>();
    l.call(k.name, shader!("rope", "dtype", "math", "flat"))
        .dtype("x_dtype", op.dtype)
        .dtype("positions_dtype", op.positions)
        .constant("interleaved", op.pairs == Pairs::Interleaved)
        .constant("several", op.sections.len() > 1)
        .constant("quads", quads.iter().all(|n| n.is_multiple_of(4)))
        .bind(l.input(0))
        .bind(l.input(1))
        .bind(l.input(2))
        .bind(out)
        .params(&[op.len, op.heads, op.head_dim, batch, place, head, op.positions_batch])
        .params(&[begin(1), begin(2), op.rotary_dim])
        .param_f32(op.factor.0)
        .param_f32(op.sine_factor())
        .dispatch_flat(out, op.out)
}
