//! Root-mean-square norm in CUDA; the kernel and its launch are those of [`norm`](crate::ops::norm).

use super::RmsNorm;
use crate::backend::cuda::{Cuda, float_rows};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::Result;
use crate::ops::norm::{self, cpu::TAKES};

impl Kernels<Cuda> for RmsNorm {
    const KERNELS: &'static [Kernel<Cuda, Self>] = float_rows![("rms_norm", launch).takes(TAKES)];
}

fn launch(k: &Kernel<Cuda, RmsNorm>, op: &RmsNorm, l: &mut Launch<'_, Cuda>) -> Result<()> {
    norm::cuda::launch(k.name, &op.norm(), l)
}
