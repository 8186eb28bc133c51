//! Transposed convolutions in WGSL: `shaders/conv_transpose.wgsl`, as ordinary convolutions with a row for each phase; how
//! their products are cut is told in `ops/convolution/wgpu.rs`.

use super::ConvTranspose;
use crate::backend::wgpu::{Caps, Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::convolution::wgpu as shared;

impl Kernels<Wgpu> for ConvTranspose {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("conv_transpose_direct__wgsl", supports, direct)
            .takes(&[Takes::Rows])
            .suits(|op, _| op.product().is_narrow())
            .workspace(|op, _| op.product().direct_bytes()),
        Kernel::new("conv_transpose_tiled__wgsl", supports, tiled)
            .takes(&[Takes::Rows])
            .workspace(|op, _| op.product().tiled_bytes()),
    ];
}

fn supports(op: &ConvTranspose, _: &Caps) -> Result<(), Unsupported> {
    shared::supports(std::array::from_fn(|i| op.outputs()[i] + op.before[i] + op.after[i]))
}

fn direct(k: &Kernel<Wgpu, ConvTranspose>, op: &ConvTranspose, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = shader!("conv_transpose", "dtype", "math", "activation", "convolution", "convolution_direct");
    op.product().direct(k.name, shader, l)
}

fn tiled(k: &Kernel<Wgpu, ConvTranspose>, op: &ConvTranspose, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let shader = shader!("conv_transpose", "dtype", "math", "activation", "convolution", "convolution_tiled");
    op.product().tiled(k.name, shader, l)
}
