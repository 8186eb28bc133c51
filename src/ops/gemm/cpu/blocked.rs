//! Packing, blocking and the walk over k, for any register tile. See `mod.rs` for the algorithm.
//!
//! KC = 256 steps: a panel's 32 KiB (f32, AVX-512) beside a tile's 15 KiB of lhs rows in a 48 KiB L1. A block of 224 rows
//! keeps 238 KiB of lhs in L2 and its 56 KiB of accumulators on the stack of the thread.
//!
//! Tried and lost (Sapphire Rapids, f32, one thread): KC = 512, 4 % slower on ViT-B's products; KC = 1024, 3 % faster at
//! 1024^3 and 5 % slower on ViT-B; asking for the next tile's lhs rows in L1, all at once, 12 % slower everywhere. Won: asking
//! for the next piece of rhs in L2, 7 % on a whole ViT-B.

use super::epilogue::{self, Epilogue, Rows};

use crate::backend::Launch;
use crate::backend::cpu::simd::{Lane, Simd, fetch};
use crate::backend::cpu::{Cpu, Pool};
use crate::dtype::{Elem, Format};
use crate::ops::gemm::Gemm;
use crate::ops::panels::pack_panels;
use crate::ops::with_float;
use bytemuck::{Pod, Zeroable};
use std::ops::Range;

/// Steps of k in a block.
pub(super) const KC: usize = 256;
/// Steps from one row of packed lhs to the next: 16 more, so that rows do not fall into the same sets of L1.
pub(super) const LDA: usize = KC + 16;
/// The most rows of a block of the result.
const BLOCK_ROWS: usize = 224;
/// Columns of the accumulators of a block.
const BLOCK_COLS: usize = 64;
/// The most rows of lhs packed at a time: bounds the workspace.
pub(super) const CHUNK_ROWS: usize = 4032;

/// A register tile.
pub(super) trait Tile: Send + Sync {
    type S: Simd;
    /// The elements of lhs.
    type Source: Elem;
    /// A step of k in packed lhs: `KR` values.
    type Step: Pod + Send + Sync;
    type Rhs: Elem;
    /// Values of k in a step.
    const KR: usize;
    /// The most rows.
    const MR: usize;

    fn simd(&self) -> Self::S;
    /// Packs a row, or a block's part of one.
    fn pack_row(&self, row: &[Self::Source], out: &mut [Self::Step]);
    /// `acc[rows, nr] += lhs[rows, steps] · rhs[steps, nr]`, for 1 to `MR` rows; lhs rows lie `LDA` apart.
    fn multiply(&self, rows: usize, lhs: &[Self::Step], rhs: &[Self::Rhs], steps: usize, acc: &mut [f32]);
}

/// Packed lhs of one chunk, then packed rhs if it is not prepared.
pub(super) fn workspace_bytes(op: &Gemm, kr: usize, panels: Format) -> usize {
    let rhs = if op.format == Format::Plain { panels.elements(op.rhs_rows(), op.k) * op.rhs.bytes() } else { 0 };
    lhs_steps(op, kr) * 4 + rhs
}

fn lhs_steps(op: &Gemm, kr: usize) -> usize {
    op.k.div_ceil(kr).div_ceil(KC) * op.m.min(CHUNK_ROWS) * LDA
}

/// Splits `0..len` into `parts` ranges of nearly equal size: where part `i` begins.
pub(super) fn deal(len: usize, parts: usize, i: usize) -> usize {
    len * i / parts
}

pub(super) fn run<T: Tile>(tile: T, op: &Gemm, panels: Format, l: &mut Launch<'_, Cpu>) {
    with_float!(op.out, O => run_as::<T, O>(&tile, op, panels, l))
}

