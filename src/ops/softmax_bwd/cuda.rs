//! The gradient of softmax in CUDA: `kernels/softmax_bwd.cu`.

use super::SoftmaxBwd;
use crate::backend::cuda::{Cuda, Team, float_rows, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Cuda> for SoftmaxBwd {
    const KERNELS: &'static [Kernel<Cuda, Self>] = float_rows![("softmax_bwd", launch).takes(&[Takes::Rows; 2])];
}

fn launch(k: &Kernel<Cuda, SoftmaxBwd>, op: &SoftmaxBwd, l: &mut Launch<'_, Cuda>) -> Result<()> {
    if op.cols == 0 {
        return Ok(());
    }
    let part = l.part(op.cols, &[0, 1], &[0]);
    let team = Team::new(l.device.caps(), op.rows, op.cols, part, 1024);
    l.call(if part > 1 { k.name } else { "softmax_bwd_any" }, ptx!("softmax_bwd"))
        .pointer(l.input(0))
        .pointer(l.input(1))
        .pointer(l.output(0))
        .params(&[op.rows, op.cols, l.row_stride(0), l.row_stride(1), team.lanes])
        .dtype(op.dtype)
        .launch_teams(team, op.rows)
}
