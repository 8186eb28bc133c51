//! Many rows: implicit gemm, lhs the weight [rows, channels · taps], rhs the columns of im2col [channels · taps, outputs],
//! which exist only for one box of outputs and `KC` steps at a time.
//!
//! Work is cut into boxes of panels of nr = 2 vectors of outputs, and blocks of up to `ROWS` rows. A part walks the steps in
//! blocks of up to KC: some channels with all their taps (or, of more than KC taps, some of them). In each
//! 1. it reads each channel's points (`lines.rs`) and copies them into panels [step, output], each tap a row;
//! 2. for each tile of rows, it copies their weights into rows of a fixed distance, reached from one pointer, and
//! 3. the tile meets each panel in registers (`tile.rs`).
//!
//! After the last step sums pass once through the epilogue (`store.rs`).
//!
//! Memory of a part: up to 256 KiB of panels and as many sums in L2, a tile's 15 KiB of weight in L1 (AVX-512); a panel's
//! 32 KiB stream from L2 through L1 for each tile.
//!
//! Bound: arithmetic for rows above about 16. Copying a row of a panel takes about 4 cycles, its products one for each
//! row of the weight.

use super::tile::{KC, LDA, max_rows, multiply};
use super::{Boxes, Floats, Lines, Product, Run, Sink, Window, copy_runs, deal, runs_of, store::Places};
use crate::backend::cpu::Pool;
use crate::backend::cpu::simd::Simd;
use crate::simd_fn;
use std::ops::Range;

/// Panels of a box, of KC steps; of fewer steps more.
const PANELS: usize = 8;
/// The most rows of a part.
const ROWS: usize = 256;
/// Parts that there should be, for many threads to share.
const PARTS: usize = 16;

/// A window's steps in blocks.
struct Steps {
    channels: usize,
    taps: usize,
}

impl Steps {
    /// How many blocks.
    fn blocks(&self) -> usize {
        match self.taps {
            0 => 0,
            taps if taps <= KC => self.channels.div_ceil(KC / taps),
            taps => self.channels * taps.div_ceil(KC),
        }
    }

    /// The channels and taps of a block.
    fn block(&self, i: usize) -> (Range<usize>, Range<usize>) {
        if self.taps <= KC {
            let each = KC / self.taps;
            (i * each..((i + 1) * each).min(self.channels), 0..self.taps)
        } else {
            let pieces = self.taps.div_ceil(KC);
            let (channel, piece) = (i / pieces, i % pieces);
            (channel..channel + 1, deal(self.taps, pieces, piece)..deal(self.taps, pieces, piece + 1))
        }
    }

    /// The most steps of a block.
    fn most(&self) -> usize {
        match self.taps {
            taps if taps <= KC => (KC / taps.max(1)).min(self.channels) * taps,
            taps => taps.div_ceil(taps.div_ceil(KC)),
        }
    }
}

/// Computes a product.
pub fn tiled<S: Simd>(s: S, p: &Product<'_>, pool: &Pool, out: &Sink<'_>) {
    let nr = 2 * S::LANES;
    let steps = p.windows.iter().map(|w| Steps { channels: p.channels, taps: w.taps() }.most()).max().unwrap_or(0);
    // Few steps leave room for more panels, few rows for more sums.
    let mut panels = (PANELS * KC / steps.max(KC / 8)).min(PANELS * ROWS / p.rows.clamp(ROWS / 8, ROWS));
    let least = p.rows.div_ceil(ROWS);
    // Enough parts: blocks of fewer rows at first, but not less than a few tiles, then smaller boxes.
    let cut = |panels: usize| {
        let boxes = Boxes::new(p.outputs(), nr, panels * nr);
        let columns = p.batch * p.groups * boxes.count();
        let row_blocks = PARTS.div_ceil(columns.max(1)).min(p.rows / (4 * max_rows::<S>())).max(least);
        (boxes, columns, row_blocks)
    };
    let (mut boxes, mut columns, mut row_blocks) = cut(panels);
    while panels > 1 && columns * row_blocks < PARTS {
        panels /= 2;
        (boxes, columns, row_blocks) = cut(panels);
    }
    pool.run(columns * row_blocks, |part| {
        let (b, place) = (part % boxes.count(), part / boxes.count());
        let (block, place) = (place % row_blocks, place / row_blocks);
        let (group, batch) = (place % p.groups, place / p.groups);
        let rows = deal(p.rows, row_blocks, block)..deal(p.rows, row_blocks, block + 1);
        for window in &p.windows {
            let (first, extent) = boxes.region(b, window.outputs());
            if !extent.contains(&0) {
                Part { batch, group, rows: rows.clone(), first, extent }.run(s, p, window, out);
            }
        }
    });
}

