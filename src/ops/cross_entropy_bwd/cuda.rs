//! The gradient of cross-entropy in CUDA: `kernels/cross_entropy_bwd.cu`.

use super::CrossEntropyBwd;
use crate::backend::cuda::{Cuda, Team, float_rows, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::{Op, labels};

impl Kernels<Cuda> for CrossEntropyBwd {
    const KERNELS: &'static [Kernel<Cuda, Self>] = float_rows![("cross_entropy_bwd", launch).takes(&[Takes::Rows])];
}

fn launch(k: &Kernel<Cuda, CrossEntropyBwd>, op: &CrossEntropyBwd, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let part = l.part(op.classes, &[0], &[0]);
    let team = Team::new(l.device.caps(), op.rows, op.classes, part, 256);
    let tiles = op.classes.div_ceil(team.tile());
    let ignored = labels::ignored(op.labels, op.ignore);
    [0, 2, 3, 4, 5]
        .iter()
        .fold(l.call(if part > 1 { k.name } else { "cross_entropy_bwd_any" }, ptx!("cross_entropy_bwd")), |call, &i| {
            call.pointer(l.input(i))
        })
        .pointer(l.output(0))
        .params(&[op.rows, tiles, l.row_stride(0), team.lanes])
        .dtype(op.dtype)
        .param(0)
        .pointer(l.input(1))
        .params(&[op.classes, (op.labels == DType::I32).into()])
        .params(&[ignored.is_some().into(), ignored.unwrap_or(0) as usize])
        .faults(CrossEntropyBwd::NAME)
        .launch_teams(team, op.rows * tiles)
}
