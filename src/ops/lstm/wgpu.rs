//! The recurrence of an LSTM in WGSL: `shaders/lstm.wgsl`, a dispatch for each step.

use super::Lstm;
use crate::backend::wgpu::{Wgpu, row_lanes, shader::rows_shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Wgpu> for Lstm {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("lstm__wgsl_subgroup", |_, caps| caps.needs_subgroups(), launch::<true>).takes(&[Takes::Rows; 2]),
        Kernel::new("lstm__wgsl", always, launch::<false>).takes(&[Takes::Rows; 2]),
    ];
}

fn launch<const SUBGROUPS: bool>(k: &Kernel<Wgpu, Lstm>, op: &Lstm, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    if op.batch == 0 {
        return Ok(());
    }
    let shader = rows_shader!(SUBGROUPS, "lstm", "dtype", "math");
    let [sequences, steps, ..] = l.layout(0).strides;
    // Without a step the state is handed on.
    (0..op.len.max(1)).try_for_each(|step| {
        let place = |step: usize| if op.reverse { op.len.saturating_sub(1 + step) } else { step };
        l.call(k.name, shader)
            .dtype("w_dtype", op.dtype)
            .constant("state", op.state)
            .constant("first", step == 0)
            .constant("last", step + 1 == op.len)
            .constant("idle", op.len == 0)
            .constant("quads", l.in_quads(1))
            .constant("lanes", row_lanes(op.hidden.div_ceil(4)))
            .bind(l.input(0))
            .bind(l.input(1))
            .bind(l.input(2))
            .bind(l.input(3))
            .bind(l.output(0))
            .bind(l.output(1))
            .bind(l.output(2))
            .params(&[op.batch, op.len, op.hidden, place(step), place(step.saturating_sub(1))])
            .params(&[sequences, steps, l.row_stride(1)])
            .dispatch_many(op.hidden)
    })
}