/// A box of outputs of some rows.
struct Part {
    batch: usize,
    group: usize,
    rows: Range<usize>,
    first: [usize; 3],
    extent: [usize; 3],
}

impl Part {
    #[allow(unsafe_code)]
    fn run<S: Simd>(&self, s: S, p: &Product<'_>, window: &Window, out: &Sink<'_>) {
        let Part { batch, group, ref rows, first, extent } = *self;
        let nr = 2 * S::LANES;
        let steps = Steps { channels: p.channels, taps: window.taps() };
        let mut lines = Lines::new(window, first, extent);
        let runs = runs_of(lines.pitch, extent, nr);
        let width = runs.len() * nr;
        // A row of slack behind each panel: runs are copied in whole vectors.
        let mut panels = Panels { len: (steps.most() + 1) * nr, data: Vec::new(), runs };
        panels.data.resize(panels.runs.len() * panels.len, 0.0);
        let mut acc = vec![0f32; rows.len() * width];
        let mut lhs = vec![0f32; max_rows::<S>() * LDA];
        let tiles = rows.len().div_ceil(max_rows::<S>());
        for block in 0..steps.blocks() {
            let (channels, taps) = steps.block(block);
            let (step, count) = (channels.start * steps.taps + taps.start, channels.len() * taps.len());
            for (i, channel) in channels.enumerate() {
                p.read(s, batch, group, channel, &mut lines);
                panels.copy(s, &lines.data, &lines.taps[taps.clone()], i * taps.len());
            }
            for tile in 0..tiles {
                let (top, bottom) = (deal(rows.len(), tiles, tile), deal(rows.len(), tiles, tile + 1));
                let at = p.weight_at(window, group, rows.start + top) + step;
                copy_weight(s, p.weight, at, steps.channels * steps.taps, count, &mut lhs[..(bottom - top) * LDA]);
                let acc = &mut acc[top * width..bottom * width];
                for (i, panel) in panels.data.chunks_exact(panels.len).enumerate() {
                    multiply(s, bottom - top, &lhs, panel, count, &mut acc[i * nr..], width);
                }
            }
        }
        let places = Places::new(p, window, first, extent, [extent[1], extent[2]]);
        for (row, sums) in rows.clone().zip(acc.chunks_exact(width)) {
            let base = p.out_at(batch, group, row);
            // SAFETY: parts share no outputs; a box's windows lie inside of each other, and one thread works on them all.
            unsafe { places.store(s, p, sums, group * p.rows + row, base, out) };
        }
    }
}

simd_fn! {
    /// `count` steps of each row of a tile; rows of the weight lie `distance` apart.
    fn copy_weight[S](s, weight: Floats<'_>, at: usize, distance: usize, count: usize, out: &mut [f32]) {
        for (row, out) in out.chunks_exact_mut(LDA).enumerate() {
            weight.copy(s, at + row * distance, 1, &mut out[..count]);
        }
    }
}

/// Columns of im2col.
struct Panels {
    /// Of each panel.
    runs: Vec<Vec<Run>>,
    /// From one panel to the next.
    len: usize,
    data: Vec<f32>,
}

impl Panels {
    /// One channel's steps, from step `first` on.
    fn copy<S: Simd>(&mut self, s: S, lines: &[f32], taps: &[usize], first: usize) {
        let nr = 2 * S::LANES;
        for (runs, panel) in self.runs.iter().zip(self.data.chunks_exact_mut(self.len)) {
            copy_panel(s, lines, taps, runs, &mut panel[first * nr..]);
        }
    }
}

simd_fn! {
    fn copy_panel[S](s, lines: &[f32], taps: &[usize], runs: &[Run], out: &mut [f32]) {
        copy_runs(s, lines, taps, runs, 2 * S::LANES, out);
    }
}
