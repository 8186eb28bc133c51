//! The k largest values of rows in WGSL: `shaders/topk.wgsl`.

use super::TopK;
use crate::backend::wgpu::{Bind, Caps, Wgpu, segment, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Wgpu> for TopK {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("topk__wgsl", always, launch).takes(&[Takes::Rows]).workspace(workspace)];
}

/// Ranks that a workgroup finds: RANKS of the shader.
const RANKS: usize = 1024;
/// Values of a row's segment, at least.
const SEGMENT: usize = 4096;

/// The cut of a row.
struct Cut {
    segment: usize,
    segments: usize,
    /// What the segments leave of a row: k values each, the last one what it has.
    kept: usize,
}

impl Cut {
    fn new(op: &TopK) -> Cut {
        let whole = Cut { segment: op.cols, segments: 1, kept: 0 };
        if op.k > RANKS {
            return whole;
        }
        let segment = segment(op.cols, SEGMENT.max(4 * op.k), op.rows);
        if segment >= op.cols {
            return whole;
        }
        let segments = op.cols.div_ceil(segment);
        let last = op.cols - (segments - 1) * segment;
        Cut { segment, segments, kept: (segments - 1) * op.k + last.min(op.k) }
    }
}

/// A number and a place for each value that segments leave.
fn workspace(op: &TopK, _: &Caps) -> usize {
    op.rows * Cut::new(op).kept * 8
}

fn launch(k: &Kernel<Wgpu, TopK>, op: &TopK, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    if op.k == 0 {
        return Ok(());
    }
    let Cut { segment, segments, kept } = Cut::new(op);
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
