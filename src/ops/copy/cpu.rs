//! Copying on the CPU. `x` may have any strides; `out` is contiguous.
//!
//! Rows of the last dimension are spread over threads. A row whose elements are neighbours is one `memcpy`; otherwise
//! elements are gathered, in tiles of the last two dimensions so that each cache line fetched is used whole while it is
//! in L1. Bound: memory, one read and one write.

use super::Copy;
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::Elem;
use crate::error::{Result, Unsupported};
use crate::layout::{Layout, Takes};
use crate::with_elem;

impl Kernels<Cpu> for Copy {
    const KERNELS: &'static [Kernel<Cpu, Self>] =
        &[Kernel::new("copy__portable", supports, launch).takes(&[Takes::Strided])];
}

fn supports(_: &Copy, _: &Caps) -> Result<(), Unsupported> {
    Ok(())
}

fn launch(_: &Kernel<Cpu, Copy>, op: &Copy, l: &mut Launch<'_, Cpu>) -> Result<()> {
    with_elem!(op.dtype, T => strided::<T>(l));
    Ok(())
}

/// Rows of a tile: with 64-byte lines and 4-byte elements, 16 columns × 64 rows are 4 KiB on either side.
const TILE_ROWS: usize = 64;

fn strided<T: Elem>(l: &mut Launch<'_, Cpu>) {
    let (x, layout) = (l.input::<T>(0), *l.layout(0));
    let Some(out) = l.output::<T>(0) else { return };
    let (rows, cols) = layout.shape.rows();
    if rows * cols == 0 {
        return;
    }
    let step = layout.shape.len().checked_sub(1).map_or(1, |last| layout.strides[last]);
    let tile = if step == 1 { (16384 / cols).max(1) } else { TILE_ROWS };
    l.pool().chunks_mut(out, tile * cols, |i, out| {
        let starts: Vec<usize> = (0..out.len() / cols).map(|j| row_start(&layout, i * tile + j)).collect();
        if step == 1 {
            for (&at, out) in starts.iter().zip(out.chunks_exact_mut(cols)) {
                out.copy_from_slice(&x[at..at + cols]);
            }
            return;
        }
        for from in (0..cols).step_by(16) {
            let to = (from + 16).min(cols);
            for (j, &at) in starts.iter().enumerate() {
                for (c, out) in out[j * cols + from..j * cols + to].iter_mut().enumerate() {
                    *out = x[at + (from + c) * step];
                }
            }
        }
    });
}

/// Where row `i` (all dimensions but the last, flattened) starts, counted from the operand's first element.
fn row_start(layout: &Layout, mut i: usize) -> usize {
    let mut at = 0;
    for d in (0..layout.shape.len().saturating_sub(1)).rev() {
        at += i % layout.shape[d] * layout.strides[d];
        i /= layout.shape[d];
    }
    at
}
