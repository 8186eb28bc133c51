//! Copies in WGSL: `shaders/copy.wgsl`.

use super::Copy;
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::walk::launch_view;

impl Kernels<Wgpu> for Copy {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("copy__wgsl", always, launch).takes(&[Takes::Strided])];
}

fn launch(k: &Kernel<Wgpu, Copy>, op: &Copy, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    launch_view(k.name, shader!("copy", "dtype", "walk", "view", "flat"), l, op.dtype, op.dtype)
}
