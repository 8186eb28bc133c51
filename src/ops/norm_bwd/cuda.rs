//! The gradient of row normalisations in CUDA: `kernels/norm_bwd.cu`.

use super::{DOUT, DSUM, NormBwd, SCALE, WEIGHT, X};
use crate::backend::cuda::{Call, Caps, Columns, Cuda, Team, float_rows, ptx, segment};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::Result;
use crate::layout::Takes;

const TAKES: &[Takes] = &[Takes::Rows, Takes::Rows, Takes::Contiguous, Takes::Rows, Takes::Rows];

impl Kernels<Cuda> for NormBwd {
    const KERNELS: &'static [Kernel<Cuda, Self>] = float_rows![("norm_bwd", launch).takes(TAKES).workspace(workspace)];
}

/// How the sums over rows are computed.
struct Plan {
    team: Team,
    /// By the teams that compute dx; else by columns, in a launch of their own.
    fused: bool,
    /// Rows of a segment of a group, and segments of a group.
    segment: usize,
    segments: usize,
    columns: Columns,
}

impl Plan {
    /// For parts of that many elements, which is 1 where rows are not aligned.
    fn new(op: &NormBwd, caps: &Caps, part: usize) -> Plan {
        let group_rows = op.rows / op.groups;
        let team = Team::new(caps, op.rows, op.cols, part, 512);
        let columns = Columns::new(caps, 2 * op.groups, group_rows, op.cols, 1);
        let fused = part > 1 && op.cols <= team.tile();
        let segment = if !fused || !over_rows(op) {
            1
        } else {
            // What a segment leaves is small beside eight rows.
            segment(caps, group_rows, 8, op.groups, (1024 / team.lanes).max(1))
        };
        let segments = if fused { group_rows.div_ceil(segment).max(1) } else { columns.segments };
        Plan { team, fused, segment, segments, columns }
    }

    /// Partial products and sums.
    fn partials(&self, op: &NormBwd) -> usize {
        2 * op.groups * self.segments * op.cols
    }
}

/// Whether there are sums over rows.
fn over_rows(op: &NormBwd) -> bool {
    op.products || op.sums
}

/// Partial sums, and two statistics of each row.
fn workspace(op: &NormBwd, caps: &Caps) -> usize {
    let partials = |part: usize| Plan::new(op, caps, part).partials(op);
    if over_rows(op) { 4 * (partials(1).max(partials(16 / op.dtype.bytes())) + 2 * op.rows) } else { 0 }
}

fn launch(k: &Kernel<Cuda, NormBwd>, op: &NormBwd, l: &mut Launch<'_, Cuda>) -> Result<()> {
    if op.cols == 0 {
        return Ok(());
    }
    let part = l.part(op.cols, &[X, DOUT, WEIGHT, SCALE, DSUM], &[0]);
    let plan = Plan::new(op, l.device.caps(), part);
    let statistics = if over_rows(op) { l.scratch() + 4 * plan.partials(op) as u64 } else { 0 };
    let call = |name: &'static str| -> Call<'_> {
        [X, DOUT, WEIGHT, SCALE, DSUM]
            .iter()
            .fold(l.call(name, ptx!("norm_bwd")), |call, &i| call.pointer(l.input(i)))
            .pointer(l.output(0))
            .pointer(statistics)
            .pointer(l.scratch())
            .params(&[op.rows, op.cols, op.groups])
            .params(&[X, DOUT, SCALE, DSUM].map(|i| l.row_stride(i)))
            .param(plan.team.lanes)
            .param_f32(op.eps.0)
            .dtype(op.dtype)
            .params(&[op.centred, op.products, op.sums].map(usize::from))
            .params(&[plan.segment, plan.segments, op.rows / op.groups])
    };
    if plan.fused {
        call(k.name).launch_teams(plan.team, op.groups * plan.segments)?;
    } else {
        call("norm_bwd_rows").launch_teams(plan.team, op.rows)?;
        if over_rows(op) {
            call("norm_bwd_columns").columns(&plan.columns).launch_columns(&plan.columns)?;
        }
    }
    if !over_rows(op) {
        return Ok(());
    }
    let quads = op.cols.is_multiple_of(4) && l.out_in_vectors(1) && l.out_in_vectors(2);
    let (name, part) = if quads { ("norm_bwd_join_4", 4) } else { ("norm_bwd_join_1", 1) };
    let whole = Columns::new(l.device.caps(), 2 * op.groups, plan.segments, op.cols, part).whole(plan.segments);
    l.call(name, ptx!("norm_bwd"))
        .pointer(l.scratch())
        .pointer(l.output(1))
        .pointer(l.output(2))
        .columns(&whole)
        .launch_columns(&whole)
}
