//! Residual vector quantisation in CUDA, encoding: `kernels/rvq_encode.cu`.

use super::{Distance, RvqEncode};
use crate::backend::cuda::{Call, Caps, Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::{Result, Unsupported};

/// Entries of a tile, and columns and bytes of one stage of it, the entries' two terms included.
const TILE: usize = 128;
const COLUMNS: usize = 64;
const IMAGE_BYTES: usize = TILE * COLUMNS * 2;
const STAGE_BYTES: usize = IMAGE_BYTES + TILE * 8;
const STAGES: usize = 3;
/// Entries that a row notes in each of its lists.
const CAPACITY: usize = 8;

/// A block of the tensor-core kernel: its vectors, and warps that share the entries of each.
struct Block {
    rows: usize,
    warps_n: usize,
    threads: usize,
}
const LARGE: Block = Block { rows: 128, warps_n: 2, threads: 256 };
const SMALL: Block = Block { rows: 32, warps_n: 4, threads: 128 };

impl Kernels<Cuda> for RvqEncode {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        Kernel::new("rvq_encode_f32_m128__sm80", |op, caps| LARGE.fits(op, caps), |k, op, l| LARGE.launch(k, op, l))
            .tunables(&[("block_m", 128)])
            .suits(|op, caps| op.n.div_ceil(LARGE.rows) >= caps.multiprocessors as usize)
            .workspace(workspace),
        Kernel::new("rvq_encode_f32_m32__sm80", |op, caps| SMALL.fits(op, caps), |k, op, l| SMALL.launch(k, op, l))
            .tunables(&[("block_m", 32)])
            .workspace(workspace),
        Kernel::new("rvq_encode_f32_direct__sm80", always, direct),
    ];
}

/// Entries with those that fill the last tile up, and the stages that their image has.
fn entries(op: &RvqEncode) -> usize {
    op.num_quantizers * op.codebook_size.next_multiple_of(TILE)
}
fn image_bytes(op: &RvqEncode) -> usize {
    entries(op) / TILE * op.codebook_dim.div_ceil(COLUMNS) * IMAGE_BYTES
}

/// The image; of each entry the two terms of its scores and its length.
fn workspace(op: &RvqEncode, _: &Caps) -> usize {
    image_bytes(op) + 12 * entries(op)
}

/// The struct `Problem`.
fn problem<'a>(call: Call<'a>, op: &RvqEncode, l: &Launch<'a, Cuda>) -> Call<'a> {
    call.pointer(l.input(0))
        .pointer(l.input(1))
        .pointer(l.output(0))
        .pointer(l.output(1))
        .pointer(l.output(2))
        .params(&[op.n, op.codebook_dim, op.codebook_size, op.num_quantizers, cosine(op), 0])
}

fn cosine(op: &RvqEncode) -> usize {
    usize::from(op.distance == Distance::Cosine)
}

impl Block {
    fn smem_bytes(&self, op: &RvqEncode) -> usize {
        let residuals = op.codebook_dim.next_multiple_of(COLUMNS) * self.rows * 2;
        // Lists with their counts and largest scores; windows and lengths of rows; a float of each warp.
        let lists = self.warps_n * self.rows * (CAPACITY + 2) * 4;
        STAGES * STAGE_BYTES + residuals + lists + self.rows * 8 + 128
    }

    fn fits(&self, op: &RvqEncode, caps: &Caps) -> Result<(), Unsupported> {
        Unsupported::require("columns", op.codebook_dim > 0)?;
        Unsupported::at_most("bytes of shared memory", self.smem_bytes(op), caps.block_smem_bytes)
    }

    fn launch(&self, k: &Kernel<Cuda, RvqEncode>, op: &RvqEncode, l: &mut Launch<'_, Cuda>) -> Result<()> {
        let (image, entries) = (l.scratch(), entries(op));
        let terms = image + image_bytes(op) as u64;
        let lengths = terms + 8 * entries as u64;
        l.call("rvq_encode_prepare__sm80", ptx!("rvq_encode"))
            .pointer(l.input(1))
            .pointer(image)
            .pointer(terms)
            .pointer(lengths)
            .params(&[op.num_quantizers, op.codebook_size, op.codebook_dim, cosine(op)])
            .launch(entries.div_ceil(8))?;
        problem(l.call(k.name, ptx!("rvq_encode")), op, l)
            .pointer(image)
            .pointer(terms)
            .pointer(lengths)
            .block(self.threads)
            .smem(self.smem_bytes(op))
            .launch(op.n.div_ceil(self.rows))
    }
}

fn direct(k: &Kernel<Cuda, RvqEncode>, op: &RvqEncode, l: &mut Launch<'_, Cuda>) -> Result<()> {
    problem(l.call(k.name, ptx!("rvq_encode")), op, l).launch(op.n.div_ceil(8))
}
