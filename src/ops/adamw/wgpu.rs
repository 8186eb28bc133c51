//! AdamW in WGSL: `shaders/adamw.wgsl`.

use super::{AdamW, complement};
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;

impl Kernels<Wgpu> for AdamW {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[Kernel::new("adamw_f32__wgsl", always, launch)];
}

/// Invocations of a workgroup, each for two parameters.
const WORKGROUP: usize = 256;

fn launch(k: &Kernel<Wgpu, AdamW>, op: &AdamW, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let weight = l.output(3);
    let words = (weight.offset() % 2 + op.n).div_ceil(2);
    if op.n == 0 {
        return Ok(());
    }
    l.call(k.name, shader!("adamw", "dtype"))
        .constant("has_weight", op.weight)
        .bind(l.input(0))
        .bind(l.input(1))
        .bind(l.output(0))
        .bind(l.output(1))
        .bind(l.output(2))
        .bind(weight)
        .params(&[op.n, words])
        .param_f32(complement(op.beta1) as f32)
        .param_f32(op.beta2.0)
        .param_f32(complement(op.beta2) as f32)
        .param_f32(op.eps.0)
        .param_f32(op.weight_decay.0)
        .dispatch_many(words.div_ceil(WORKGROUP))
}
