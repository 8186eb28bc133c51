//! The place of the largest value in WGSL: `shaders/argmax.wgsl`.

use super::Argmax;
use crate::backend::wgpu::{Bind, Caps, Wgpu, row_lanes, segments, shader::rows_shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Wgpu> for Argmax {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("argmax__wgsl_subgroup", |_, caps| caps.needs_subgroups(), launch::<true>)
            .takes(&[Takes::Rows])
            .workspace(workspace),
        Kernel::new("argmax__wgsl", always, launch::<false>).takes(&[Takes::Rows]).workspace(workspace),
    ];
}

/// The length and number of segments of a row.
fn cut(op: &Argmax) -> (usize, usize) {
    segments(op.cols, op.rows)
}

/// A number and a place for each segment, where there are several.
fn workspace(op: &Argmax, _: &Caps) -> usize {
    let (_, segments) = cut(op);
    if segments > 1 { op.rows * segments * 8 } else { 0 }
}

fn launch<const SUBGROUPS: bool>(k: &Kernel<Wgpu, Argmax>, op: &Argmax, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = rows_shader!(SUBGROUPS, "argmax", "dtype", "order");
    let (segment, segments) = cut(op);
    let several = segments > 1;
    let pass = |from_found: bool, to_found: bool, cols: usize, segment: usize, segments: usize| {
        l.call(k.name, shader)
            .dtype("x_dtype", op.dtype)
            .constant("quads", l.in_quads(0))
            .constant("from_found", from_found)
            .constant("to_found", to_found)
            .constant("lanes", row_lanes(segment.min(cols).div_ceil(4)))
            .bind(if from_found { Bind::NONE } else { l.input(0) })
            .bind(if from_found { l.scratch().read() } else { Bind::NONE })
            .bind(if to_found { l.scratch() } else { l.output(0) })
            .params(&[op.rows, cols, segment, segments, l.row_stride(0)])
            .dispatch_many(op.rows * segments)
    };
    pass(false, several, op.cols, segment, segments)?;
    if several { pass(true, false, segments, segments, 1) } else { Ok(()) }
}
