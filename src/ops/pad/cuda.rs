//! Padding and folding in CUDA: `kernels/pad.cu`.

use super::Pad;
use crate::backend::cuda::{Caps, Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::walk::{MAX_INDEX, WALKERS};

impl Kernels<Cuda> for Pad {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        Kernel::new("pad_any__sm80", |op, caps| supports(op, caps, false), launch).takes(&[Takes::Strided]),
        Kernel::new("pad_fold_f32__sm80", |op, caps| supports(op, caps, true), launch).takes(&[Takes::Strided]),
    ];
}

fn supports(op: &Pad, _: &Caps, fold: bool) -> Result<(), Unsupported> {
    Unsupported::require(if fold { "folding" } else { "padding, not folding" }, op.fold == fold)
}

/// Elements of a row that a lane takes.
const IN_ROW: usize = 8;

fn launch(k: &Kernel<Cuda, Pad>, op: &Pad, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let [_, planes, rows, width] = op.shape(!op.fold);
    let lanes = width.next_power_of_two().min(32);
    let along = width.div_ceil(lanes * IN_ROW);
    let (each, strides) = (planes * rows * along, l.layout(0).strides);
    // As many of the outer dimension at a time as have fewer than 2^31 lanes.
    let most = (MAX_INDEX / (each * lanes)).max(1);
    for first in (0..op.outer).step_by(most) {
        let stretches = each * most.min(op.outer - first);
        let call = l
            .call(k.name, ptx!("pad"))
            .block(WALKERS)
            .pointer(l.input(0) + (first * strides[0] * op.dtype.bytes()) as u64)
            .pointer(l.output(0) + (first * planes * rows * width * op.dtype.bytes()) as u64);
        strides[..4]
            .iter()
            .fold(call, |call, &stride| call.param_u64(stride))
            .params(&*op.size)
            .params(&*op.before)
            .params(&op.padded())
            .params(&[op.padding as usize, op.dtype.bytes(), lanes, stretches])
            .divisor(along)
            .divisor(rows)
            .divisor(planes)
            .launch((stretches * lanes).div_ceil(WALKERS))?;
    }
    Ok(())
}
