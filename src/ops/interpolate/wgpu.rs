//! Resampling in WGSL: `shaders/interpolate.wgsl`. The tables of taps are made here and uploaded into the workspace.

use super::Interpolate;
use super::axis::Axis;
use crate::backend::wgpu::{Caps, Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;

impl Kernels<Wgpu> for Interpolate {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("interpolate_f32__wgsl", always, launch).workspace(workspace)];
}

/// Invocations of a workgroup.
const WORKGROUP: usize = 256;

/// Words that the table of an axis takes at most.
fn table_words(op: &Interpolate, inputs: usize, outputs: usize) -> usize {
    inputs.max(outputs) + 1 + 2 * outputs * op.taps(inputs, outputs)
}

/// Values between the passes.
fn between(op: &Interpolate) -> usize {
    op.batch * op.channels * op.wanted()[0] * op.given()[1]
}

fn workspace(op: &Interpolate, _: &Caps) -> usize {
    4 * (table_words(op, op.in_h, op.out_h) + table_words(op, op.in_w, op.out_w) + between(op))
}

fn launch(k: &Kernel<Wgpu, Interpolate>, op: &Interpolate, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let ([from_h, from_w], [to_h, to_w]) = (op.given(), op.wanted());
    let (planes, inner) = if op.channels_last { (op.batch, op.channels) } else { (op.batch * op.channels, 1) };
    if planes * inner * to_h * to_w == 0 {
        return Ok(());
    }
    let first_words = table_words(op, op.in_h, op.out_h);
    let end_of_tables = first_words + table_words(op, op.in_w, op.out_w);
    let pass = |down: bool, at: usize, sizes: [usize; 2], [points, outputs, inner]: [usize; 3]| {
        let mut axis = Axis::new(op, sizes[0], sizes[1]);
        if op.adjoint {
            axis = axis.transposed(sizes[0]);
        }
        let (words, [starts, taps, weights]) = axis.words();
        l.upload_scratch(at, &words)?;
        let total = if down { between(op) } else { planes * to_h * to_w * inner };
        l.call(k.name, shader!("interpolate", "dtype"))
            .constant("down", down)
            .bind(l.input(0))
            .bind(l.output(0))
            .bind(l.scratch())
            .params(&[total, points, outputs, inner, at + starts, at + taps, at + weights, end_of_tables])
            .dispatch_many(total.div_ceil(WORKGROUP))
    };
    pass(true, 0, [op.in_h, op.out_h], [from_h, to_h, from_w * inner])?;
    pass(false, first_words, [op.in_w, op.out_w], [from_w, to_w, inner])
}
