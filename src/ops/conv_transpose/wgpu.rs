//! Transposed convolutions in WGSL: `shaders/conv_transpose.wgsl`, as ordinary convolutions with a row for each phase; how
//! their products are cut is told in `ops/convolution/wgpu.rs`.

use super::ConvTranspose;
use crate::backend::wgpu::{Caps, Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::activation::Activation;
use crate::ops::convolution::Padding;
use crate::ops::convolution::wgpu::{self as shared, Product, Spread, Window};

impl Kernels<Wgpu> for ConvTranspose {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("conv_transpose_direct__wgsl", supports, direct)
            .takes(&[Takes::Rows])
            .suits(|op, _| product(op).is_narrow())
            .workspace(|op, _| product(op).direct_bytes()),
        Kernel::new("conv_transpose_tiled__wgsl", supports, tiled)
            .takes(&[Takes::Rows])
            .workspace(|op, _| product(op).tiled_bytes()),
    ];
}

fn supports(op: &ConvTranspose, _: &Caps) -> Result<(), Unsupported> {
    shared::supports(std::array::from_fn(|i| op.outputs()[i] + op.before[i] + op.after[i]))
}

fn product(op: &ConvTranspose) -> Product {
    let out_size = op.outputs();
    let mut window =
        Window { size: *op.size, positions: [1; 3], taps: [1; 3], stride: [1; 3], dilation: [1; 3], before: [0; 3] };
    let mut spread = Spread { kernel: *op.kernel, out_size, ..Spread::default() };
    for (i, size) in out_size.into_iter().enumerate() {
        let (stride, before) = (op.stride[i], op.before[i]);
        // One tap has no distance from another.
        let dilation = if op.kernel[i] > 1 { op.dilation[i] } else { 1 };
        // Points of out before the cut, and the first and last j.
        let end = before + size;
        let (first, last) = (before / stride, (end - 1) / stride);
        spread.phases[i] = stride.min(end);
        spread.lead[i] = before - stride * first;
        // From one t to the next one: points of x, and of out in units of `every`, the distance of taps.
        (window.dilation[i], spread.tap_step[i], spread.every[i]) = match dilation.is_multiple_of(stride) {
            true if stride == 1 => (dilation, 1, 1),
            true => (dilation / stride, dilation, dilation),
            false => (1, stride, dilation),
        };
        window.positions[i] = last - first + 1;
        window.taps[i] = match dilation.is_multiple_of(stride) {
            true => op.kernel[i],
            false => (op.kernel[i] - 1) * dilation / stride + 1,
        };
        window.before[i] = ((window.taps[i] - 1) * window.dilation[i]) as isize - first as isize;
    }
    let (channels, phases) = (op.channels_in / op.groups, spread.phases.iter().product::<usize>());
    Product {
        padding: Padding::Zeros,
        channels,
        groups: op.groups,
        batch: op.batch,
        rows: op.channels_out / op.groups * phases,
        cols: op.batch * window.positions.iter().product::<usize>(),
        depth: channels * window.taps.iter().product::<usize>(),
        total: op.out_shape().iter().product(),
        channels_out: op.channels_out,
        x: op.x,
        factor: op.weight,
        out: op.out,
        bias: op.bias,
        activation: Activation::None,
        // Phases lie together in the weight, without them taps.
        lhs_along_depth: phases == 1,
        rhs_along_depth: false,
        spread,
        window,
    }
}

fn direct(k: &Kernel<Wgpu, ConvTranspose>, op: &ConvTranspose, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = shader!("conv_transpose", "dtype", "math", "activation", "convolution", "convolution_direct");
    product(op).direct(k.name, shader, l)
}

fn tiled(k: &Kernel<Wgpu, ConvTranspose>, op: &ConvTranspose, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = shader!("conv_transpose", "dtype", "math", "activation", "convolution", "convolution_tiled");
    product(op).tiled(k.name, shader, l)
}
