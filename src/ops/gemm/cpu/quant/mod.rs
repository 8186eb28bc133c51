//! Products with quantised weights: rhs in `Blocks` or `BlockPanels` stays as it is, lhs is rounded to two bytes.
//!
//! Layouts: lhs [m, k] with contiguous rows at any distance; rhs as [`Format::BlockPanels`] says (`Blocks` are packed into the
//! workspace first); out contiguous.
//!
//! Algorithm:
//! 1. Every row of lhs is rounded, 32 values at a time: x = factor · (254 · high + low). The rounded rows lie in the workspace,
//!    k in chunks of 512, all rows of a chunk together.
//! 2. Work is cut into blocks of the result: two vectors of columns by up to 224 rows. A block walks the chunks of k. Up to
//!    `FEW` rows multiply with packed weights straight away; for more, both vectors are unpacked once (to bytes and f32
//!    factors, 22 KiB in L1) and meet the rows in register tiles (`tile.rs`).
//! 3. Sums pass through the epilogue that all products share.
//!
//! Sums are in the same order with any number of rows: a row's result does not depend on the others.
//!
//! Bound: memory (rhs, read once) for few rows, else arithmetic. What few rows read is asked for into L1, line by line among the
//! products, 3 KiB ahead. One row from memory, one thread of a Zen 5 VM that reads 41 GB/s, q8_0 / q4_0 / q4_k / q6_k: 34 / 35.6 /
//! 35 / 34 GB/s (before, a chunk of 8.5 KiB ahead into L2, a block's lines at once: 30 / 31.5 / 33.4 / 31); from L3 q8_0 91 GB/s (77).
//! Tried and lost, q8_0: 1 KiB ahead 30.5, 8.5 KiB ahead 33 and 90, all lines of a block at once 33 and 88; one vector at a time, so
//! that one stream is read, 33 and 75.

mod dot;
mod tile;
mod weights;
#[cfg(target_arch = "x86_64")]
pub(super) mod x86;

use super::blocked::{CHUNK_ROWS, Strided};
use super::epilogue::{self, Epilogue, Rows};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd};
use crate::backend::cpu::{Caps, Cpu, Pool, deal};
use crate::backend::{Kernel, Launch};
use crate::dtype::{Format, PANEL_ROWS, Quant};
use crate::error::{Result, Unsupported};
use crate::ops::gemm::Gemm;
use crate::ops::panels::pack_blocks;
use crate::ops::with_float;
pub(super) use dot::Dot;
use std::marker::PhantomData;
use tile::{Rounded, round, tile};
use weights::{BLOCK, BLOCKS, Kind, Panel, Q4_0, Q4_1, Q4_K, Q6_K, Q8_0, Scratch, bytes_of, unpack};

/// Rows that multiply with packed weights.
const FEW: usize = 4;
/// The most rows of a block of the result.
const BLOCK_ROWS: usize = 224;

pub(super) fn supports<D: Dot>(op: &Gemm, caps: &Caps) -> Result<(), Unsupported> {
    D::supported(caps)?;
    Unsupported::require("a quantised rhs", op.format.quant().is_some())
}

pub(super) fn workspace(op: &Gemm, _: &Caps) -> usize {
    let packed = match op.format {
        Format::Blocks(quant) => packed(op, quant).elements(op.rhs_rows(), op.k),
        _ => 0,
    };
    lhs_len(op) * size_of::<Rounded>() + packed
}

fn lhs_len(op: &Gemm) -> usize {
    (op.k / BLOCK).div_ceil(BLOCKS) * BLOCKS * op.m.min(CHUNK_ROWS)
}

fn packed(op: &Gemm, quant: Quant) -> Format {
    Format::BlockPanels { quant, gated: op.gated }
}

pub(super) fn launch<D: Dot>(_: &Kernel<Cpu, Gemm>, op: &Gemm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let d = D::detect().expect("supports() has checked it");
    with_float!(op.out, O => match op.format.quant() {
        Some(Quant::Q8_0) => run::<D, Q8_0, O>(d, op, l),
        Some(Quant::Q4_0) => run::<D, Q4_0, O>(d, op, l),
        Some(Quant::Q4_1) => run::<D, Q4_1, O>(d, op, l),
        Some(Quant::Q4_K) => run::<D, Q4_K, O>(d, op, l),
        Some(Quant::Q6_K) => run::<D, Q6_K, O>(d, op, l),
        None => {}
    });
    Ok(())
}

