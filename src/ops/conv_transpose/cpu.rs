//! Transposed convolutions on the CPU. `x` may lie at any distances as long as its last dimension is contiguous; `weight` and
//! `out` are contiguous.
//!
//! Each output is gathered, so that sums have one order and every element is written once. Along an axis of stride s, outputs
//! with the same remainder by s meet the same taps, at neighbouring points: they are a convolution of stride 1 with
//! those taps. s of them per axis are the windows of `convolution/cpu`, whose two kernels do the rest. Outputs of one
//! window are written s apart.

use super::ConvTranspose;
use crate::backend::cpu::simd::Simd;
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::isa_rows;
use crate::layout::Takes;
use crate::ops::activation::Activation;
use crate::ops::convolution::Padding;
use crate::ops::convolution::cpu::{self as shared, Axis, Floats, Product, Sink, Tap, Window};
use crate::ops::with_float;

/// Rows of a group up to which products are computed straight from the input.
const SUITS_ROWS: usize = 4;

impl Kernels<Cpu> for ConvTranspose {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![
        ("conv_transpose_direct", supports, direct).takes(&[Takes::Rows]).suits(few_rows),
        ("conv_transpose_tiled", supports, tiled).takes(&[Takes::Rows]).workspace(workspace),
    ];
}

fn supports<S: Simd>(_: &ConvTranspose, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn few_rows(op: &ConvTranspose, _: &Caps) -> bool {
    op.channels_out / op.groups <= SUITS_ROWS
}

/// Along one axis, the outputs of each remainder by the stride.
fn phases(op: &ConvTranspose, axis: usize) -> Vec<Axis> {
    let (stride, outputs) = (op.stride[axis], op.outputs()[axis]);
    let phase = |first: usize| {
        // From tap k, output `first` gets the point where this, divided by the stride, is whole.
        let spread = |k: usize| (first + op.before[axis]) as isize - (k * op.dilation[axis]) as isize;
        let meets = |k: &usize| spread(*k) % stride as isize == 0;
        let taps = (0..op.kernel[axis]).filter(meets);
        Axis {
            size: op.size[axis],
            padding: Padding::Zeros,
            outputs: (outputs - first).div_ceil(stride),
            step: 1,
            taps: taps.map(|k| Tap { index: k, at: spread(k) / stride as isize }).collect(),
            first,
            every: stride,
        }
    };
    (0..stride.min(outputs)).map(phase).collect()
}

fn windows(op: &ConvTranspose) -> Vec<Window> {
    let [depth, height, width] = [0, 1, 2].map(|axis| phases(op, axis));
    let mut windows = Vec::with_capacity(depth.len() * height.len() * width.len());
    for d in &depth {
        for h in &height {
            windows.extend(width.iter().map(|w| [d.clone(), h.clone(), w.clone()]));
        }
    }
    windows
}

fn workspace(op: &ConvTranspose, _: &Caps) -> usize {
    let (channels, rows) = (op.channels_in / op.groups, op.channels_out / op.groups);
    shared::workspace_bytes(&windows(op), *op.kernel, op.groups, channels, rows)
}

fn product<'a>(op: &ConvTranspose, l: &Launch<'a, Cpu>) -> Product<'a> {
    let (channels, rows) = (op.channels_in / op.groups, op.channels_out / op.groups);
    let (x, taps) = (l.layout(0).strides, op.kernel.iter().product::<usize>());
    Product {
        batch: op.batch,
        groups: op.groups,
        channels,
        rows,
        windows: windows(op),
        x: Floats::of(l, 0, op.x),
        x_strides: [x[0], x[1], x[2], x[3]],
        weight: Floats::of(l, 1, op.weight),
        weight_strides: [channels * rows * taps, taps, rows * taps],
        kernel: *op.kernel,
        size_out: op.outputs(),
        bias: l.optional(2),
        activation: Activation::None,
    }
}

fn direct<S: Simd>(_: &Kernel<Cpu, ConvTranspose>, op: &ConvTranspose, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let product = product(op, l);
    with_float!(op.out, T => if let Some(out) = l.output::<T>(0) {
        shared::direct(s, &product, l.pool(), &Sink::new(out));
    });
    Ok(())
}

fn tiled<S: Simd>(_: &Kernel<Cpu, ConvTranspose>, op: &ConvTranspose, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let (product, packed) = (product(op, l), l.scratch());
    with_float!(op.out, T => if let Some(out) = l.output::<T>(0) {
        shared::tiled(s, &product, l.pool(), packed, &Sink::new(out));
    });
    Ok(())
}
