//! Layer norm in CUDA; the kernel and its launch are those of [`norm`](crate::ops::norm).

use super::LayerNorm;
use crate::backend::cuda::{Cuda, float_rows};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::Result;
use crate::ops::norm::{self, cpu::TAKES};

impl Kernels<Cuda> for LayerNorm {
    const KERNELS: &'static [Kernel<Cuda, Self>] = float_rows![("layer_norm", launch).takes(TAKES)];
}

fn launch(k: &Kernel<Cuda, LayerNorm>, op: &LayerNorm, l: &mut Launch<'_, Cuda>) -> Result<()> {
    norm::cuda::launch(k.name, &op.norm(), l)
}
