//! Transposed convolutions on the CPU. `x` may lie at any distances as long as its last dimension is contiguous; `weight` and
//! `out` are contiguous.
//!
//! Each output is gathered, so that sums have one order and every element is written once. Along an axis of stride s, outputs
//! with the same remainder by s meet the same taps, at neighbouring points: they are a convolution of stride 1 with
//! those taps. s of them per axis are the windows of `convolution/cpu`, whose two kernels do the rest; outputs of one
//! window are written s apart. Before, the weight is copied, in f32, into [rows, channels, taps] for each window.
//!
//! Bound: as a convolution's; where few points meet a large weight, copying that takes longer than the products.

use super::ConvTranspose;
use crate::backend::cpu::simd::Simd;
use crate::backend::cpu::{Caps, Cpu, Pool, Slots};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::Elem;
use crate::error::{Result, Unsupported};
use crate::isa_rows;
use crate::layout::Takes;
use crate::ops::activation::Activation;
use crate::ops::convolution::Padding;
use crate::ops::convolution::cpu::{self as shared, Axis, Floats, Product, SLOT, Sink, Window};
use crate::ops::with_float;

/// Rows of a group up to which products are computed straight from the input.
const SUITS_ROWS: usize = 4;

impl Kernels<Cpu> for ConvTranspose {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![
        ("conv_transpose_direct", supports, direct).takes(&[Takes::Rows]).suits(few_rows).workspace(weight_bytes),
        ("conv_transpose_tiled", supports, tiled).takes(&[Takes::Rows]).workspace(weight_and_slots),
    ];
}

fn supports<S: Simd>(_: &ConvTranspose, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn few_rows(op: &ConvTranspose, _: &Caps) -> bool {
    op.channels_out / op.groups <= SUITS_ROWS
}

/// Along one axis, the outputs of each remainder by the stride; and which taps they meet.
fn phases(op: &ConvTranspose, axis: usize) -> Vec<(Axis, Vec<usize>)> {
    let (stride, outputs) = (op.stride[axis], op.outputs()[axis]);
    let phase = |first: usize| {
        // From tap k, output `first` gets the point where this, divided by the stride, is whole.
        let spread = |k: usize| (first + op.before[axis]) as isize - (k * op.dilation[axis]) as isize;
        let taps: Vec<usize> = (0..op.kernel[axis]).filter(|&k| spread(k) % stride as isize == 0).collect();
        let axis = Axis {
            size: op.size[axis],
            padding: Padding::Zeros,
            outputs: (outputs - first).div_ceil(stride),
            step: 1,
            taps: taps.iter().map(|&k| spread(k) / stride as isize).collect(),
            first,
            every: stride,
        };
        (axis, taps)
    };
    (0..stride.min(outputs)).map(phase).collect()
}

/// The windows; and of each the taps, as places in the weight.
fn windows(op: &ConvTranspose) -> Vec<(Window, Vec<usize>)> {
    let [depth, height, width] = [0, 1, 2].map(|axis| phases(op, axis));
    let (mut windows, mut weight) = (Vec::with_capacity(depth.len() * height.len() * width.len()), 0);
    for (d, d_taps) in &depth {
        for (h, h_taps) in &height {
            for (w, w_taps) in &width {
                let lines = d_taps.iter().flat_map(|d| h_taps.iter().map(move |h| d * op.kernel[1] + h));
                let places = lines.flat_map(|line| w_taps.iter().map(move |w| line * op.kernel[2] + w)).collect();
                let window = Window { axes: [d.clone(), h.clone(), w.clone()], weight };
                weight += op.channels_in * (op.channels_out / op.groups) * window.taps();
                windows.push((window, places));
            }
        }
    }
    windows
}

/// The weight once more: each tap belongs to one window at most.
fn weight_bytes(op: &ConvTranspose, _: &Caps) -> usize {
    op.weight_shape().iter().product::<usize>() * size_of::<f32>()
}

fn weight_and_slots(op: &ConvTranspose, caps: &Caps) -> usize {
    weight_bytes(op, caps) + Slots::bytes(caps, SLOT)
}

/// Copies the weight [groups, channels, rows, taps] into [groups, rows, channels, taps] for each window.
#[allow(unsafe_code)]
fn regroup<'a, T: Elem>(
    op: &ConvTranspose,
    pool: &Pool,
    windows: &'a [(Window, Vec<usize>)],
    weight: &[T],
    out: &mut [f32],
) {
    let (channels, rows) = (op.channels_in / op.groups, op.channels_out / op.groups);
    let all = op.kernel.iter().product::<usize>();
    let out = &Sink::new(out);
    // A few rows and channels at a time: rows lie together in each channel, and channels in each row of the result.
    const ROWS: usize = 4;
    const CHANNELS: usize = 8;
    pool.run(op.channels_out.div_ceil(ROWS), |part| {
        let part = part * ROWS..((part + 1) * ROWS).min(op.channels_out);
        let line = |row: usize, (window, taps): &'a (Window, Vec<usize>)| {
            let len = channels * taps.len();
            // SAFETY: parts share no rows, and windows no taps.
            (row, taps, unsafe { out.part::<f32>(window.weight + row * len, len) })
        };
        let mut lines: Vec<_> = part.flat_map(|row| windows.iter().map(move |window| line(row, window))).collect();
        for first in (0..channels).step_by(CHANNELS) {
            for (row, taps, out) in &mut lines {
                let from = ((*row / rows * channels + first) * rows + *row % rows) * all;
                for (t, tap) in taps.iter().enumerate() {
                    let out = out[first * taps.len() + t..].iter_mut().step_by(taps.len());
                    let weight = weight[from + tap..].iter().step_by(rows * all);
                    out.zip(weight).take(CHANNELS).for_each(|(out, weight)| *out = weight.to_f64() as f32);
                }
            }
        }
    });
}

/// The product, and the memory behind the regrouped weight.
fn product<'a>(op: &ConvTranspose, l: &mut Launch<'a, Cpu>) -> (Product<'a>, &'a mut [f32]) {
    let (x, windows) = (l.layout(0).strides, windows(op));
    let (weight, rest) = l.scratch().split_at_mut(op.weight_shape().iter().product());
    with_float!(op.weight, T => regroup::<T>(op, l.pool(), &windows, l.input(1), weight));
    let product = Product {
        batch: op.batch,
        groups: op.groups,
        channels: op.channels_in / op.groups,
        rows: op.channels_out / op.groups,
        windows: windows.into_iter().map(|(window, _)| window).collect(),
        x: Floats::of(l, 0, op.x),
        x_strides: [x[0], x[1], x[2], x[3]],
        weight: Floats::F32(weight),
        size_out: op.outputs(),
        bias: l.optional(2),
        activation: Activation::None,
    };
    (product, rest)
}

fn direct<S: Simd>(_: &Kernel<Cpu, ConvTranspose>, op: &ConvTranspose, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let (product, _) = product(op, l);
    with_float!(op.out, T => if let Some(out) = l.output::<T>(0) {
        shared::direct(s, &product, l.pool(), &Sink::new(out));
    });
    Ok(())
}

fn tiled<S: Simd>(_: &Kernel<Cpu, ConvTranspose>, op: &ConvTranspose, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let (product, rest) = product(op, l);
    let slots = Slots::new(rest, SLOT);
    with_float!(op.out, T => if let Some(out) = l.output::<T>(0) {
        shared::tiled(s, &product, l.pool(), &slots, &Sink::new(out));
    });
    Ok(())
}
