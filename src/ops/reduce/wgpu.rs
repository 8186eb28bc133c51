//! Reductions in WGSL: `shaders/reduce.wgsl` where the reduced dimension is the last one, `shaders/reduce_columns.wgsl` else.

use super::{Kind, Reduce};
use crate::backend::wgpu::{
    Bind, Call, Caps, Columns, Wgpu, row_lanes, segments,
    shader::{rows_shader, shader},
};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};

impl Kernels<Wgpu> for Reduce {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("reduce__wgsl_subgroup", |op, caps| caps.needs_subgroups().and(rows(op)), launch::<true>)
            .workspace(rows_workspace),
        Kernel::new("reduce__wgsl", |op, _| rows(op), launch::<false>).workspace(rows_workspace),
        Kernel::new("reduce_columns__wgsl", |op, _| columns(op), launch_columns).workspace(columns_workspace),
    ];
}

fn rows(op: &Reduce) -> Result<(), Unsupported> {
    Unsupported::require("a reduction over the last dimension", op.inner == 1)
}

fn columns(op: &Reduce) -> Result<(), Unsupported> {
    Unsupported::require("a reduction over another dimension than the last", op.inner != 1)
}

/// The length and number of segments of a row.
fn cut(op: &Reduce) -> (usize, usize) {
    let (segment, count) = segments(op.len, op.outer);
    (segment, count.max(1))
}

fn rows_workspace(op: &Reduce, _: &Caps) -> usize {
    partials(op, cut(op).1)
}

fn columns_workspace(op: &Reduce, _: &Caps) -> usize {
    partials(op, Columns::new(op.outer, op.len, op.inner).segments)
}

/// Bytes of what segments give, where there are several.
fn partials(op: &Reduce, segments: usize) -> usize {
    if segments > 1 { op.outer * segments * op.inner * 4 } else { 0 }
}

/// The passes over x and, where there are several segments, over what they gave: each a dispatch that gets its constants
/// and bindings here.
fn passes<'a>(
    op: &Reduce,
    l: &Launch<'a, Wgpu>,
    segments: usize,
    call: impl Fn() -> Call<'a>,
    dispatch: impl Fn(Call<'a>, bool) -> Result<()>,
) -> Result<()> {
    let (fold, again, finish) = match op.kind {
        Kind::Sum => (0, 0, 0),
        Kind::Mean => (0, 0, 1),
        Kind::Norm2 => (1, 0, 2),
        Kind::Max => (2, 2, 0),
        Kind::Min => (3, 3, 0),
    };
    let pass = |kind: u32, finish: u32, x: Bind<'a>, dtype: DType, quads: bool, out: Bind<'a>| {
        let call = call().constant("kind", kind).constant("finish", finish).dtype("x_dtype", dtype);
        call.constant("quads", quads).bind(x).bind(out)
    };
    let fits = |cols: usize| cols.is_multiple_of(4);
    if segments == 1 {
        return dispatch(pass(fold, finish, l.input(0), op.dtype, l.in_quads(0), l.output(0)), false);
    }
    dispatch(pass(fold, 0, l.input(0), op.dtype, l.in_quads(0), l.scratch()), false)?;
    let quads = fits(if op.inner == 1 { segments } else { op.inner });
    dispatch(pass(again, finish, l.scratch().read(), DType::F32, quads, l.output(0)), true)
}

fn launch<const SUBGROUPS: bool>(k: &Kernel<Wgpu, Reduce>, op: &Reduce, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = rows_shader!(SUBGROUPS, "reduce", "dtype", "math", "order", "fold");
    let (segment, segments) = cut(op);
    passes(
        op,
        l,
        segments,
        || l.call(k.name, shader),
        |call, again| {
            let (cols, segment, segments) = if again { (segments, segments, 1) } else { (op.len, segment, segments) };
            call.constant("lanes", row_lanes(segment.min(cols).div_ceil(4)))
                .params(&[op.outer, cols, segment, segments])
                .param_f32(op.len as f32)
                .dispatch_many(op.outer * segments)
        },
    )
}

fn launch_columns(k: &Kernel<Wgpu, Reduce>, op: &Reduce, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = shader!("reduce_columns", "dtype", "math", "fold", "columns");
    let cut = Columns::new(op.outer, op.len, op.inner);
    passes(
        op,
        l,
        cut.segments,
        || l.call(k.name, shader),
        |call, again| {
            let cut = if again { cut.whole(cut.segments) } else { cut };
            call.params(&[cut.segments]).param_f32(op.len as f32).dispatch_columns(&cut)
        },
    )
}
