//! Many rows: implicit gemm, lhs the weight [rows, channels · taps], rhs the columns of im2col [channels · taps, outputs],
//! which exist only for one box of outputs and `KC` steps at a time.
//!
//! 1. The weight is copied, steps in blocks of up to KC, into rows of a fixed distance, so that all rows of a tile are
//!    reached from one pointer. A block is some channels with all their taps (or, of more than KC taps, some of them).
//! 2. Work is cut into boxes of up to `PANELS` panels of nr = 2 vectors of outputs, and blocks of rows. For each block
//!    of steps, a part reads each channel's points (`lines.rs`) and copies them into panels [step, output], each tap a row;
//!    then each tile of rows of the weight meets each panel in registers (`tile.rs`).
//! 3. After the last step sums pass once through the epilogue (`store.rs`).
//!
//! Memory of a part: 257 KiB of panels and up to as many sums in L2, a tile's 15 KiB of weight in L1 (AVX-512); a panel's
//! 32 KiB stream from L2 through L1 for each tile.
//!
//! Bound: arithmetic for rows above about 16. Copying a row of a panel takes about 4 cycles, its products one for each
//! row of the weight.

use super::tile::{KC, LDA, max_rows, multiply};
use super::{Boxes, Lines, Product, Run, Sink, Window, copy_runs, deal, runs_of, store::Places, tap_indices};
use crate::backend::cpu::Pool;
use crate::backend::cpu::simd::Simd;
use crate::simd_fn;
use std::ops::Range;

/// The most panels of a box.
const PANELS: usize = 8;
/// The most rows of a part.
const ROWS: usize = 256;
/// Parts that there should be, for many threads to share.
const PARTS: usize = 16;

/// A window's steps and its packed weight.
struct Plan {
    /// Taps in the weight.
    taps: Vec<usize>,
    /// Blocks of steps.
    blocks: usize,
    /// Its first entry of packed weight: a block of one row.
    entry: usize,
}

impl Plan {
    /// For each window; and the entries of all.
    fn all(windows: &[Window], kernel: [usize; 3], groups: usize, channels: usize, rows: usize) -> (Vec<Plan>, usize) {
        let mut entry = 0;
        let plan = |window: &Window| {
            let taps = tap_indices(window, kernel);
            let blocks = match taps.len() {
                0 => 0,
                n if n <= KC => channels.div_ceil(KC / n),
                n => channels * n.div_ceil(KC),
            };
            let first = entry;
            entry += groups * blocks * rows;
            Plan { taps, blocks, entry: first }
        };
        let plans = windows.iter().map(plan).collect();
        (plans, entry)
    }

    /// The channels and taps of a block.
    fn block(&self, i: usize, channels: usize) -> (Range<usize>, Range<usize>) {
        let n = self.taps.len();
        if n <= KC {
            let each = KC / n;
            (i * each..((i + 1) * each).min(channels), 0..n)
        } else {
            let pieces = n.div_ceil(KC);
            let (channel, piece) = (i / pieces, i % pieces);
            (channel..channel + 1, deal(n, pieces, piece)..deal(n, pieces, piece + 1))
        }
    }
}

/// Bytes of packed weight.
pub fn workspace_bytes(windows: &[Window], kernel: [usize; 3], groups: usize, channels: usize, rows: usize) -> usize {
    Plan::all(windows, kernel, groups, channels, rows).1.saturating_mul(LDA * size_of::<f32>())
}

/// Copies the weight's rows, one block of one row after the other.
fn pack<S: Simd>(s: S, p: &Product<'_>, plans: &[Plan], pool: &Pool, packed: &mut [f32]) {
    const GROUP: usize = 16;
    for (i, plan) in plans.iter().enumerate() {
        let end = plans.get(i + 1).map_or(packed.len() / LDA, |next| next.entry);
        let entries = &mut packed[plan.entry * LDA..end * LDA];
        // All taps in order, and channels without gaps: a block is one piece of the weight.
        let whole = plan.taps.len() == p.weight_strides[2] && plan.taps.is_sorted();
        pool.chunks_mut(entries, GROUP * LDA, |group, out| {
            for (j, out) in out.chunks_exact_mut(LDA).enumerate() {
                let entry = group * GROUP + j;
                let (row, block) = (entry % p.rows, entry / p.rows % plan.blocks);
                let group = entry / (p.rows * plan.blocks);
                let (channels, taps) = plan.block(block, p.channels);
                let at = group * p.weight_strides[0] + row * p.weight_strides[1];
                let steps = channels.len() * taps.len();
                let first = at + channels.start * p.weight_strides[2];
                if whole {
                    p.weight.copy(s, first + taps.start, 1, &mut out[..steps]);
                    continue;
                }
                for (channel, out) in channels.zip(out.chunks_exact_mut(taps.len())) {
                    let at = at + channel * p.weight_strides[2];
                    for (tap, out) in plan.taps[taps.clone()].iter().zip(out) {
                        *out = p.weight.at(at + tap);
                    }
                }
            }
        });
    }
}

