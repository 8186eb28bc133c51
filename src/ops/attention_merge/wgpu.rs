//! The merge of two attentions in WGSL: `shaders/attention_merge.wgsl`.

use super::AttentionMerge;
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::dtype::DType;
use crate::error::Result;

impl Kernels<Wgpu> for AttentionMerge {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[Kernel::new("attention_merge_f32__wgsl", always, launch)];
}

fn launch(k: &Kernel<Wgpu, AttentionMerge>, op: &AttentionMerge, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let aligned = [l.input(0), l.input(2), l.output(0)].iter().all(|b| b.offset().is_multiple_of(4));
    let quads = aligned && op.head_dim.is_multiple_of(4);
    [(0, false), (1, true)].into_iter().try_for_each(|(result, sums)| {
        l.call(k.name, shader!("attention_merge", "dtype", "math", "flat"))
            .constant("sums", sums)
            .constant("quads", quads && !sums)
            .bind(l.input(0))
            .bind(l.input(1))
            .bind(l.input(2))
            .bind(l.input(3))
            .bind(l.output(result))
            .params(&[op.len_q, op.heads, op.head_dim])
            .dispatch_flat(l.output(result), DType::F32)
    })
}