fn run<D: Dot, K: Kind, O: Lane>(d: D, op: &Gemm, l: &mut Launch<'_, Cpu>) {
    let Some(out) = l.output::<O>(0).filter(|out| !out.is_empty()) else { return };
    let pool = l.pool();
    let (rounded, more) = l.scratch::<u8>().split_at_mut(lhs_len(op) * size_of::<Rounded>());
    // (An empty workspace need not be aligned.)
    let rounded: &mut [Rounded] = bytemuck::try_cast_slice_mut(rounded).unwrap_or_default();
    let rhs = match op.format {
        Format::Blocks(quant) => {
            let more = &mut more[..packed(op, quant).elements(op.rhs_rows(), op.k)];
            pack_blocks(pool, l.input(1), [op.rhs_rows(), op.k], quant, op.gated, more);
            more
        }
        _ => l.input(1),
    };
    for batch in 0..op.batch {
        for first in (0..op.m).step_by(CHUNK_ROWS) {
            let rows = (op.m - first).min(CHUNK_ROWS);
            with_float!(op.lhs, L => {
                let lhs = Strided::of(l, 0, l.input::<L>(0), op.batch);
                round_rows(d, pool, &lhs, [batch, first, rows], op.k, K::QUANT, rounded);
            });
            let span = (batch * op.m + first) * op.n..(batch * op.m + first + rows) * op.n;
            let epilogue = Epilogue {
                bias: l.optional(2),
                activation: op.activation,
                residual: l.optional::<f32>(3).map(|r| &r[span.clone()]),
                gated: op.gated,
                n: op.n,
            };
            let out = Rows::new(&mut out[span], op.n);
            Job { d, lhs: rounded, rhs: Panels::<K>::new(op, rhs), rows, epilogue, out }.run(pool);
        }
    }
}

/// Rounded lhs holds, for each chunk of k, all rows: entry (chunk · rows + row) of `BLOCKS` blocks.
fn round_rows<D: Dot, L: Lane>(
    d: D,
    pool: &Pool,
    lhs: &Strided<'_, L>,
    [batch, first, rows]: [usize; 3],
    k: usize,
    quant: Quant,
    out: &mut [Rounded],
) {
    let entries = (k / BLOCK).div_ceil(BLOCKS) * rows;
    const GROUP: usize = 16;
    pool.chunks_mut(&mut out[..entries * BLOCKS], GROUP * BLOCKS, |group, out| {
        for (j, out) in out.chunks_exact_mut(BLOCKS).enumerate() {
            let (chunk, row) = ((group * GROUP + j) / rows, (group * GROUP + j) % rows);
            let from = chunk * BLOCKS * BLOCK;
            let to = (from + BLOCKS * BLOCK).min(k);
            round(d, lhs.part(batch, first + row, from..to), out, quant);
        }
    });
}

/// Packed rhs.
struct Panels<'a, K> {
    bytes: &'a [u8],
    panels: usize,
    /// Columns of the result that a panel stands for.
    columns: usize,
    /// Blocks of 32 along k.
    blocks: usize,
    kind: PhantomData<K>,
}

impl<'a, K: Kind> Panels<'a, K> {
    fn new(op: &Gemm, bytes: &'a [u8]) -> Self {
        let columns = if op.gated { PANEL_ROWS / 2 } else { PANEL_ROWS };
        Panels { bytes, panels: op.n.div_ceil(columns), columns, blocks: op.k / BLOCK, kind: PhantomData }
    }

    /// From block `from` on, the two vectors of columns that make tile `t` of the result. Where the second is beyond the
    /// last panel, the last again.
    fn vectors<D: Dot>(&self, t: usize, from: usize, blocks: usize) -> [Panel<'a, K>; 2] {
        let bytes = |panel: usize, block: usize| {
            let at = panel.min(self.panels - 1) * bytes_of(K::QUANT, self.blocks) + bytes_of(K::QUANT, block);
            &self.bytes[at..]
        };
        let lanes = D::S::LANES;
        // What is read next: this panel's next chunk, or the first one of the panel in its place in the next tile.
        [0, lanes].map(|row| {
            let panel = (2 * lanes * t + row) / PANEL_ROWS;
            let next = match from + blocks < self.blocks {
                true => bytes(panel, from + blocks),
                false => bytes(panel + 2 * lanes / PANEL_ROWS, 0),
            };
            Panel::new(bytes(panel, from), blocks, row % PANEL_ROWS, next)
        })
    }
}