/// Computes a product. `packed` holds [`workspace_bytes`].
pub fn tiled<S: Simd>(s: S, p: &Product<'_>, pool: &Pool, packed: &mut [f32], out: &Sink<'_>) {
    let (plans, entries) = Plan::all(&p.windows, p.kernel, p.groups, p.channels, p.rows);
    let packed = &mut packed[..entries * LDA];
    pack(s, p, &plans, pool, packed);
    let packed = &*packed;
    let nr = 2 * S::LANES;
    // Enough parts: smaller boxes at first, then fewer rows, but not less than a few tiles of them.
    let (products, least) = (p.batch * p.groups, p.rows.div_ceil(ROWS));
    let mut panels = PANELS;
    while panels > 1 && products * least * Boxes::new(p.outputs(), nr, panels * nr).count() < PARTS {
        panels /= 2;
    }
    let boxes = Boxes::new(p.outputs(), nr, panels * nr);
    let columns = products * boxes.count();
    let row_blocks = PARTS.div_ceil(columns.max(1)).min(p.rows.div_ceil(4 * max_rows::<S>())).max(least);
    pool.run(columns * row_blocks, |part| {
        let (b, place) = (part % boxes.count(), part / boxes.count());
        let (block, place) = (place % row_blocks, place / row_blocks);
        let (group, batch) = (place % p.groups, place / p.groups);
        let rows = deal(p.rows, row_blocks, block)..deal(p.rows, row_blocks, block + 1);
        for (window, plan) in p.windows.iter().zip(&plans) {
            let (first, extent) = boxes.region(b, std::array::from_fn(|i| window[i].outputs));
            if !extent.contains(&0) {
                let part = Part { batch, group, rows: rows.clone(), first, extent };
                part.run(s, p, window, plan, packed, out);
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
    fn run<S: Simd>(&self, s: S, p: &Product<'_>, window: &Window, plan: &Plan, packed: &[f32], out: &Sink<'_>) {
        let Part { batch, group, ref rows, first, extent } = *self;
        let nr = 2 * S::LANES;
        let mut lines = Lines::new(window, first, extent);
        let runs = runs_of(lines.pitch, extent, nr);
        let steps = (plan.taps.len() * p.channels).min(KC);
        // A row of slack behind each panel: runs are copied in whole vectors.
        let mut panels = Panels { runs, len: (steps + 1) * nr, data: Vec::new() };
        panels.data.resize(panels.runs.len() * panels.len, 0.0);
        let width = panels.runs.len() * nr;
        let mut acc = vec![0f32; rows.len() * width];
        let tiles = rows.len().div_ceil(max_rows::<S>());
        for block in 0..plan.blocks {
            let (channels, taps) = plan.block(block, p.channels);
            let steps = channels.len() * taps.len();
            for (i, channel) in channels.enumerate() {
                lines.fill(s, p.x, p.x_at(batch, group, channel), [p.x_strides[2], p.x_strides[3]]);
                panels.copy(s, &lines.data, &lines.taps[taps.clone()], i * taps.len());
            }
            let lhs = &packed[(plan.entry + (group * plan.blocks + block) * p.rows + rows.start) * LDA..];
            for tile in 0..tiles {
                let (top, bottom) = (deal(rows.len(), tiles, tile), deal(rows.len(), tiles, tile + 1));
                let (lhs, acc) = (&lhs[top * LDA..], &mut acc[top * width..bottom * width]);
                for (i, panel) in panels.data.chunks_exact(panels.len).enumerate() {
                    multiply(s, bottom - top, lhs, panel, steps, &mut acc[i * nr..], width);
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
