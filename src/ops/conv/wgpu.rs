//! Convolutions in WGSL: `shaders/conv.wgsl`, and how its products are cut in `ops/convolution/wgpu.rs`.

use super::Conv;
use crate::backend::wgpu::{Caps, Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::convolution::wgpu::{self as shared, Product, Spread, Window};

impl Kernels<Wgpu> for Conv {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("conv_direct__wgsl", supports, direct)
            .takes(&[Takes::Rows])
            .suits(|op, _| product(op).is_narrow())
            .workspace(|op, _| product(op).direct_bytes()),
        Kernel::new("conv_tiled__wgsl", supports, tiled)
            .takes(&[Takes::Rows])
            .workspace(|op, _| product(op).tiled_bytes()),
    ];
}

fn supports(op: &Conv, _: &Caps) -> Result<(), Unsupported> {
    shared::supports_window(&op.geometry())
}

fn product(op: &Conv) -> Product {
    let (window, channels) = (Window::of(&op.geometry()), op.channels_in / op.groups);
    let positions = window.positions.iter().product::<usize>();
    Product {
        padding: op.padding,
        channels,
        groups: op.groups,
        batch: op.batch,
        rows: op.channels_out / op.groups,
        cols: op.batch * positions,
        depth: channels * op.kernel.iter().product::<usize>(),
        total: op.batch * op.channels_out * positions,
        channels_out: op.channels_out,
        x: op.x,
        factor: op.weight,
        out: op.out,
        bias: op.bias,
        activation: op.activation,
        spread: Spread::default(),
        lhs_along_depth: true,
        rhs_along_depth: false,
        window,
    }
}

fn direct(k: &Kernel<Wgpu, Conv>, op: &Conv, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = shader!("conv", "dtype", "math", "activation", "convolution", "convolution_direct");
    product(op).direct(k.name, shader, l)
}

fn tiled(k: &Kernel<Wgpu, Conv>, op: &Conv, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = shader!("conv", "dtype", "math", "activation", "convolution", "convolution_tiled");
    product(op).tiled(k.name, shader, l)
}
