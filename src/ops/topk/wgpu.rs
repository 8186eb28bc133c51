//! The k largest values of rows in WGSL: `shaders/topk.wgsl`.

use super::TopK;
use super::cut::{Cut, RANKS};
use crate::backend::wgpu::{Bind, Caps, Wgpu, segment, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Wgpu> for TopK {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("topk__wgsl", always, launch).takes(&[Takes::Rows]).workspace(workspace)];
}

/// Values of a row's segment, at least.
const SEGMENT: usize = 4096;

fn cut(op: &TopK) -> Cut {
    Cut::new(op, segment(op.cols, SEGMENT.max(4 * op.k), op.rows))
}

/// A number and a place for each value that segments leave.
fn workspace(op: &TopK, _: &Caps) -> usize {
    op.rows * cut(op).kept * 8
}

fn launch(k: &Kernel<Wgpu, TopK>, op: &TopK, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    if op.k == 0 {
        return Ok(());
    }
    let Cut { segment, segments, kept } = cut(op);
    let several = segments > 1;
    let pass = |from_found: bool, to_found: bool, cols: usize, segment: usize, segments: usize| {
        let blocks = op.k.div_ceil(RANKS);
        l.call(k.name, shader!("topk", "dtype", "order", "row_out"))
            .dtype("out_dtype", op.dtype)
            .constant("from_found", from_found)
            .constant("to_found", to_found)
            .bind(l.input(0))
            .bind(if from_found { l.scratch().read() } else { Bind::NONE })
            .bind(l.output(0))
            .bind(if to_found { l.scratch() } else { l.output(1) })
            .params(&[op.rows, cols, op.k, segment, segments, blocks, l.row_stride(0), kept])
            .dispatch_many(op.rows * segments * blocks)
    };
    pass(false, several, op.cols, segment, segments)?;
    if several { pass(true, false, kept, kept, 1) } else { Ok(()) }
}
