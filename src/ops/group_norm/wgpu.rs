//! Group norm in WGSL: `shaders/group_norm.wgsl` for the statistics, `shaders/group_norm_apply.wgsl` for the results.

use super::GroupNorm;
use crate::backend::wgpu::{
    Caps, Wgpu, row_lanes, segments,
    shader::{rows_shader, shader},
};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;

impl Kernels<Wgpu> for GroupNorm {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("group_norm__wgsl_subgroup", |_, caps| caps.needs_subgroups(), launch::<true>).workspace(workspace),
        Kernel::new("group_norm__wgsl", always, launch::<false>).workspace(workspace),
    ];
}

/// The length and number of segments of a group.
fn cut(op: &GroupNorm) -> (usize, usize) {
    segments(op.group_len(), op.batch * op.groups)
}

/// Two statistics of each group and of each segment.
fn workspace(op: &GroupNorm, _: &Caps) -> usize {
    op.batch * op.groups * (1 + cut(op).1) * 8
}

fn launch<const SUBGROUPS: bool>(k: &Kernel<Wgpu, GroupNorm>, op: &GroupNorm, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let (groups, len) = (op.batch * op.groups, op.group_len());
    if groups * len == 0 {
        return Ok(());
    }
    let shader = rows_shader!(SUBGROUPS, "group_norm", "dtype");
    let x = l.input(0);
    let (segment, segments) = cut(op);
    let pass = |merging: bool, lanes: u32, workgroups: usize| {
        l.call(k.name, shader)
            .dtype("x_dtype", op.dtype)
            .constant("quads", x.offset().is_multiple_of(4) && (groups == 1 || len.is_multiple_of(4)))
            .constant("merging", merging)
            .constant("lanes", lanes)
            .bind(x)
            .bind(l.scratch())
            .params(&[groups, len, segment, segments])
            .param_f32(op.eps.0)
            .dispatch_many(workgroups)
    };
    pass(false, row_lanes(segment.min(len).div_ceil(4)), groups * segments)?;
    if segments > 1 {
        pass(true, row_lanes(segments), groups)?;
    }
    let out = l.output(0);
    // Quads start at multiples of four where the result does.
    let aligned = out.offset().is_multiple_of(4);
    l.call(k.name, shader!("group_norm_apply", "dtype", "math", "flat"))
        .dtype("x_dtype", op.dtype)
        .constant("affine", op.affine)
        .constant("silu", op.silu)
        .constant("quads", aligned && x.offset().is_multiple_of(4))
        .constant("one_channel", aligned && op.inner.is_multiple_of(4))
        .bind(x)
        .bind(l.input(1))
        .bind(l.input(2))
        .bind(l.scratch().read())
        .bind(out)
        .params(&[op.inner, op.channels, len])
        .dispatch_flat(out, op.out)
}
