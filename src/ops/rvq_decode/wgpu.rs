//! RVQ decoding in WGSL: `shaders/rvq_decode.wgsl`.

use super::RvqDecode;
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::Op;

impl Kernels<Wgpu> for RvqDecode {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[Kernel::new("rvq_decode_f32__wgsl", always, launch)];
}

fn launch(k: &Kernel<Wgpu, RvqDecode>, op: &RvqDecode, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let out = l.output(0);
    let quads = [op.codebook_dim, l.layout(1).offset, out.offset()].iter().all(|n| n.is_multiple_of(4));
    l.call(k.name, shader!("rvq_decode", "dtype", "faults", "flat"))
        .constant("quads", quads)
        .bind(l.input(0))
        .bind(l.input(1))
        .bind(out)
        .faults(RvqDecode::NAME)
        .params(&[op.n, op.codebook_dim, op.codebook_size, op.num_quantizers])
        .dispatch_flat(out, DType::F32)
}
