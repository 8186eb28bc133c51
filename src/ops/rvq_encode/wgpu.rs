//! Residual vector quantisation in WGSL, encoding: `shaders/rvq_encode.wgsl`.

use super::{Distance, RvqEncode};
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;

/// Vectors of a workgroup.
const GROUP: usize = 8;

impl Kernels<Wgpu> for RvqEncode {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[Kernel::new("rvq_encode_f32__wgsl", always, launch)
        .workspace(|op, _| 4 * op.n.next_multiple_of(GROUP) * op.codebook_dim)];
}

fn launch(k: &Kernel<Wgpu, RvqEncode>, op: &RvqEncode, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let books = l.input(1);
    let dim = op.codebook_dim;
    // Four times what sums of `dim` positive numbers in f32 err by.
    let slack = 4.0 * f32::EPSILON * (dim as f32).sqrt().max(2.0);
    l.call(k.name, shader!("rvq_encode", "dtype", "math"))
        .constant("cosine", op.distance == Distance::Cosine)
        .constant("entry_vectors", dim.is_multiple_of(4) && books.offset().is_multiple_of(4))
        .bind(l.input(0))
        .bind(books)
        .bind(l.output(0))
        .bind(l.output(1))
        .bind(l.output(2))
        .bind(if dim == 0 { l.output(1) } else { l.scratch() })
        .params(&[op.n, dim, op.codebook_size, op.num_quantizers])
        .param_f32(slack)
        .dispatch_many(op.n.div_ceil(GROUP))
}
