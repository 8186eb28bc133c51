//! Reductions in CUDA: `kernels/reduce.cu`.

use super::{Kind, Reduce};
use crate::backend::cuda::{Call, Caps, Columns, Cuda, Team, ptx, segment};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};

impl Kernels<Cuda> for Reduce {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        Kernel::new("reduce_bf16__sm80", |op, _| rows(op, DType::BF16), launch).workspace(workspace),
        Kernel::new("reduce_f16__sm80", |op, _| rows(op, DType::F16), launch).workspace(workspace),
        Kernel::new("reduce_f32__sm80", |op, _| rows(op, DType::F32), launch).workspace(workspace),
        Kernel::new("reduce_bf16_columns__sm80", |op, _| columns(op, DType::BF16), launch).workspace(workspace),
        Kernel::new("reduce_f16_columns__sm80", |op, _| columns(op, DType::F16), launch).workspace(workspace),
        Kernel::new("reduce_f32_columns__sm80", |op, _| columns(op, DType::F32), launch).workspace(workspace),
    ];
}

fn rows(op: &Reduce, dtype: DType) -> Result<(), Unsupported> {
    Unsupported::require("a reduction over the last dimension", op.inner == 1)?;
    Unsupported::require(dtype.name(), op.dtype == dtype)
}

fn columns(op: &Reduce, dtype: DType) -> Result<(), Unsupported> {
    Unsupported::require("a reduction over another dimension than the last", op.inner != 1)?;
    Unsupported::require(dtype.name(), op.dtype == dtype)
}

/// The most threads of a team.
const MOST: usize = 512;

/// The length and number of segments of a row.
fn cut(op: &Reduce, caps: &Caps) -> (usize, usize) {
    let segment = segment(caps, op.len, 8192, op.outer, 4);
    (segment, op.len.div_ceil(segment).max(1))
}

/// Bytes of what segments give, where there are several.
fn workspace(op: &Reduce, caps: &Caps) -> usize {
    let segments = if op.inner == 1 {
        cut(op, caps).1
    } else {
        let segments = |part| Columns::new(caps, op.outer, op.len, op.inner, part).segments;
        segments(1).max(segments(16 / op.dtype.bytes()))
    };
    if segments > 1 { op.outer * segments * op.inner * 4 } else { 0 }
}

/// The next parameter: the struct `Fold`, of a pass that is the first of two or more, the last of several, or both.
fn fold<'a>(call: Call<'a>, op: &Reduce, dtype: DType, first: bool, last: bool) -> Call<'a> {
    let (kind, again, finish) = match op.kind {
        Kind::Sum => (0, 0, 0),
        Kind::Mean => (0, 0, 1),
        Kind::Norm2 => (1, 0, 2),
        Kind::Max => (2, 2, 0),
        Kind::Min => (3, 3, 0),
    };
    call.params(&[if first { kind } else { again }, if last { finish } else { 0 }])
        .param_f32(op.len as f32)
        .dtype(dtype)
}

fn launch(k: &Kernel<Cuda, Reduce>, op: &Reduce, l: &mut Launch<'_, Cuda>) -> Result<()> {
    if op.outer * op.inner == 0 {
        return Ok(());
    }
    if op.inner == 1 { launch_rows(k.name, op, l) } else { launch_columns(k.name, op, l) }
}

fn launch_rows(name: &'static str, op: &Reduce, l: &Launch<'_, Cuda>) -> Result<()> {
    let caps = l.device.caps();
    let (segment, segments) = cut(op, caps);
    let pass = |name, x: u64, dtype, out: u64, part, cols: usize, segment: usize, segments: usize| {
        let team = Team::new(caps, op.outer * segments, segment.min(cols), part, MOST);
        let call = l
            .call(if part > 1 { name } else { "reduce_any" }, ptx!("reduce"))
            .pointer(x)
            .pointer(out)
            .params(&[op.outer, cols, segment, segments, team.lanes, 0]);
        fold(call, op, dtype, x == l.input(0), out == l.output(0)).launch_teams(team, op.outer * segments)
    };
    let part = if l.in_vectors(0) && op.len.is_multiple_of(16 / op.dtype.bytes()) { 16 / op.dtype.bytes() } else { 1 };
    if segments == 1 {
        return pass(name, l.input(0), op.dtype, l.output(0), part, op.len, segment, 1);
    }
    pass(name, l.input(0), op.dtype, l.scratch(), part, op.len, segment, segments)?;
    let part = if segments.is_multiple_of(4) { 4 } else { 1 };
    pass("reduce_f32__sm80", l.scratch(), DType::F32, l.output(0), part, segments, segments, 1)
}

fn launch_columns(name: &'static str, op: &Reduce, l: &Launch<'_, Cuda>) -> Result<()> {
    let pass = |name, x: u64, dtype, out: u64, part, c: Columns| {
        let call = l.call(if part > 1 { name } else { "reduce_any_columns" }, ptx!("reduce"));
        let call = call.pointer(x).pointer(out).columns(&c);
        fold(call, op, dtype, x == l.input(0), out == l.output(0)).launch_columns(&c)
    };
    let part = l.part(op.inner, &[0], &[]);
    let cut = Columns::new(l.device.caps(), op.outer, op.len, op.inner, part);
    if cut.segments == 1 {
        return pass(name, l.input(0), op.dtype, l.output(0), part, cut);
    }
    pass(name, l.input(0), op.dtype, l.scratch(), part, cut)?;
    let part = if op.inner.is_multiple_of(4) { 4 } else { 1 };
    let again = Columns::new(l.device.caps(), op.outer, cut.segments, op.inner, part).whole(cut.segments);
    pass("reduce_f32_columns__sm80", l.scratch(), DType::F32, l.output(0), part, again)
}
