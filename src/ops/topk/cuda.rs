//! The k largest values of rows in CUDA: `kernels/topk.cu`.

use super::TopK;
use super::cut::{Cut, RANKS};
use crate::backend::cuda::{Caps, Cuda, float_rows, ptx, segment};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Cuda> for TopK {
    const KERNELS: &'static [Kernel<Cuda, Self>] =
        float_rows![("topk", launch).takes(&[Takes::Rows]).workspace(workspace)];
}

/// Values that a block holds in registers.
const HELD: usize = 2048;
/// Threads of a block.
const BLOCK: usize = 256;

fn cut(op: &TopK, caps: &Caps) -> Cut {
    Cut::new(op, segment(caps, op.cols, HELD.max(4 * op.k), op.rows, 4))
}

/// A number and a place for each value that segments leave.
fn workspace(op: &TopK, caps: &Caps) -> usize {
    op.rows * cut(op, caps).kept * 8
}

fn launch(k: &Kernel<Cuda, TopK>, op: &TopK, l: &mut Launch<'_, Cuda>) -> Result<()> {
    if op.k == 0 {
        return Ok(());
    }
    let Cut { segment, segments, kept } = cut(op, l.device.caps());
    let blocks = op.k.div_ceil(RANKS);
    let pass = |name: &'static str, cols: usize, segment: usize, segments: usize| {
        l.call(name, ptx!("topk"))
            .pointer(l.input(0))
            .pointer(l.output(0))
            .pointer(l.output(1))
            .pointer(l.scratch())
            .params(&[op.rows, cols, op.k, segment, segments, blocks, kept, l.row_stride(0)])
            .block(BLOCK)
            .launch(op.rows * segments * blocks)
    };
    pass(k.name, op.cols, segment, segments)?;
    let join = if op.dtype.bytes() == 2 { "topk_join_2" } else { "topk_join_4" };
    if segments > 1 { pass(join, kept, kept, 1) } else { Ok(()) }
}
