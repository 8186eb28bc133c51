//! The gradient of row normalisations in WGSL: `shaders/norm_bwd.wgsl`, then `shaders/norm_bwd_columns.wgsl` for the sums
//! over rows.

use super::{DOUT, DSUM, NormBwd, SCALE, WEIGHT, X};
use crate::backend::wgpu::{
    Bind, Caps, Columns, Wgpu, row_lanes,
    shader::{rows_shader, shader},
};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;

const TAKES: &[Takes] = &[Takes::Rows, Takes::Rows, Takes::Contiguous, Takes::Rows, Takes::Rows];

impl Kernels<Wgpu> for NormBwd {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("norm_bwd__wgsl_subgroup", |_, caps| caps.needs_subgroups(), launch::<true>)
            .takes(TAKES)
            .workspace(workspace),
        Kernel::new("norm_bwd__wgsl", always, launch::<false>).takes(TAKES).workspace(workspace),
    ];
}

fn cut(op: &NormBwd) -> Columns {
    Columns::new(op.groups, op.rows / op.groups, op.cols)
}

/// Elements of what the segments of a group give, for each of both sums.
fn partials(op: &NormBwd) -> usize {
    let segments = cut(op).segments;
    if segments > 1 { op.groups * segments * op.cols } else { 0 }
}

/// Two statistics of each row, and partial sums.
fn workspace(op: &NormBwd, _: &Caps) -> usize {
    if op.products || op.sums { 8 * (op.rows + partials(op)).max(1) } else { 0 }
}

fn launch<const SUBGROUPS: bool>(k: &Kernel<Wgpu, NormBwd>, op: &NormBwd, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    if op.cols == 0 {
        return Ok(());
    }
    let shader = rows_shader!(SUBGROUPS, "norm_bwd", "dtype");
    let over_rows = op.products || op.sums;
    let quads = l.in_quads(X) && l.in_quads(DOUT);
    l.call(k.name, shader)
        .dtype("x_dtype", op.dtype)
        .constant("centred", op.centred)
        .constant("has_weight", op.weight)
        .constant("modulated", op.modulated)
        .constant("has_dsum", op.dsum)
        .constant("kept", over_rows)
        .constant("quads", quads)
        .constant("lanes", row_lanes(op.cols.div_ceil(4)))
        .bind(l.input(X))
        .bind(l.input(DOUT))
        .bind(l.input(WEIGHT))
        .bind(l.input(SCALE))
        .bind(l.input(DSUM))
        .bind(l.output(0))
        .bind(if over_rows { l.scratch() } else { l.output(1) })
        .params(&[op.rows, op.cols, op.rows / op.groups])
        .param_f32(op.eps.0)
        .params(&[X, DOUT, SCALE, DSUM].map(|i| l.row_stride(i)))
        .dispatch_many(op.rows)?;
    if !over_rows {
        return Ok(());
    }
    let cut = cut(op);
    let several = cut.segments > 1;
    let pass = |from_partials: bool, to_partials: bool, cut: Columns| {
        l.call(k.name, shader!("norm_bwd_columns", "dtype", "columns"))
            .dtype("x_dtype", op.dtype)
            .constant("has_products", op.products)
            .constant("has_sums", op.sums)
            .constant("from_partials", from_partials)
            .constant("to_partials", to_partials)
            .constant("quads", quads)
            .bind(if from_partials { Bind::NONE } else { l.input(X) })
            .bind(if from_partials { Bind::NONE } else { l.input(DOUT) })
            .bind(l.output(1))
            .bind(l.output(2))
            .bind(l.scratch())
            .params(&[cut.segments, 2 * op.rows, 2 * op.rows + partials(op), l.row_stride(X), l.row_stride(DOUT)])
            .dispatch_columns(&cut)
    };
    pass(false, several, cut)?;
    if several { pass(true, false, cut.whole(cut.segments)) } else { Ok(()) }
}
