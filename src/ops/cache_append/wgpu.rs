//! Appending to a cache in WGSL: `shaders/cache_append.wgsl`.

use super::CacheAppend;
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::Op;

impl Kernels<Wgpu> for CacheAppend {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("cache_append__wgsl", always, launch).takes(&[Takes::Rows])];
}

fn launch(k: &Kernel<Wgpu, CacheAppend>, op: &CacheAppend, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let [batch, row, ..] = l.layout(0).strides;
    let call = l
        .call(k.name, shader!("cache_append", "dtype", "row_out", "runs", "faults"))
        .dtype("x_dtype", op.dtype)
        .bind(l.input(0))
        .bind(l.input(1))
        .bind(l.output(0))
        .faults(CacheAppend::NAME);
    let limit = op.capacity - op.len + 1;
    call.dispatch_runs([op.batch, op.len * op.width], op.cache, &[op.width, op.capacity, batch, row, limit])
}
