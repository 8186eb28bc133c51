//! Root-mean-square norm in WGSL; the shader and its launch are those of [`norm`](crate::ops::norm).

use super::RmsNorm;
use crate::backend::wgpu::Wgpu;
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::ops::norm::{self, cpu::TAKES};

impl Kernels<Wgpu> for RmsNorm {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("rms_norm__wgsl_subgroup", |_, caps| caps.needs_subgroups(), launch::<true>).takes(TAKES),
        Kernel::new("rms_norm__wgsl", always, launch::<false>).takes(TAKES),
    ];
}

fn launch<const SUBGROUPS: bool>(k: &Kernel<Wgpu, RmsNorm>, op: &RmsNorm, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    norm::wgpu::launch::<SUBGROUPS>(k.name, &op.norm(), l)
}
