//! Cross-entropy in CUDA: `kernels/cross_entropy.cu`.

use super::CrossEntropy;
use crate::backend::cuda::{Cuda, Team, float_rows, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::{Op, labels};

impl Kernels<Cuda> for CrossEntropy {
    const KERNELS: &'static [Kernel<Cuda, Self>] = float_rows![("cross_entropy", launch).takes(&[Takes::Rows])];
}

fn launch(k: &Kernel<Cuda, CrossEntropy>, op: &CrossEntropy, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let part = l.part(op.classes, &[0], &[]);
    let team = Team::new(l.device.caps(), op.rows, op.classes, part, 512);
    let ignored = labels::ignored(op.labels, op.ignore);
    l.call(if part > 1 { k.name } else { "cross_entropy_any" }, ptx!("cross_entropy"))
        .pointer(l.input(0))
        .pointer(l.input(2))
        .pointer(l.output(0))
        .pointer(l.output(1))
        .params(&[op.rows, l.row_stride(0), team.lanes])
        .dtype(op.dtype)
        .pointer(l.input(1))
        .params(&[op.classes, (op.labels == DType::I32).into()])
        .params(&[ignored.is_some().into(), ignored.unwrap_or(0) as usize])
        .faults(CrossEntropy::NAME)
        .launch_teams(team, op.rows)
}
