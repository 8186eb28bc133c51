//! Rotary embeddings in CUDA: `kernels/rope.cu`.

use super::{Pairs, Rope};
use crate::backend::cuda::{Caps, Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;

impl Kernels<Cuda> for Rope {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        Kernel::new("rope_f32__sm80", |op, caps| supports(op, caps, DType::F32), launch).takes(&[Takes::Rows]),
        Kernel::new("rope_bf16__sm80", |op, caps| supports(op, caps, DType::BF16), launch).takes(&[Takes::Rows]),
        Kernel::new("rope_f16__sm80", |op, caps| supports(op, caps, DType::F16), launch).takes(&[Takes::Rows]),
    ];
}

/// Threads of a block.
const THREADS: usize = 256;

/// Bytes of shared memory that the cosines and sines of some places take.
fn smem(op: &Rope, places: usize) -> usize {
    2 * 4 * (places * op.rotary_dim / 2).next_multiple_of(4)
}

fn supports(op: &Rope, caps: &Caps, dtype: DType) -> Result<(), Unsupported> {
    Unsupported::require("heads of the kernel's dtype", op.dtype == dtype)?;
    Unsupported::require("pairs that fit into shared memory", smem(op, 1) <= caps.block_smem_bytes as usize)
}

fn launch(k: &Kernel<Cuda, Rope>, op: &Rope, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let (half, places) = (op.rotary_dim / 2, op.batch * op.len);
    let [batch, place, head, ..] = l.layout(0).strides;
    let per = 16 / op.dtype.bytes();
    // Halves and neighbours alike: units are of two vectors.
    let whole = [half, op.head_dim, batch, place, head].iter().all(|n| n.is_multiple_of(per));
    let out = l.output(0).is_multiple_of(16.min(per * op.out.bytes()) as u64);
    let vectors = whole && out && l.input(0).is_multiple_of(16);
    let per = if vectors { per } else { 1 };
    let units = half / per + (op.head_dim - op.rotary_dim) / per;
    // As many places as have a pair for each thread, but not so many that multiprocessors have nothing to do.
    let spread = places.div_ceil(2 * l.device.caps().multiprocessors.max(1) as usize);
    let per_block = (THREADS / half).clamp(1, spread.max(1));
    // The pairs of axis a begin behind those of all before; axes that do not exist behind all.
    let begin = |axis: usize| op.sections.iter().take(axis).sum::<usize>();
    l.call(k.name, ptx!("rope"))
        .block(THREADS)
        .smem(smem(op, per_block))
        .pointer(l.input(0))
        .pointer(l.input(1))
        .pointer(l.input(2))
        .pointer(l.output(0))
        .param_u64(batch)
        .param_u64(place)
        .param_u64(head)
        .params(&[places, per_block])
        .divisor(op.len)
        .divisor(op.heads)
        .divisor(units)
        .params(&[op.head_dim, half, op.positions_batch])
        .dtype(op.positions)
        .params(&[begin(1), begin(2)])
        .param_f32(op.factor.0)
        .param_f32(op.sine_factor())
        .param(usize::from(op.pairs == Pairs::Interleaved))
        .param(usize::from(vectors))
        .dtype(op.out)
        .launch(if op.heads == 0 { 0 } else { places.div_ceil(per_block) })
}
