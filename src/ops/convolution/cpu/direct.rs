//! Few rows: depthwise convolutions, and the last layers of decoders.
//!
//! A channel's points (`lines.rs`) are taken as one line: output j of the box, counted with the places between lines and
//! planes that belong to no output, reads place `taps[t] + j` for each tap. So sums are made for vectors of j, in registers
//! for all taps of a channel, up to 8 vectors of one row or fewer of up to 4 rows; those between lines are not stored.
//!
//! Work is cut into boxes of up to `BOX` outputs, whose points stay in L1, and runs of groups; tables of places are made
//! once for all groups of a part.
//!
//! Bound: loads from L1, of one row one for each multiply-add. As most of them reach over two cache lines, it is one a cycle:
//! half of the arithmetic peak at best, and a fifth with reading the points and storing. Lines of outputs that share loads
//! would be the next step. From 3 rows on arithmetic.

use super::{Boxes, Lines, Product, Sink, store::Places};
use crate::backend::cpu::simd::Simd;
use crate::backend::cpu::{Pool, Scratch};
use crate::simd_fn;

/// Outputs of a box.
const BOX: usize = 2048;
/// Multiply-adds of a part that make it worth its tables.
const WORK: usize = 1 << 17;
/// Vectors of sums that are computed at a time, at most.
const VECTORS: usize = 8;

/// Computes a product.
pub fn direct<S: Simd>(s: S, p: &Product<'_>, pool: &Pool, out: &Sink<'_>) {
    let boxes = Boxes::new(p.outputs(), S::LANES, BOX);
    let taps: usize = p.windows.iter().map(|w| w.taps() * w.outputs().iter().product::<usize>()).sum();
    let work = (taps / boxes.count().max(1)).saturating_mul(p.channels * p.rows).max(1);
    let together = WORK.div_ceil(work).min(p.groups);
    let group_blocks = p.groups.div_ceil(together);
    pool.run(p.batch * group_blocks * boxes.count(), |part| {
        let (b, place) = (part % boxes.count(), part / boxes.count());
        let (block, batch) = (place % group_blocks, place / group_blocks);
        let groups = block * together..((block + 1) * together).min(p.groups);
        for window in &p.windows {
            let (first, extent) = boxes.region(b, window.outputs());
            if extent.contains(&0) {
                continue;
            }
            let mut lines = Lines::new(window, first, extent);
            let places = Places::new(p, window, first, extent, lines.pitch);
            let [planes, heights] = lines.pitch;
            let used = ((extent[0] - 1) * planes + extent[1] - 1) * heights + extent[2];
            let len = used.next_multiple_of(VECTORS * S::LANES);
            let mut sums = Scratch::new(p.rows * len);
            let taps = window.taps();
            let mut weight = vec![0f32; p.rows * taps];
            for group in groups.clone() {
                sums.fill(0.0);
                for channel in 0..p.channels {
                    p.read(s, batch, group, channel, &mut lines);
                    for (row, weight) in weight.chunks_exact_mut(taps.max(1)).enumerate() {
                        p.weight.copy(s, p.weight_at(window, group, row) + channel * taps, 1, weight);
                    }
                    accumulate(s, p.rows, &lines, &weight, len, &mut sums);
                }
                for (row, sums) in sums.chunks_exact(len).enumerate() {
                    store(s, p, &places, sums, batch, group, row, out);
                }
            }
        }
    });
}

#[allow(unsafe_code, clippy::too_many_arguments)]
fn store<S: Simd>(
    s: S,
    p: &Product<'_>,
    places: &Places,
    sums: &[f32],
    batch: usize,
    group: usize,
    row: usize,
    out: &Sink<'_>,
) {
    // SAFETY: parts share no outputs; a box's windows lie inside of each other, and one thread works on them all.
    unsafe { places.store(s, p, sums, group * p.rows + row, p.out_at(batch, group, row), out) };
}

/// Adds one channel to the sums [rows, len].
fn accumulate<S: Simd>(s: S, rows: usize, lines: &Lines, weight: &[f32], len: usize, sums: &mut [f32]) {
    let taps = &lines.taps;
    if taps.is_empty() {
        return;
    }
    for first in (0..rows).step_by(4) {
        let count = (rows - first).min(4);
        let sums = &mut sums[first * len..(first + count) * len];
        let weight = &weight[first * taps.len()..(first + count) * taps.len()];
        match count {
            1 => add::<S, 1, VECTORS>(s, &lines.data, taps, weight, len, sums),
            2 => add::<S, 2, 4>(s, &lines.data, taps, weight, len, sums),
            3 => add::<S, 3, 4>(s, &lines.data, taps, weight, len, sums),
            _ => add::<S, 4, 2>(s, &lines.data, taps, weight, len, sums),
        }
    }
}

simd_fn! {
    /// `len` is a multiple of `VECTORS` vectors, so of V. Loops over R and V have bounds known when they are compiled: what
    /// they count stays in registers.
    fn add[S; const R: usize, const V: usize](
        s, data: &[f32], taps: &[usize], weight: &[f32], len: usize, sums: &mut [f32],
    ) {
        let weight: [&[f32]; R] = std::array::from_fn(|r| &weight[r * taps.len()..][..taps.len()]);
        for j in (0..len).step_by(V * S::LANES) {
            let mut acc = [[s.zero(); V]; R];
            for r in 0..R {
                let sums = &sums[r * len + j..][..V * S::LANES];
                for v in 0..V {
                    acc[r][v] = s.load(&sums[v * S::LANES..]);
                }
            }
            for (t, &tap) in taps.iter().enumerate() {
                let x = &data[tap + j..][..V * S::LANES];
                let mut w = [s.zero(); R];
                for r in 0..R {
                    w[r] = s.splat(weight[r][t]);
                }
                for v in 0..V {
                    let x = s.load(&x[v * S::LANES..]);
                    for r in 0..R {
                        acc[r][v] = s.fma(w[r], x, acc[r][v]);
                    }
                }
            }
            for r in 0..R {
                let sums = &mut sums[r * len + j..][..V * S::LANES];
                for v in 0..V {
                    s.store(acc[r][v], &mut sums[v * S::LANES..]);
                }
            }
        }
    }
}
