//! The place of the largest value in CUDA: `kernels/argmax.cu`.

use super::Argmax;
use crate::backend::cuda::{Caps, Cuda, Team, float_rows, ptx, segment};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Cuda> for Argmax {
    const KERNELS: &'static [Kernel<Cuda, Self>] =
        float_rows![("argmax", launch).takes(&[Takes::Rows]).workspace(workspace)];
}

/// The most threads of a team.
const MOST: usize = 256;

/// The length and number of segments of a row.
fn cut(op: &Argmax, caps: &Caps) -> (usize, usize) {
    let segment = segment(caps, op.cols, 2048, op.rows, 4);
    (segment, op.cols.div_ceil(segment))
}

/// A number and a place for each segment, where there are several.
fn workspace(op: &Argmax, caps: &Caps) -> usize {
    let (_, segments) = cut(op, caps);
    if segments > 1 { op.rows * segments * 8 } else { 0 }
}

fn launch(k: &Kernel<Cuda, Argmax>, op: &Argmax, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let caps = l.device.caps();
    let (segment, segments) = cut(op, caps);
    let part = l.part(op.cols, &[0], &[]);
    let team = Team::new(caps, op.rows * segments, segment.min(op.cols), part, MOST);
    l.call(if part > 1 { k.name } else { "argmax_any" }, ptx!("argmax"))
        .pointer(l.input(0))
        .pointer(l.scratch())
        .pointer(l.output(0))
        .params(&[op.rows, op.cols, l.row_stride(0), segment, segments, team.lanes])
        .dtype(op.dtype)
        .param(0)
        .launch_teams(team, op.rows * segments)?;
    if segments == 1 {
        return Ok(());
    }
    let team = Team::new(caps, op.rows, segments, 1, MOST);
    l.call("argmax_join", ptx!("argmax"))
        .pointer(l.scratch())
        .pointer(l.output(0))
        .params(&[op.rows, segments, team.lanes])
        .launch_teams(team, op.rows)
}
