//! No packing in CUDA: panels are what the CPU's matrix kernels read. Weights stay plain or in blocks as files have them here,
//! and `gemm::prepare` leaves them so on every device but the CPU.

use super::PackRhs;
use crate::backend::cuda::Cuda;
use crate::backend::{Kernel, Kernels};

impl Kernels<Cuda> for PackRhs {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[];
}
