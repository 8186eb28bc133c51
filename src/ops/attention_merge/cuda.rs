//! The merge of two attentions in CUDA: `kernels/attention_merge.cu`.

use super::AttentionMerge;
use crate::backend::cuda::{Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;

impl Kernels<Cuda> for AttentionMerge {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[Kernel::new("attention_merge_f32__sm80", always, launch)];
}

fn launch(k: &Kernel<Cuda, AttentionMerge>, op: &AttentionMerge, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let rows = op.batch * op.len_q * op.heads;
    let vectors = op.head_dim.is_multiple_of(4) && l.in_vectors(0) && l.in_vectors(2) && l.out_in_vectors(0);
    let lanes = op.head_dim.div_ceil(if vectors { 4 } else { 1 }).next_power_of_two().min(256);
    (0..4)
        .fold(l.call(k.name, ptx!("attention_merge")), |call, i| call.pointer(l.input(i)))
        .pointer(l.output(0))
        .pointer(l.output(1))
        .params(&[rows, op.len_q, op.heads, op.head_dim, lanes, vectors.into()])
        .block(256)
        .launch(rows.div_ceil(256 / lanes))
}
