//! Casts in WGSL: `shaders/cast.wgsl`.

use super::Cast;
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::walk::launch_view;

impl Kernels<Wgpu> for Cast {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("cast__wgsl", always, launch).takes(&[Takes::Strided])];
}

fn launch(k: &Kernel<Wgpu, Cast>, op: &Cast, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    launch_view(k.name, shader!("cast", "dtype", "walk", "view", "flat"), l, op.from, op.to)
}
