//! No packing in WGSL: panels are what the CPU's matrix kernels read. Weights stay plain or in blocks as files have them here,
//! and `gemm::prepare` leaves them so on every device but the CPU.

use super::PackRhs;
use crate::backend::wgpu::Wgpu;
use crate::backend::{Kernel, Kernels};

impl Kernels<Wgpu> for PackRhs {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[];
}
