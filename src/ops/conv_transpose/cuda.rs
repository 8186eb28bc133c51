//! Transposed convolutions in CUDA: `kernels/conv_transpose.cu` and `kernels/conv_transpose_mma.cu`, as ordinary convolutions
//! with a row for each phase; how their products are cut is told in `ops/convolution/cuda.rs`.

use super::ConvTranspose;
use crate::backend::cuda::{Cuda, Module, ptx};
use crate::backend::{Kernel, Kernels};
use crate::dtype::DType;
use crate::ops::convolution::cuda::{
    Convolution, Cutting, any, direct_of, in_tiles, is_wide, of, on_tensor_cores, straight,
};

impl Kernels<Cuda> for ConvTranspose {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        straight("conv_transpose_f32_direct__sm80", |op, caps| direct_of(op, DType::F32, caps)),
        straight("conv_transpose_bf16_direct__sm80", |op, caps| direct_of(op, DType::BF16, caps)),
        straight("conv_transpose_f16_direct__sm80", |op, caps| direct_of(op, DType::F16, caps)),
        on_tensor_cores::<_, 128>("conv_transpose_bf16__sm80_m128n128", |op, _| of(op, DType::BF16)).suits(is_wide),
        on_tensor_cores::<_, 64>("conv_transpose_bf16__sm80_m64n128", |op, _| of(op, DType::BF16)),
        on_tensor_cores::<_, 128>("conv_transpose_f16__sm80_m128n128", |op, _| of(op, DType::F16)).suits(is_wide),
        on_tensor_cores::<_, 64>("conv_transpose_f16__sm80_m64n128", |op, _| of(op, DType::F16)),
        in_tiles::<_, 128>("conv_transpose_f32__sm80_m128n128", |op, _| of(op, DType::F32)).suits(is_wide),
        in_tiles::<_, 64>("conv_transpose_f32__sm80_m64n128", |op, _| of(op, DType::F32)),
        in_tiles::<_, 64>("conv_transpose_any__sm80_m64n128", any),
    ];
}

impl Convolution for ConvTranspose {
    const MODULE: &'static Module = ptx!("conv_transpose");
    const TENSOR_MODULE: &'static Module = ptx!("conv_transpose_mma");
    const PACK: &'static str = "conv_transpose_pack__sm80";

    fn cutting(&self) -> Cutting {
        Cutting(self.product())
    }

    /// Those of the result, with what is cut off.
    fn points(&self) -> [usize; 3] {
        std::array::from_fn(|i| self.outputs()[i] + self.before[i] + self.after[i])
    }

    fn dtypes(&self) -> [DType; 2] {
        [self.x, self.weight]
    }
}