/// Rounded rows times packed columns.
struct Job<'a, D, K, O> {
    d: D,
    lhs: &'a [Rounded],
    rhs: Panels<'a, K>,
    rows: usize,
    epilogue: Epilogue<'a>,
    out: Rows<'a, O>,
}

impl<D: Dot, K: Kind, O: Lane> Job<'_, D, K, O> {
    /// Columns of the result that two vectors stand for.
    fn columns(&self) -> usize {
        2 * D::S::LANES / PANEL_ROWS * self.rhs.columns
    }

    fn run(&self, pool: &Pool) {
        let (row_blocks, tiles) = (self.rows.div_ceil(BLOCK_ROWS), self.epilogue.n.div_ceil(self.columns()));
        pool.run(row_blocks * tiles, |part| {
            // Neighbouring parts share columns.
            let (rb, t) = (part % row_blocks, part / row_blocks);
            let rows = deal(self.rows, row_blocks, rb);
            if rows.len() <= FEW { self.few(rows.start, rows.len(), t) } else { self.many(rows.start, rows.len(), t) }
        });
    }

    /// Chunks of k: where each begins, and how many blocks it has.
    fn chunks(&self) -> impl Iterator<Item = (usize, usize)> {
        let blocks = self.rhs.blocks;
        (0..blocks).step_by(BLOCKS).map(move |from| (from, (blocks - from).min(BLOCKS)))
    }

    /// Rows from row `row` on of a chunk that begins with block `from`.
    fn lhs(&self, from: usize, row: usize) -> &[Rounded] {
        &self.lhs[from * self.rows + row * BLOCKS..]
    }

    fn few(&self, top: usize, rows: usize, t: usize) {
        let mut acc = [0f32; FEW * 2 * MAX_LANES];
        for (from, blocks) in self.chunks() {
            let (d, lhs, rhs) = (self.d, self.lhs(from, top), self.rhs.vectors::<D>(t, from, blocks));
            match rows {
                1 => tile::<D, _, 1>(d, lhs, rhs, blocks, &mut acc),
                2 => tile::<D, _, 2>(d, lhs, rhs, blocks, &mut acc),
                3 => tile::<D, _, 3>(d, lhs, rhs, blocks, &mut acc),
                _ => tile::<D, _, 4>(d, lhs, rhs, blocks, &mut acc),
            }
        }
        self.finish(&mut acc, top, rows, t);
    }

    fn many(&self, top: usize, rows: usize, t: usize) {
        let d = self.d;
        let (mut acc, mut scratch) = ([0f32; BLOCK_ROWS * 2 * MAX_LANES], Scratch::new(d));
        let (width, groups) = (2 * D::S::LANES, rows.div_ceil(D::MR));
        for (from, blocks) in self.chunks() {
            unpack(d, self.rhs.vectors::<D>(t, from, blocks), blocks, &mut scratch);
            let rhs = [scratch.vector::<K>(0), scratch.vector(1)];
            for i in 0..groups {
                let group = deal(rows, groups, i);
                let (lhs, acc) = (self.lhs(from, top + group.start), &mut acc[group.start * width..group.end * width]);
                match group.len() {
                    1 => tile::<D, _, 1>(d, lhs, rhs, blocks, acc),
                    2 => tile::<D, _, 2>(d, lhs, rhs, blocks, acc),
                    3 => tile::<D, _, 3>(d, lhs, rhs, blocks, acc),
                    _ => tile::<D, _, 4>(d, lhs, rhs, blocks, acc),
                }
            }
        }
        self.finish(&mut acc, top, rows, t);
    }

    fn finish(&self, acc: &mut [f32], top: usize, rows: usize, t: usize) {
        let (lanes, e) = (D::S::LANES, &self.epilogue);
        let acc = &mut acc[..rows * 2 * lanes];
        if e.gated && lanes == PANEL_ROWS {
            // Gates and values of one panel, then of the other: gates first, then values.
            acc.chunks_exact_mut(2 * lanes).for_each(|row| row[lanes / 2..lanes * 3 / 2].rotate_left(lanes / 2));
        }
        epilogue::store(self.d.simd(), e, acc, top, t * self.columns(), e.n, &self.out);
    }
}