fn run_as<T: Tile, O: Lane>(tile: &T, op: &Gemm, panels: Format, l: &mut Launch<'_, Cpu>) {
    let pool = l.pool();
    let lhs = Strided::of(l, 0, l.input::<T::Source>(0), op.batch);
    let bias = l.optional::<f32>(2);
    let residual = l.optional::<f32>(3);
    let rhs = l.input::<T::Rhs>(1);
    let scratch = l.scratch::<u32>();
    let (packed_lhs, packed_rhs) = scratch.split_at_mut(lhs_steps(op, T::KR).min(scratch.len()));
    let packed_lhs: &mut [T::Step] = bytemuck::cast_slice_mut(packed_lhs);
    let packed_rhs: &mut [T::Rhs] = bytemuck::cast_slice_mut(packed_rhs);
    let rhs_layout = *l.layout(1);
    let Some(out) = l.output::<O>(0) else { return };
    if op.m * op.n == 0 {
        return;
    }
    let elements = panels.elements(op.rhs_rows(), op.k);
    for b in 0..op.batch {
        let rhs: &[T::Rhs] = match op.format {
            Format::Plain => {
                if b == 0 || op.rhs_batch > 1 {
                    let (lead, last) = if op.rhs_batch == 1 { (0, 0) } else { (rhs_layout.strides[0], 1) };
                    let strides = [rhs_layout.strides[last], rhs_layout.strides[last + 1]];
                    let dims = [op.rhs_rows(), op.k];
                    pack_panels(
                        pool,
                        &rhs[(b * lead).min(rhs.len())..],
                        strides,
                        dims,
                        panels,
                        &mut packed_rhs[..elements],
                    );
                }
                &packed_rhs[..elements]
            }
            _ => rhs,
        };
        for first in (0..op.m).step_by(CHUNK_ROWS) {
            let rows = (op.m - first).min(CHUNK_ROWS);
            pack_lhs(tile, pool, &lhs, [b, first, rows], op.k, packed_lhs);
            let base = (b * op.m + first) * op.n;
            let epilogue = Epilogue {
                bias,
                activation: op.activation,
                residual: residual.map(|r| &r[base..base + rows * op.n]),
                gated: op.gated,
                n: op.n,
            };
            let out = Rows::new(&mut out[base..base + rows * op.n], op.n);
            multiply(tile, pool, packed_lhs, rhs, rows, op.k, &epilogue, &out);
        }
    }
}

/// The elements of lhs.
pub(super) struct Strided<'a, E> {
    data: &'a [E],
    batch_stride: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, E: Elem> Strided<'a, E> {
    pub fn of(l: &Launch<'_, Cpu>, i: usize, data: &'a [E], batch: usize) -> Self {
        let strides = l.layout(i).strides;
        let [batch_stride, row_stride, col_stride] =
            if batch == 1 { [0, strides[0], strides[1]] } else { [strides[0], strides[1], strides[2]] };
        Strided { data, batch_stride, row_stride, col_stride }
    }

    /// A part of a row.
    pub fn part(&self, batch: usize, row: usize, k: Range<usize>) -> &'a [E] {
        let start = batch * self.batch_stride + row * self.row_stride;
        &self.data[start + k.start..start + k.end]
    }
}

