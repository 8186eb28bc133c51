//! Gradients of convolutions' weights in CUDA: `kernels/conv_bwd_weight.cu`; how their products are cut is told in
//! `ops/convolution/cuda.rs`.

use super::ConvBwdWeight;
use crate::backend::cuda::{Caps, Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::convolution::cuda::{self as shared, Cutting};

impl Kernels<Cuda> for ConvBwdWeight {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        Kernel::new("conv_bwd_weight_f32_direct__sm80", supports, direct)
            .takes(&[Takes::Rows])
            .suits(|op, _| product(op).is_narrow())
            .workspace(|op, _| product(op).dots_bytes()),
        in_tiles::<128>("conv_bwd_weight_f32__sm80_m128n128").suits(|op, _| product(op).is_wide()),
        in_tiles::<64>("conv_bwd_weight_f32__sm80_m64n128"),
    ];
}

fn product(op: &ConvBwdWeight) -> Cutting {
    Cutting(op.product())
}

const fn in_tiles<const BLOCK_M: usize>(name: &'static str) -> Kernel<Cuda, ConvBwdWeight> {
    Kernel::new(name, supports, tiled::<BLOCK_M>)
        .takes(&[Takes::Rows])
        .workspace(|op, _| product(op).tiled_bytes(BLOCK_M))
}

fn supports(op: &ConvBwdWeight, _: &Caps) -> Result<(), Unsupported> {
    shared::supports(&product(op), std::array::from_fn(|i| op.size[i] + op.before[i] + op.after[i]))
}

fn direct(k: &Kernel<Cuda, ConvBwdWeight>, op: &ConvBwdWeight, l: &mut Launch<'_, Cuda>) -> Result<()> {
    product(op).dots(k.name, ptx!("conv_bwd_weight"), l)
}

fn tiled<const BLOCK_M: usize>(
    k: &Kernel<Cuda, ConvBwdWeight>,
    op: &ConvBwdWeight,
    l: &mut Launch<'_, Cuda>,
) -> Result<()> {
    product(op).tiled::<BLOCK_M>(k.name, ptx!("conv_bwd_weight"), l)
}
