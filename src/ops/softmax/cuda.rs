//! Softmax in CUDA: `kernels/softmax.cu`.

use super::Softmax;
use crate::backend::cuda::{Cuda, Team, float_rows, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Cuda> for Softmax {
    const KERNELS: &'static [Kernel<Cuda, Self>] = float_rows![("softmax", launch).takes(&[Takes::Rows])];
}

fn launch(k: &Kernel<Cuda, Softmax>, op: &Softmax, l: &mut Launch<'_, Cuda>) -> Result<()> {
    if op.cols == 0 {
        return Ok(());
    }
    let part = l.part(op.cols, &[0], &[0]);
    let team = Team::alone(l.device.caps(), op.rows, op.cols, part, 512);
    l.call(if part > 1 { k.name } else { "softmax_any" }, ptx!("softmax"))
        .pointer(l.input(0))
        .pointer(l.output(0))
        .params(&[op.rows, op.cols, l.row_stride(0), team.lanes])
        .dtype(op.dtype)
        .param(0)
        .launch_teams(team, op.rows)
}
