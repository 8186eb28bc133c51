//! Gathering rows in CUDA: `kernels/gather.cu`.

use super::Gather;
use crate::backend::cuda::{Call, Caps, Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::{DType, Format, Quant};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::Op;
use crate::ops::walk::{MAX_INDEX, WALKERS, Word};

impl Kernels<Cuda> for Gather {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        Kernel::new("gather_any__sm80", same, launch_same).takes(&[Takes::Strided]),
        Kernel::new("gather_f32__sm80", widened, launch_widened).takes(&[Takes::Strided]),
        Kernel::new("gather_blocks__sm80", blocks, launch_blocks),
    ];
}

fn same(op: &Gather, _: &Caps) -> Result<(), Unsupported> {
    Unsupported::require("rows in the table's dtype", op.format == Format::Plain && op.dtype == op.out)
}

fn widened(op: &Gather, _: &Caps) -> Result<(), Unsupported> {
    Unsupported::require("rows of 16 bits in f32", op.format == Format::Plain && op.dtype != op.out)
}

fn blocks(op: &Gather, _: &Caps) -> Result<(), Unsupported> {
    Unsupported::require("a table of quantised blocks", matches!(op.format, Format::Blocks(_)))
}

/// How rows of the table are cut: units of a row of the result, units from row to row and within a row of the table, and how many
/// units a block takes.
struct Cut {
    units: usize,
    stride: usize,
    step: usize,
    block: usize,
}

/// Launches with as many rows at a time as have fewer than 2^31 units; `how` adds what stands before `Rows`.
fn launch<'a>(
    k: &Kernel<Cuda, Gather>,
    op: &Gather,
    l: &Launch<'a, Cuda>,
    cut: &Cut,
    how: impl Fn(Call<'a>) -> Call<'a>,
) -> Result<()> {
    let most = MAX_INDEX / cut.units.max(1);
    let count = if op.ids == DType::I32 { op.count.min(1 << 31) } else { op.count.min(u32::MAX as usize) };
    for first in (0..op.n).step_by(most.max(1)) {
        let total = most.min(op.n - first) * cut.units;
        let call = l
            .call(k.name, ptx!("gather"))
            .block(WALKERS)
            .pointer(l.input(0))
            .pointer(l.input(1) + (first * op.ids.bytes()) as u64)
            .pointer(l.output(0) + (first * op.width * op.out.bytes()) as u64);
        how(call)
            .param_u64(cut.stride)
            .params(&[cut.step, total])
            .divisor(cut.units)
            .params(&[count, first])
            .faults(Gather::NAME)
            .launch(total.div_ceil(cut.block))?;
    }
    Ok(())
}

fn launch_same(k: &Kernel<Cuda, Gather>, op: &Gather, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let ([stride, step, ..], bytes) = (l.layout(0).strides, op.dtype.bytes());
    let fits = |word: &usize| {
        let per = word / bytes;
        let whole = op.width.is_multiple_of(per) && stride.is_multiple_of(per);
        step == 1 && whole && (l.input(0) | l.output(0)).is_multiple_of(*word as u64)
    };
    let word = Word([16, 8, 4].into_iter().find(fits).unwrap_or(bytes));
    let per = word.0 / bytes;
    let cut = Cut { units: op.width / per, stride: stride / per, step, block: WALKERS * word.in_flight() };
    launch(k, op, l, &cut, |call| call.param(word.0))
}

fn launch_widened(k: &Kernel<Cuda, Gather>, op: &Gather, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let [stride, step, ..] = l.layout(0).strides;
    let quads = [op.width, stride].iter().all(|n| n.is_multiple_of(4))
        && step == 1
        && l.input(0).is_multiple_of(8)
        && l.output(0).is_multiple_of(16);
    let per = if quads { 4 } else { 1 };
    let cut = Cut { units: op.width / per, stride: stride / per, step, block: WALKERS * if quads { 4 } else { 8 } };
    launch(k, op, l, &cut, |call| call.param(usize::from(quads)).dtype(op.dtype))
}

fn launch_blocks(k: &Kernel<Cuda, Gather>, op: &Gather, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let Some(quant) = op.format.quant() else { return Ok(()) };
    l.blocks(0, quant)?;
    // Twice eight values; the halves of a unit of Q8_0 are of two blocks, the last of which may lack.
    let units = if quant == Quant::Q8_0 { op.width.div_ceil(64) * 4 } else { op.width / 16 };
    let cut = Cut { units, stride: quant.row_bytes(op.width), step: 1, block: WALKERS };
    launch(k, op, l, &cut, |call| call.param(op.width).param(quant as usize))
}
