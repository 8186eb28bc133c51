//! Resampling in CUDA: `kernels/interpolate.cu`. The tables of taps are made here and uploaded into the workspace.

use super::Interpolate;
use super::axis::Axis;
use crate::backend::cuda::{Call, Caps, Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};

impl Kernels<Cuda> for Interpolate {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        Kernel::new("interpolate_f32_direct__sm80", supports, direct).suits(has_few_taps).workspace(|op, _| tables(op)),
        Kernel::new("interpolate_f32__sm80", supports, passes).workspace(|op, _| tables(op) + 4 * between(op)),
    ];
}

/// Threads of a block.
const BLOCK: usize = 256;
/// Products of an output's taps for which one pass is better than two.
const FEW_TAPS: usize = 16;

fn supports(op: &Interpolate, _: &Caps) -> Result<(), Unsupported> {
    let [[from_h, from_w], [to_h, to_w]] = [op.given(), op.wanted()];
    let inner = if op.channels_last { op.channels } else { 1 };
    Unsupported::at_most("values of a plane", inner * from_h.max(to_h) * from_w.max(to_w), (1usize << 31) - 1)
}

fn has_few_taps(op: &Interpolate, _: &Caps) -> bool {
    !op.adjoint && op.taps(op.in_h, op.out_h) * op.taps(op.in_w, op.out_w) <= FEW_TAPS
}

/// Bytes that the table of an axis takes at most.
fn table(op: &Interpolate, inputs: usize, outputs: usize) -> usize {
    (4 * (inputs.max(outputs) + 1 + 2 * outputs * op.taps(inputs, outputs))).next_multiple_of(16)
}

fn tables(op: &Interpolate) -> usize {
    table(op, op.in_h, op.out_h) + table(op, op.in_w, op.out_w)
}

/// Values between the passes.
fn between(op: &Interpolate) -> usize {
    op.batch * op.channels * op.wanted()[0] * op.given()[1]
}

/// The planes, and the values behind a point of one.
fn planes(op: &Interpolate) -> (usize, usize) {
    if op.channels_last { (op.batch, op.channels) } else { (op.batch * op.channels, 1) }
}

/// Uploads the tables of rows and columns, and where their lists lie.
fn upload(op: &Interpolate, l: &Launch<'_, Cuda>) -> Result<[[u64; 3]; 2]> {
    let mut at = 0;
    let mut one = |inputs: usize, outputs: usize| {
        let mut axis = Axis::new(op, inputs, outputs);
        if op.adjoint {
            axis = axis.transposed(inputs);
        }
        let (words, lists) = axis.words();
        l.upload_scratch(at, &words)?;
        let addresses = lists.map(|list| l.scratch() + (at + 4 * list) as u64);
        at += table(op, inputs, outputs);
        Ok(addresses)
    };
    Ok([one(op.in_h, op.out_h)?, one(op.in_w, op.out_w)?])
}

fn pointers<'a>(call: Call<'a>, addresses: &[u64]) -> Call<'a> {
    addresses.iter().fold(call, |call, &address| call.pointer(address))
}

/// Values that a thread computes: 4 where vectors of them lie behind a point.
fn each(inner: usize, addresses: [u64; 2]) -> usize {
    if inner.is_multiple_of(4) && addresses.iter().all(|a| a.is_multiple_of(16)) { 4 } else { 1 }
}

/// Launches threads for so many values, or vectors, of each plane.
fn spread(call: Call<'_>, values: usize, planes: usize) -> Result<()> {
    let along = values.next_power_of_two().clamp(32, BLOCK);
    let across = BLOCK / along;
    call.block_2d([along, across]).launch_grid([values.div_ceil(along), planes.div_ceil(across).min(65535), 1])
}

fn direct(k: &Kernel<Cuda, Interpolate>, op: &Interpolate, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let ([from_h, from_w], [to_h, to_w], (planes, inner)) = (op.given(), op.wanted(), planes(op));
    if planes * inner * to_h * to_w == 0 {
        return Ok(());
    }
    let [down, across] = upload(op, l)?;
    let (x, out) = (l.input(0), l.output(0));
    let each = each(inner, [x, out]);
    let call = pointers(pointers(l.call(k.name, ptx!("interpolate")), &[x, out]), &[down, across].concat())
        .params(&[planes, from_h, from_w, to_h])
        .divisor(to_w)
        .divisor(inner / each)
        .param(usize::from(each > 1));
    spread(call, to_h * to_w * inner / each, planes)
}

fn passes(k: &Kernel<Cuda, Interpolate>, op: &Interpolate, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let ([from_h, from_w], [to_h, to_w], (planes, inner)) = (op.given(), op.wanted(), planes(op));
    if planes * inner * to_h * to_w == 0 {
        return Ok(());
    }
    let [down, across] = upload(op, l)?;
    let middle = l.scratch() + tables(op) as u64;
    let pass = |[from, to]: [u64; 2], axis: [u64; 3], planes: usize, [points, outputs, inner]: [usize; 3]| {
        let each = each(inner, [from, to]);
        let call = pointers(pointers(l.call(k.name, ptx!("interpolate")), &[from, to]), &axis)
            .params(&[planes, points, outputs])
            .divisor(inner / each)
            .param(usize::from(each > 1));
        spread(call, outputs * inner / each, planes)
    };
    pass([l.input(0), middle], down, planes, [from_h, to_h, from_w * inner])?;
    pass([middle, l.output(0)], across, planes * to_h, [from_w, to_w, inner])
}
