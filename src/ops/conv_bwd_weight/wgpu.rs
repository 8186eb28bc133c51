//! Gradients of convolutions' weights in WGSL: `shaders/conv_bwd_weight.wgsl`, whose products are cut as
//! `ops/convolution/wgpu.rs` tells, and `shaders/conv_bwd_weight_direct.wgsl`.

use super::ConvBwdWeight;
use crate::backend::wgpu::{Caps, Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::activation::Activation;
use crate::ops::convolution::wgpu::{self as shared, Product, Spread, Window};

impl Kernels<Wgpu> for ConvBwdWeight {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("conv_bwd_weight_direct__wgsl", supports, direct)
            .takes(&[Takes::Rows])
            .suits(|op, _| product(op).is_narrow())
            .workspace(|op, _| product(op).dots_bytes()),
        Kernel::new("conv_bwd_weight_tiled__wgsl", supports, tiled)
            .takes(&[Takes::Rows])
            .workspace(|op, _| product(op).tiled_bytes()),
    ];
}

fn supports(op: &ConvBwdWeight, _: &Caps) -> Result<(), Unsupported> {
    shared::supports_window(&op.geometry())
}

fn product(op: &ConvBwdWeight) -> Product {
    let (window, channels) = (Window::of(&op.geometry()), op.channels_in / op.groups);
    let cols = channels * op.kernel.iter().product::<usize>();
    Product {
        padding: op.padding,
        channels,
        groups: op.groups,
        batch: op.batch,
        rows: op.channels_out / op.groups,
        cols,
        depth: op.batch * window.positions.iter().product::<usize>(),
        total: op.channels_out * cols,
        channels_out: op.channels_out,
        x: DType::F32,
        factor: DType::F32,
        out: DType::F32,
        bias: false,
        activation: Activation::None,
        spread: Spread::default(),
        // Positions lie together in both factors.
        lhs_along_depth: true,
        rhs_along_depth: true,
        window,
    }
}

fn direct(k: &Kernel<Wgpu, ConvBwdWeight>, op: &ConvBwdWeight, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = shader!("conv_bwd_weight_direct", "dtype", "math", "activation", "convolution");
    product(op).dots(k.name, shader, l)
}

fn tiled(k: &Kernel<Wgpu, ConvBwdWeight>, op: &ConvBwdWeight, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = shader!("conv_bwd_weight", "dtype", "math", "activation", "convolution", "convolution_tiled");
    product(op).tiled(k.name, shader, l)
}
