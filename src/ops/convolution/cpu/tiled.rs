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
//! Of few outputs and a large weight, reading the weight: it is used for each box once.

use super::tile::{KC, LDA, MAX_ROWS, max_rows, multiply};
use super::{Boxes, Floats, Lines, Product, Runs, Sink, Window, copy_runs, store::Places};
use crate::backend::cpu::simd::{MAX_LANES, Simd};
use crate::backend::cpu::{Pool, Slots, deal};
use crate::simd_fn;
use std::ops::Range;

/// Panels of a box, of KC steps; of fewer steps more.
const PANELS: usize = 8;
/// The most rows of a part.
const ROWS: usize = 256;
/// Parts that there should be, for many threads to share.
const PARTS: usize = 16;
/// Elements of memory of a part: panels with a row of slack each (few steps: 8 times as many), sums and a tile of the weight.
pub const SLOT: usize = 2 * MAX_LANES * (PANELS * (KC + 8) + PANELS * ROWS) + MAX_ROWS * LDA;

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
            (channel..channel + 1, deal(self.taps, pieces, piece))
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

/// Computes a product, with slots of [`SLOT`] elements.
pub fn tiled<S: Simd>(s: S, p: &Product<'_>, pool: &Pool, slots: &Slots<'_>, out: &Sink<'_>) {
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
        let rows = deal(p.rows, row_blocks, block);
        for window in &p.windows {
            let (first, extent) = boxes.region(b, window.outputs());
            if !extent.contains(&0) {
                let part = Part { batch, group, rows: rows.clone(), first, extent };
                slots.with(|slot| part.run(s, p, window, slot, out));
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
    fn run<S: Simd>(&self, s: S, p: &Product<'_>, window: &Window, slot: &mut [f32], out: &Sink<'_>) {
        let Part { batch, group, ref rows, first, extent } = *self;
        let nr = 2 * S::LANES;
        let steps = Steps { channels: p.channels, taps: window.taps() };
        let mut lines = Lines::new(window, first, extent);
        let runs = Runs::new(lines.pitch, extent, nr);
        // A row of slack behind each panel: runs are copied in whole vectors.
        let (width, panel_len) = (runs.groups() * nr, (steps.most() + 1) * nr);
        let (lhs, slot) = slot.split_at_mut(max_rows::<S>() * LDA);
        let (acc, slot) = slot.split_at_mut(rows.len() * width);
        let panels = &mut slot[..runs.groups() * panel_len];
        acc.fill(0.0);
        // Lanes behind the last output, whose sums are not stored.
        panels[(runs.groups() - 1) * panel_len..].fill(0.0);
        let tiles = rows.len().div_ceil(max_rows::<S>());
        for block in 0..steps.blocks() {
            let (channels, taps) = steps.block(block);
            let (step, count) = (channels.start * steps.taps + taps.start, channels.len() * taps.len());
            for (i, channel) in channels.enumerate() {
                p.read(s, batch, group, channel, &mut lines);
                let taps = &lines.taps[taps.clone()];
                copy_panels(s, &lines.data, taps, &runs, panel_len, i * taps.len(), panels);
            }
            let weight_at = |row: usize, step: usize| p.weight_at(window, group, rows.start + row) + step;
            for tile in 0..tiles {
                let Range { start: top, end: bottom } = deal(rows.len(), tiles, tile);
                let distance = steps.channels * steps.taps;
                copy_weight(s, p.weight, weight_at(top, step), distance, count, &mut lhs[..(bottom - top) * LDA]);
                // The next tile's weight, or the first one's of the next block, is fetched while this one is used.
                let (next, step) = if bottom < rows.len() { (bottom, step) } else { (0, step + count) };
                let acc = &mut acc[top * width..bottom * width];
                for (i, panel) in panels.chunks_exact(panel_len).enumerate() {
                    for row in deal(bottom - top, runs.groups(), i) {
                        p.weight.fetch(weight_at(next + row, step), count);
                    }
                    multiply(s, bottom - top, lhs, panel, count, &mut acc[i * nr..], width);
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

simd_fn! {
    /// One channel's steps in all panels, from step `first` on.
    fn copy_panels[S](s, lines: &[f32], taps: &[usize], runs: &Runs, len: usize, first: usize, out: &mut [f32]) {
        for (i, panel) in out.chunks_exact_mut(len).enumerate() {
            copy_runs(s, lines, taps, runs.group(i), 2 * S::LANES, &mut panel[first * 2 * S::LANES..]);
        }
    }
}
