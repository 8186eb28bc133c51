//! Convolutions in WGSL: `shaders/conv.wgsl`, and how its products are cut in `ops/convolution/wgpu.rs`.

use super::Conv;
use crate::backend::wgpu::{Caps, Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::convolution::wgpu as shared;

impl Kernels<Wgpu> for Conv {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("conv_direct__wgsl", supports, direct)
            .takes(&[Takes::Rows])
            .suits(|op, _| op.product().is_narrow())
            .workspace(|op, _| op.product().direct_bytes()),
        Kernel::new("conv_tiled__wgsl", supports, tiled)
            .takes(&[Takes::Rows])
            .workspace(|op, _| op.product().tiled_bytes()),
    ];
}

fn supports(op: &Conv, _: &Caps) -> Result<(), Unsupported> {
    shared::supports_window(&op.geometry())
}

fn direct(k: &Kernel<Wgpu, Conv>, op: &Conv, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = shader!("conv", "dtype", "math", "activation", "convolution", "convolution_direct");
    op.product().direct(k.name, shader, l)
}

fn tiled(k: &Kernel<Wgpu, Conv>, op: &Conv, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = shader!("conv", "dtype", "math", "activation", "convolution", "convolution_tiled");
    op.product().tiled(k.name, shader, l)
}
