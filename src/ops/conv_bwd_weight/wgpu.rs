//! Gradients of convolutions' weights in WGSL: `shaders/conv_bwd_weight.wgsl`, whose products are cut as
//! `ops/convolution/wgpu.rs` tells, and `shaders/conv_bwd_weight_direct.wgsl`.

use super::ConvBwdWeight;
use crate::backend::wgpu::{Caps, Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::convolution::wgpu as shared;

impl Kernels<Wgpu> for ConvBwdWeight {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("conv_bwd_weight_direct__wgsl", supports, direct)
            .takes(&[Takes::Rows])
            .suits(|op, _| op.product().is_narrow())
            .workspace(|op, _| op.product().dots_bytes()),
        Kernel::new("conv_bwd_weight_tiled__wgsl", supports, tiled)
            .takes(&[Takes::Rows])
            .workspace(|op, _| op.product().tiled_bytes()),
    ];
}

fn supports(op: &ConvBwdWeight, _: &Caps) -> Result<(), Unsupported> {
    shared::supports_window(&op.geometry())
}

fn direct(k: &Kernel<Wgpu, ConvBwdWeight>, op: &ConvBwdWeight, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = shader!("conv_bwd_weight_direct", "dtype", "math", "activation", "convolution");
    op.product().dots(k.name, shader, l)
}

fn tiled(k: &Kernel<Wgpu, ConvBwdWeight>, op: &ConvBwdWeight, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = shader!("conv_bwd_weight", "dtype", "math", "activation", "convolution", "convolution_tiled");
    op.product().tiled(k.name, shader, l)
}