/// Packs lhs: for each KC all rows, entry (block · rows + row) being LDA steps.
fn pack_lhs<T: Tile>(
    tile: &T,
    pool: &Pool,
    lhs: &Strided<'_, T::Source>,
    [batch, first, rows]: [usize; 3],
    k: usize,
    out: &mut [T::Step],
) {
    let entries = k.div_ceil(T::KR).div_ceil(KC) * rows;
    const GROUP: usize = 16;
    pool.chunks_mut(&mut out[..entries * LDA], GROUP * LDA, |group, out| {
        // Rows whose elements are no neighbours are gathered, one column of all rows after the other: what lies side by
        // side in a transposed matrix is read together.
        let columns = if lhs.col_stride == 1 { 0 } else { (KC * T::KR).min(k) };
        let mut gathered = vec![T::Source::zeroed(); GROUP * columns];
        let mut entry = group * GROUP;
        let mut out = out.chunks_exact_mut(LDA);
        while out.len() > 0 {
            let (block, row) = (entry / rows, entry % rows);
            let count = out.len().min(rows - row);
            let (from, to) = (block * KC * T::KR, ((block + 1) * KC * T::KR).min(k));
            let start = batch * lhs.batch_stride + (first + row) * lhs.row_stride;
            if columns > 0 {
                for p in from..to {
                    let column = &lhs.data[start + p * lhs.col_stride..];
                    for (line, r) in gathered.chunks_exact_mut(columns).zip(0..count) {
                        line[p - from] = column[r * lhs.row_stride];
                    }
                }
            }
            for (r, out) in out.by_ref().take(count).enumerate() {
                let row = match columns {
                    0 => &lhs.data[start + r * lhs.row_stride..][from..to],
                    _ => &gathered[r * columns..][..to - from],
                };
                tile.pack_row(row, out);
            }
            entry += count;
        }
    });
}

#[allow(clippy::too_many_arguments)]
fn multiply<T: Tile, O: Lane>(
    tile: &T,
    pool: &Pool,
    lhs: &[T::Step],
    rhs: &[T::Rhs],
    rows: usize,
    k: usize,
    epilogue: &Epilogue<'_>,
    out: &Rows<'_, O>,
) {
    let nr = 2 * T::S::LANES;
    // Columns of the result that a panel stands for.
    let panel_cols = if epilogue.gated { nr / 2 } else { nr };
    let panels = epilogue.n.div_ceil(panel_cols);
    let per_block = BLOCK_COLS / nr;
    let (row_blocks, col_blocks) = (rows.div_ceil(BLOCK_ROWS), panels.div_ceil(per_block));
    let steps = k.div_ceil(T::KR);
    let panel_len = steps * T::KR * nr;
    pool.run(row_blocks * col_blocks, |part| {
        // Neighbouring parts share panels.
        let (rb, cb) = (part % row_blocks, part / row_blocks);
        let (top, bottom) = (deal(rows, row_blocks, rb), deal(rows, row_blocks, rb + 1));
        let height = bottom - top;
        let tiles = height.div_ceil(T::MR);
        let mut acc = [0f32; BLOCK_ROWS * BLOCK_COLS];
        let columns = cb * per_block..((cb + 1) * per_block).min(panels);
        for block in 0..steps.div_ceil(KC) {
            let from = block * KC;
            let count = (steps - from).min(KC);
            for (slot, panel) in columns.clone().enumerate() {
                let start = panel * panel_len + from * T::KR * nr;
                // What comes after this piece of rhs: the next panel's, or the first panel's of the next KC. It is fetched
                // into L2 while this piece is used, a share with each tile; without that a quarter of the time is lost.
                let after = match panel + 1 < columns.end {
                    true => start + panel_len,
                    false => columns.start * panel_len + (from + KC) * T::KR * nr,
                };
                let next = rhs.get(after..(after + count * T::KR * nr).min(rhs.len())).unwrap_or(&[]);
                let rhs = &rhs[start..start + count * T::KR * nr];
                for i in 0..tiles {
                    let share = &next[deal(next.len(), tiles, i)..deal(next.len(), tiles, i + 1)];
                    fetch(share);
                    let (r0, r1) = (deal(height, tiles, i), deal(height, tiles, i + 1));
                    let lhs = &lhs[(block * rows + top + r0) * LDA..];
                    let acc = &mut acc[(slot * height + r0) * nr..(slot * height + r1) * nr];
                    tile.multiply(r1 - r0, lhs, rhs, count, acc);
                }
            }
        }
        for (slot, panel) in columns.enumerate() {
            let acc = &acc[slot * height * nr..(slot + 1) * height * nr];
            epilogue::store(tile.simd(), epilogue, acc, top, panel * panel_cols, epilogue.n, out);
        }
    });
}
