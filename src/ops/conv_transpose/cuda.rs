//! Transposed convolutions in CUDA: `kernels/conv_transpose.cu` and `kernels/conv_transpose_mma.cu`, as ordinary convolutions
//! with a row for each phase; how their products are cut is told in `ops/convolution/cuda.rs`.

use super::ConvTranspose;
use crate::backend::cuda::{Caps, Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::convolution::cuda::{self as shared, Cutting};

impl Kernels<Cuda> for ConvTranspose {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        straight("conv_transpose_f32_direct__sm80", |op, caps| supports_direct(op, DType::F32, caps)),
        straight("conv_transpose_bf16_direct__sm80", |op, caps| supports_direct(op, DType::BF16, caps)),
        straight("conv_transpose_f16_direct__sm80", |op, caps| supports_direct(op, DType::F16, caps)),
        on_tensor_cores::<128>("conv_transpose_bf16__sm80_m128n128", |op, _| supports_of(op, DType::BF16))
            .suits(is_wide),
        on_tensor_cores::<64>("conv_transpose_bf16__sm80_m64n128", |op, _| supports_of(op, DType::BF16)),
        on_tensor_cores::<128>("conv_transpose_f16__sm80_m128n128", |op, _| supports_of(op, DType::F16)).suits(is_wide),
        on_tensor_cores::<64>("conv_transpose_f16__sm80_m64n128", |op, _| supports_of(op, DType::F16)),
        in_tiles::<128>("conv_transpose_f32__sm80_m128n128", |op, _| supports_of(op, DType::F32)).suits(is_wide),
        in_tiles::<64>("conv_transpose_f32__sm80_m64n128", |op, _| supports_of(op, DType::F32)),
        in_tiles::<64>("conv_transpose_any__sm80_m64n128", supports),
    ];
}

fn product(op: &ConvTranspose) -> Cutting {
    Cutting(op.product())
}

const fn straight(
    name: &'static str,
    supports: fn(&ConvTranspose, &Caps) -> Result<(), Unsupported>,
) -> Kernel<Cuda, ConvTranspose> {
    Kernel::new(name, supports, direct)
        .takes(&[Takes::Rows])
        .suits(|op, _| product(op).is_narrow())
        .workspace(|op, _| product(op).direct_bytes())
}

const fn on_tensor_cores<const BLOCK_M: usize>(
    name: &'static str,
    supports: fn(&ConvTranspose, &Caps) -> Result<(), Unsupported>,
) -> Kernel<Cuda, ConvTranspose> {
    Kernel::new(name, supports, tensor::<BLOCK_M>)
        .takes(&[Takes::Rows])
        .workspace(|op, _| product(op).tensor_bytes(BLOCK_M))
}

const fn in_tiles<const BLOCK_M: usize>(
    name: &'static str,
    supports: fn(&ConvTranspose, &Caps) -> Result<(), Unsupported>,
) -> Kernel<Cuda, ConvTranspose> {
    Kernel::new(name, supports, tiled::<BLOCK_M>)
        .takes(&[Takes::Rows])
        .workspace(|op, _| product(op).tiled_bytes(BLOCK_M))
}

/// Points of the result along each axis, with those cut off.
fn points(op: &ConvTranspose) -> [usize; 3] {
    std::array::from_fn(|i| op.outputs()[i] + op.before[i] + op.after[i])
}

fn supports(op: &ConvTranspose, _: &Caps) -> Result<(), Unsupported> {
    shared::supports(&product(op), points(op))
}

fn supports_of(op: &ConvTranspose, dtype: DType) -> Result<(), Unsupported> {
    shared::are(dtype, [op.x, op.weight])?;
    shared::supports(&product(op), points(op))
}

fn supports_direct(op: &ConvTranspose, x: DType, caps: &Caps) -> Result<(), Unsupported> {
    shared::are(x, [op.x])?;
    shared::supports_direct(&product(op), points(op), caps)
}

fn is_wide(op: &ConvTranspose, _: &Caps) -> bool {
    product(op).is_wide()
}

fn direct(k: &Kernel<Cuda, ConvTranspose>, op: &ConvTranspose, l: &mut Launch<'_, Cuda>) -> Result<()> {
    product(op).direct(k.name, ptx!("conv_transpose"), l)
}

fn tensor<const BLOCK_M: usize>(
    k: &Kernel<Cuda, ConvTranspose>,
    op: &ConvTranspose,
    l: &mut Launch<'_, Cuda>,
) -> Result<()> {
    product(op).tensor::<BLOCK_M>(k.name, ptx!("conv_transpose_mma"), l, "conv_transpose_pack__sm80")
}

fn tiled<const BLOCK_M: usize>(
    k: &Kernel<Cuda, ConvTranspose>,
    op: &ConvTranspose,
    l: &mut Launch<'_, Cuda>,
) -> Result<()> {
    product(op).tiled::<BLOCK_M>(k.name, ptx!("conv_transpose"), l)
}
