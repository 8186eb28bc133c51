//! RVQ decoding in CUDA: `kernels/rvq_decode.cu`.

use super::RvqDecode;
use crate::backend::cuda::{Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::ops::Op;

impl Kernels<Cuda> for RvqDecode {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[Kernel::new("rvq_decode_f32__sm80", always, launch)];
}

fn launch(k: &Kernel<Cuda, RvqDecode>, op: &RvqDecode, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let vectors = op.codebook_dim.is_multiple_of(4) && l.in_vectors(1) && l.out_in_vectors(0);
    let (entry, width) = if vectors { ("rvq_decode_f32_v4__sm80", 4) } else { (k.name, 1) };
    l.call(entry, ptx!("rvq_decode"))
        .pointer(l.input(0))
        .pointer(l.input(1))
        .pointer(l.output(0))
        .params(&[op.n, op.codebook_dim, op.codebook_size, op.num_quantizers])
        .faults(RvqDecode::NAME)
        .launch((op.n * (op.codebook_dim / width)).div_ceil(256))
}
