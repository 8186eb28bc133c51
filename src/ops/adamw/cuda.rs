//! AdamW in CUDA: `kernels/adamw.cu`.

use super::{AdamW, complement};
use crate::backend::cuda::{Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;

impl Kernels<Cuda> for AdamW {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[Kernel::new("adamw_f32__sm80", always, launch)];
}

/// Threads of a block, each for four parameters.
const BLOCK: usize = 256;

fn launch(k: &Kernel<Cuda, AdamW>, op: &AdamW, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let aligned = l.in_vectors(0) && (0..4).all(|i| l.out_in_vectors(i));
    l.call(k.name, ptx!("adamw"))
        .pointer(l.input(0))
        .pointer(l.input(1))
        .pointer(l.output(0))
        .pointer(l.output(1))
        .pointer(l.output(2))
        .pointer(l.output(3))
        .params(&[op.n, aligned.into()])
        .param_f32(complement(op.beta1) as f32)
        .param_f32(op.beta2.0)
        .param_f32(complement(op.beta2) as f32)
        .param_f32(op.eps.0)
        .param_f32(op.weight_decay.0)
        .param(0)
        .block(BLOCK)
        .launch(op.n.div_ceil(4 * BLOCK))
}
