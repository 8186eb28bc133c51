//! Joining in CUDA: `kernels/concat.cu`, in one launch for all operands.

use super::Concat;
use crate::backend::cuda::{Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch, MAX_IN, always};
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::walk::{WALKERS, Walk};

impl Kernels<Cuda> for Concat {
    const KERNELS: &'static [Kernel<Cuda, Self>] =
        &[Kernel::new("concat__sm80", always, launch).takes(&[Takes::Rows; MAX_IN])];
}

fn launch(k: &Kernel<Cuda, Concat>, op: &Concat, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let (bytes, distance) = (op.dtype.bytes(), op.total() * op.inner);
    let mut moves = Vec::with_capacity(MAX_IN);
    let mut start = 0;
    for (i, &part) in op.parts.iter().enumerate() {
        let [outer, row, ..] = l.layout(i).strides;
        let walk = Walk::of([[op.outer, outer, distance, 0], [part, row, op.inner, 0], [op.inner, 1, 1, 0]]);
        for piece in walk.parts().into_iter().filter(|piece| piece.walk.count() > 0) {
            let at = |address: u64, elements: usize| address + (elements * bytes) as u64;
            let ends = [at(l.input(i), piece.starts[0]), at(l.output(0), start + piece.starts[1])];
            moves.push((ends, piece.walk.in_words(ends, bytes)));
        }
        start += part * op.inner;
    }
    for moves in moves.chunks(MAX_IN) {
        // What a launch does not use repeats the first, and no block comes to it.
        let all = || moves.iter().chain(std::iter::repeat(&moves[0])).take(MAX_IN);
        let mut call = l.call(k.name, ptx!("concat"));
        for ([from, to], _) in all() {
            call = call.pointer(*from).pointer(*to);
        }
        for (_, (walk, word)) in all() {
            call = walk.of_words(call).param(word.0);
        }
        let blocks = moves.iter().map(|(_, (walk, word))| word.blocks(walk.count())).max().unwrap_or(0);
        call.block(WALKERS).launch_grid([blocks, moves.len(), 1])?;
    }
    Ok(())
}
