//! Convolutions in CUDA: `kernels/conv.cu` and `kernels/conv_mma.cu`; how their products are cut is told in
//! `ops/convolution/cuda.rs`.

use super::Conv;
use crate::backend::cuda::{Cuda, Module, ptx};
use crate::backend::{Kernel, Kernels};
use crate::dtype::DType;
use crate::ops::convolution::cuda::{
    Convolution, Cutting, any, direct_of, in_tiles, is_wide, of, on_tensor_cores, straight,
};

impl Kernels<Cuda> for Conv {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        straight("conv_f32_direct__sm80", |op, caps| direct_of(op, DType::F32, caps)),
        straight("conv_bf16_direct__sm80", |op, caps| direct_of(op, DType::BF16, caps)),
        straight("conv_f16_direct__sm80", |op, caps| direct_of(op, DType::F16, caps)),
        on_tensor_cores::<_, 128>("conv_bf16__sm80_m128n128", |op, _| of(op, DType::BF16)).suits(is_wide),
        on_tensor_cores::<_, 64>("conv_bf16__sm80_m64n128", |op, _| of(op, DType::BF16)),
        on_tensor_cores::<_, 128>("conv_f16__sm80_m128n128", |op, _| of(op, DType::F16)).suits(is_wide),
        on_tensor_cores::<_, 64>("conv_f16__sm80_m64n128", |op, _| of(op, DType::F16)),
        in_tiles::<_, 128>("conv_f32__sm80_m128n128", |op, _| of(op, DType::F32)).suits(is_wide),
        in_tiles::<_, 64>("conv_f32__sm80_m64n128", |op, _| of(op, DType::F32)),
        in_tiles::<_, 64>("conv_any__sm80_m64n128", any),
    ];
}

impl Convolution for Conv {
    const MODULE: &'static Module = ptx!("conv");
    const TENSOR_MODULE: &'static Module = ptx!("conv_mma");
    const PACK: &'static str = "conv_pack__sm80";

    fn cutting(&self) -> Cutting {
        Cutting(self.product())
    }

    fn points(&self) -> [usize; 3] {
        std::array::from_fn(|i| self.size[i] + self.before[i] + self.after[i])
    }

    fn dtypes(&self) -> [DType; 2] {
        [self.x, self.weight]
    }
}
