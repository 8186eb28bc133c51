//! Group norm in CUDA: `kernels/group_norm.cu`.

use super::GroupNorm;
use crate::backend::cuda::{Call, Caps, Cuda, Team, float_rows, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::Result;

impl Kernels<Cuda> for GroupNorm {
    const KERNELS: &'static [Kernel<Cuda, Self>] = float_rows![("group_norm", launch).workspace(workspace)];
}

/// The most segments of a group.
fn most_segments(op: &GroupNorm, caps: &Caps) -> usize {
    (8 * caps.multiprocessors as usize / (op.batch * op.groups).max(1)).max(1)
}

/// Two moments of each segment of each group.
fn workspace(op: &GroupNorm, caps: &Caps) -> usize {
    op.batch * op.groups * most_segments(op, caps) * 8
}

fn launch(k: &Kernel<Cuda, GroupNorm>, op: &GroupNorm, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let (groups, len, caps) = (op.batch * op.groups, op.group_len(), l.device.caps());
    if groups * len == 0 {
        return Ok(());
    }
    let part = l.part(op.inner, &[0], &[0]);
    let team = Team::new(caps, groups, len, part, 256);
    let tiles = len.div_ceil(team.tile());
    let segment = tiles.div_ceil(most_segments(op, caps)) * team.tile();
    let segments = len.div_ceil(segment);
    let call = |name: &'static str| -> Call<'_> {
        l.call(name, ptx!("group_norm"))
            .pointer(l.input(0))
            .pointer(l.input(1))
            .pointer(l.input(2))
            .pointer(l.output(0))
            .pointer(l.scratch())
            .params(&[groups, len, segment, segments, tiles])
            .params(&[op.inner, op.channels, team.lanes])
            .param_f32(op.eps.0)
            .dtype(op.out)
            .dtype(op.dtype)
            .param(op.silu.into())
    };
    let (moments, apply) = match op.dtype {
        _ if part == 1 => ("group_norm_moments_any", "group_norm_any"),
        DType::BF16 => ("group_norm_moments_bf16", k.name),
        DType::F16 => ("group_norm_moments_f16", k.name),
        _ => ("group_norm_moments_f32", k.name),
    };
    call(moments).launch_teams(team, groups * segments)?;
    call(apply).launch_teams(team, groups * tiles)
}
