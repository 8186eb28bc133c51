//! Convolutions on the CPU. `x` may lie at any distances as long as its last dimension is contiguous; `weight` and `out` are
//! contiguous.
//!
//! Many rows (channels of `out` in a group) are an implicit gemm, `convolution/cpu/tiled.rs`; up to `SUITS_ROWS`, among them
//! depthwise convolutions, are computed straight from the input, `convolution/cpu/direct.rs`. A kernel of one point is
//! the same: its columns of im2col are the input. Nothing of the size of im2col is ever made.

use super::Conv;
use crate::backend::cpu::simd::Simd;
use crate::backend::cpu::{Caps, Cpu, Slots};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::isa_rows;
use crate::layout::Takes;
use crate::ops::convolution::cpu::{self as shared, Floats, Product, SLOT, Sink, Window};
use crate::ops::with_float;

/// Rows of a group up to which products are computed straight from the input.
const SUITS_ROWS: usize = 4;

impl Kernels<Cpu> for Conv {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![
        ("conv_direct", supports, direct).takes(&[Takes::Rows]).suits(few_rows),
        ("conv_tiled", supports, tiled).takes(&[Takes::Rows]).workspace(workspace),
    ];
}

fn supports<S: Simd>(_: &Conv, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn few_rows(op: &Conv, _: &Caps) -> bool {
    op.channels_out / op.groups <= SUITS_ROWS
}

fn workspace(_: &Conv, caps: &Caps) -> usize {
    Slots::bytes(caps, SLOT)
}

fn product<'a>(op: &Conv, l: &Launch<'a, Cpu>) -> Product<'a> {
    let x = l.layout(0).strides;
    Product {
        batch: op.batch,
        groups: op.groups,
        channels: op.channels_in / op.groups,
        rows: op.channels_out / op.groups,
        windows: vec![Window::of(&op.geometry())],
        x: Floats::of(l, 0, op.x),
        x_strides: [x[0], x[1], x[2], x[3]],
        weight: Floats::of(l, 1, op.weight),
        size_out: op.geometry().outputs(),
        bias: l.optional(2),
        activation: op.activation,
    }
}

fn direct<S: Simd>(_: &Kernel<Cpu, Conv>, op: &Conv, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let product = product(op, l);
    with_float!(op.out, T => if let Some(out) = l.output::<T>(0) {
        shared::direct(s, &product, l.pool(), &Sink::new(out));
    });
    Ok(())
}

fn tiled<S: Simd>(_: &Kernel<Cpu, Conv>, op: &Conv, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let (product, slots) = (product(op, l), Slots::new(l.scratch(), SLOT));
    with_float!(op.out, T => if let Some(out) = l.output::<T>(0) {
        shared::tiled(s, &product, l.pool(), &slots, &Sink::new(out));
    });
    Ok(())
}
