//! Transposed convolutions on the CPU. `x` may lie at any distances as long as its last dimension is contiguous; `weight` and
//! `out` are contiguous.
//!
//! Each output is gathered, so that sums have one order and every element is written once. Along an axis of stride s, outputs
//! with the same remainder by s meet the same taps, at neighbouring points: they are a convolution of stride 1 with
//! those taps. s of them per axis are the windows of `convolution/cpu`, whose two kernels do the rest; outputs of one
//! window are written s apart. Before, the weight is copied, in f32, into [rows, channels, taps] for each window.

use super::ConvTranspose;
use crate::backend::cpu::simd::Simd;
use crate::backend::cpu::{Caps, Cpu, Pool};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::Elem;
use crate::error::{Result, Unsupported};
use crate::isa_rows;
use crate::layout::Takes;
use crate::ops::activation::Activation;
use crate::ops::convolution::Padding;
use crate::ops::convolution::cpu::{self as shared, Axis, Floats, Product, Sink, Window};
use crate::ops::with_float;

/// Rows of a group up to which products are computed straight from the input.
const SUITS_ROWS: usize = 4;

impl Kernels<Cpu> for ConvTranspose {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![
        ("conv_transpose_direct", supports, direct).takes(&[Takes::Rows]).suits(few_rows).workspace(workspace),
        ("conv_transpose_tiled", supports, tiled).takes(&[Takes::Rows]).workspace(workspace),
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
fn workspace(op: &ConvTranspose, _: &Caps) -> usize {
    op.weight_shape().iter().product::<usize>() * size_of::<f32>()
}

/// Copies the weight [groups, channels, rows, taps] into [groups, rows, channels, taps] for each window.
fn regroup<T: Elem>(op: &ConvTranspose, pool: &Pool, windows: &[(Window, Vec<usize>)], weight: &[T], out: &mut [f32]) {
    let (channels, rows) = (op.channels_in / op.groups, op.channels_out / op.groups);
    let all = op.kernel.iter().product::<usize>();
    // Some rows at a time: they lie together in each channel, while each is written from its beginning to its end.
    const ROWS: usize = 16;
    for (window, taps) in windows.iter().filter(|(_, taps)| !taps.is_empty()) {
        let len = channels * taps.len();
        let out = &mut out[window.weight..][..op.channels_out * len];
        pool.chunks_mut(out, ROWS * len, |i, out| {
            for channel in 0..channels {
                for (j, out) in out.chunks_exact_mut(len).enumerate() {
                    let (group, row) = ((i * ROWS + j) / rows, (i * ROWS + j) % rows);
                    let weight = &weight[((group * channels + channel) * rows + row) * all..][..all];
                    for (out, &tap) in out[channel * taps.len()..].iter_mut().zip(taps) {
                        *out = weight[tap].to_f64() as f32;
                    }
                }
            }
        });
    }
}

fn product<'a>(op: &ConvTranspose, l: &mut Launch<'a, Cpu>) -> Product<'a> {
    let (x, windows, scratch) = (l.layout(0).strides, windows(op), l.scratch());
    with_float!(op.weight, T => regroup::<T>(op, l.pool(), &windows, l.input(1), scratch));
    Product {
        batch: op.batch,
        groups: op.groups,
        channels: op.channels_in / op.groups,
        rows: op.channels_out / op.groups,
        windows: windows.into_iter().map(|(window, _)| window).collect(),
        x: Floats::of(l, 0, op.x),
        x_strides: [x[0], x[1], x[2], x[3]],
        weight: Floats::F32(scratch),
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
    let product = product(op, l);
    with_float!(op.out, T => if let Some(out) = l.output::<T>(0) {
        shared::tiled(s, &product, l.pool(), &Sink::new(out));
    });
    Ok(())
}
