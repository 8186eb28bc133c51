//! Copies in CUDA: `kernels/copy.cu`.

use super::Copy;
use crate::backend::cuda::{Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::{Layout, Takes};
use crate::ops::walk::{WALKERS, Walk};

impl Kernels<Cuda> for Copy {
    const KERNELS: &'static [Kernel<Cuda, Self>] =
        &[Kernel::new("copy__sm80", always, launch).takes(&[Takes::Strided])];
}

/// Elements of a tile's side, and threads of a block that turns one.
const TILE: usize = 64;
const TURNERS: usize = 256;
/// Bytes that memory is read in at least.
const SECTOR_BYTES: usize = 32;

fn launch(k: &Kernel<Cuda, Copy>, op: &Copy, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let (bytes, out) = (op.dtype.bytes(), Layout::contiguous(op.shape));
    for part in Walk::new([Some(*l.layout(0)), Some(out), None]).parts() {
        let x = l.input(0) + (part.starts[0] * bytes) as u64;
        let out = l.output(0) + (part.start * bytes) as u64;
        let call = l.call(k.name, ptx!("copy")).pointer(x).pointer(out);
        match inner_of_x(&part.walk, bytes) {
            None => {
                let (walk, word) = part.walk.in_words([x, out], bytes);
                walk.of_words(call).param(word.0).block(WALKERS).launch(word.blocks(walk.count()))?;
            }
            Some(row) => {
                let (walk, col) = (&part.walk, part.walk.rank - 1);
                let others = (0..col).filter(|&d| d != row);
                let others = Walk::of(others.map(|d| [walk.dims[d], walk.strides[0][d], walk.strides[1][d], 0]));
                let [across, down] = [col, row].map(|d| walk.dims[d].div_ceil(TILE));
                others
                    .of_words(call.entry("copy_tiled"))
                    .params(&[walk.dims[row], walk.dims[col], walk.strides[0][row], walk.strides[0][col]])
                    .param(walk.strides[1][row])
                    .divisor(across)
                    .divisor(down)
                    .param(bytes)
                    .block(TURNERS)
                    .launch(across * down * others.count())?;
            }
        }
    }
    Ok(())
}

/// The dimension whose neighbours share a sector of memory in x, where those of the result's innermost do not.
fn inner_of_x(walk: &Walk, bytes: usize) -> Option<usize> {
    let col = walk.rank - 1;
    let wide = |d: &usize| walk.dims[*d] >= SECTOR_BYTES / bytes;
    let step = |d: &usize| walk.strides[0][*d];
    let row = (0..col).filter(wide).filter(|d| step(d) > 0).min_by_key(step)?;
    (wide(&col) && step(&row) * bytes < SECTOR_BYTES && step(&row) < step(&col)).then_some(row)
}
