//! Row normalisations in CUDA: `kernels/norm.cu`.

use super::{BIAS, Norm, OUT, RESIDUAL, SCALE, SHIFT, SUM, WEIGHT, X};
use crate::backend::Launch;
use crate::backend::cuda::{Cuda, Team, ptx};
use crate::error::Result;

/// Launches the row of this name.
pub fn launch(name: &'static str, n: &Norm, l: &Launch<'_, Cuda>) -> Result<()> {
    if n.cols == 0 {
        return Ok(());
    }
    let part = l.part(n.cols, &[X, WEIGHT, BIAS, RESIDUAL, SCALE, SHIFT], &[OUT, SUM]);
    let team = Team::alone(l.device.caps(), n.rows, n.cols, part, 512);
    [X, WEIGHT, BIAS, RESIDUAL, SCALE, SHIFT]
        .iter()
        .fold(l.call(if part > 1 { name } else { "norm_any" }, ptx!("norm")), |call, &i| call.pointer(l.input(i)))
        .pointer(l.output(OUT))
        .pointer(l.output(SUM))
        .params(&[n.rows, n.cols, n.rows / n.groups])
        .params(&[X, RESIDUAL, SCALE, SHIFT].map(|i| l.row_stride(i)))
        .param(team.lanes)
        .param_f32(n.eps.0)
        .dtype(n.out)
        .dtype(n.dtype)
        .param(n.centred.into())
        .launch_teams(team, n.rows)
}
