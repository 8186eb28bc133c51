//! Packing into panels on the CPU and back, for `pack_rhs` and for products whose rhs was not prepared.

use crate::backend::cpu::Pool;
use crate::dtype::{Format, PANEL_ROWS, Quant};
use crate::ops::quant::q4_k_factors;

/// The rows of a matrix that stand in one panel: up to two runs of (place in the panel, first row, rows), the second for
/// the other half of a gated pair.
fn runs(panel: usize, n: usize, nr: usize, gated: bool) -> [(usize, usize, usize); 2] {
    let (width, rows) = if gated { (nr / 2, n / 2) } else { (nr, n) };
    let first = panel * width;
    let count = width.min(rows - first);
    [(0, first, count), (width, rows + first, if gated { count } else { 0 })]
}

/// Packs a matrix [n, k] with the given strides. `out` holds [`Format::elements`] elements.
pub(crate) fn pack_panels<T: bytemuck::Pod + Send + Sync>(
    pool: &Pool,
    rhs: &[T],
    strides: [usize; 2],
    [n, k]: [usize; 2],
    format: Format,
    out: &mut [T],
) {
    let Format::Panels { nr, kr, gated } = format else { return };
    let (nr, kr) = (nr as usize, kr as usize);
    let depth = k.div_ceil(kr) * kr;
    pool.chunks_mut(out, nr * depth, |panel, out| {
        let runs = runs(panel, n, nr, gated);
        if runs[0].2 + runs[1].2 < nr || depth != k {
            out.fill(T::zeroed());
        }
        for run in runs {
            // With a group's length that the compiler knows, places are found without divisions.
            match kr {
                1 => pack_run(rhs, strides, k, run, nr, 1, out),
                2 => pack_run(rhs, strides, k, run, nr, 2, out),
                kr => pack_run(rhs, strides, k, run, nr, kr, out),
            }
        }
    });
}

/// Rows that are packed side by side.
const TOGETHER: usize = 16;

#[inline(always)]
fn pack_run<T: Copy>(
    rhs: &[T],
    strides: [usize; 2],
    k: usize,
    (place, first, count): (usize, usize, usize),
    nr: usize,
    kr: usize,
    out: &mut [T],
) {
    let at = |r: usize, p: usize| (first + r) * strides[0] + p * strides[1];
    if strides[0] == 1 && kr == 1 && count > 0 {
        // A transposed matrix: a panel's values of one k are neighbours.
        for p in 0..k {
            out[p * nr + place..][..count].copy_from_slice(&rhs[at(0, p)..][..count]);
        }
        return;
    }
    let mut packed = 0;
    if strides[1] == 1 && k > 0 {
        // Sixteen rows side by side: what is written lies together, and each of the rows is a stream. One core packs f32 at
        // 8.3 GB/s (read and write) so, 4.3 row by row, and copies at 10.5; through tiles of 8x8 or 16x16 values it is 5.8 or 4.6.
        while packed + TOGETHER <= count {
            let rows: [&[T]; TOGETHER] = std::array::from_fn(|r| &rhs[at(packed + r, 0)..][..k]);
            let whole = k / kr * kr;
            let groups = out.chunks_exact_mut(nr * kr);
            for (p, out) in (0..whole).step_by(kr).zip(groups) {
                let out = &mut out[(place + packed) * kr..][..TOGETHER * kr];
                for (row, out) in rows.iter().zip(out.chunks_exact_mut(kr)) {
                    out.copy_from_slice(&row[p..p + kr]);
                }
            }
            for p in whole..k {
                rows.iter().enumerate().for_each(|(r, row)| {
                    out[(p / kr * nr + place + packed + r) * kr + p % kr] = row[p];
                });
            }
            packed += TOGETHER;
        }
    }
    // Blocks of k, so that the lines written (nr values for each k) stay in L1 while each row is read in order.
    for from in (0..k).step_by(64) {
        let to = (from + 64).min(k);
        for r in packed..count {
            for p in from..to {
                out[(p / kr * nr + place + r) * kr + p % kr] = rhs[at(r, p)];
            }
        }
    }
}

/// The matrix [n, k] that was packed into panels, contiguous.
pub(crate) fn unpack_panels<T: bytemuck::Pod + Send + Sync>(
    pool: &Pool,
    packed: &[T],
    [n, k]: [usize; 2],
    format: Format,
    out: &mut [T],
) {
    let Format::Panels { nr, kr, gated } = format else { return };
    let (nr, kr) = (nr as usize, kr as usize);
    let panel_len = nr * k.div_ceil(kr) * kr;
    // Rows of a part: they share the lines of a panel.
    const ROWS: usize = 16;
    pool.chunks_mut(out, ROWS * k, |part, out| {
        for from in (0..k).step_by(64) {
            let to = (from + 64).min(k);
            for (i, out) in out.chunks_exact_mut(k).enumerate() {
                let row = part * ROWS + i;
                let (panel, r) = match gated {
                    false => (row / nr, row % nr),
                    true => {
                        let (half, row) = (row / (n / 2), row % (n / 2));
                        (row / (nr / 2), half * (nr / 2) + row % (nr / 2))
                    }
                };
                let packed = &packed[panel * panel_len..][..panel_len];
                for p in from..to {
                    out[p] = packed[(p / kr * nr + r) * kr + p % kr];
                }
            }
        }
    });
}

/// Packs rows of quantised blocks as [`Format::BlockPanels`] says. `out` holds [`Format::elements`] bytes.
pub(crate) fn pack_blocks(pool: &Pool, rhs: &[u8], [n, k]: [usize; 2], quant: Quant, gated: bool, out: &mut [u8]) {
    let (blocks, row_bytes) = (k / quant.block_values(), quant.row_bytes(k));
    let block_bytes = quant.panel_block_bytes();
    pool.chunks_mut(out, blocks * block_bytes, |panel, out| {
        for r in 0..PANEL_ROWS {
            let half = PANEL_ROWS / 2;
            let row = match gated {
                false => Some(panel * PANEL_ROWS + r).filter(|&row| row < n),
                true => {
                    let row = panel * half + r % half;
                    (row < n / 2).then_some(if r < half { row } else { n / 2 + row })
                }
            };
            let from = row.map(|row| &rhs[row * row_bytes..][..row_bytes]);
            for (b, out) in out.chunks_exact_mut(block_bytes).enumerate() {
                match from {
                    Some(row) => pack_block(quant, &row[b * quant.block_bytes()..][..quant.block_bytes()], r, out),
                    // What was here before must not stay: the buffer is recycled.
                    None => pack_block(quant, &EMPTY[..quant.block_bytes()], r, out),
                }
            }
        }
    });
}

/// A block of zero bytes, of the longest kind.
static EMPTY: [u8; 256] = [0; 256];

/// Puts a block where it belongs as row `r` of a panel's block.
fn pack_block(quant: Quant, block: &[u8], r: usize, out: &mut [u8]) {
    let mut rest = out;
    let mut take = |bytes: usize| rest.split_off_mut(..bytes).expect("the block is as long as its parts");
    let mut factor = |at: usize| take(2 * PANEL_ROWS)[2 * r..2 * r + 2].copy_from_slice(&block[at..at + 2]);
    match quant {
        Quant::Q8_0 | Quant::Q4_0 => factor(0),
        Quant::Q4_1 => [0, 2].into_iter().for_each(factor),
        Quant::Q4_K => {
            [0, 2].into_iter().for_each(&mut factor);
            let (scales, mins) = (take(8 * PANEL_ROWS), take(8 * PANEL_ROWS));
            for group in 0..8 {
                let at = group * PANEL_ROWS + r;
                (scales[at], mins[at]) = q4_k_factors(&block[4..16], group);
            }
        }
        Quant::Q6_K => {
            factor(208);
            let scales = take(16 * PANEL_ROWS);
            for group in 0..16 {
                scales[group * PANEL_ROWS + r] = block[192 + group] ^ 0x80;
            }
        }
    }
    for from in (0..quant.block_values()).step_by(32) {
        let mut vector = |four: u32| take(4 * PANEL_ROWS)[4 * r..4 * r + 4].copy_from_slice(&four.to_le_bytes());
        let fours = |g: usize| four(quant, block, from + 4 * g);
        if quant == Quant::Q8_0 {
            (0..8).for_each(|g| vector(fours(g) ^ 0x8080_8080));
            continue;
        }
        (0..4).for_each(|j| vector(fours(j) & NIBBLES | (fours(j + 4) & NIBBLES) << 4));
        if quant == Quant::Q6_K {
            let field = |j: usize, f: usize| (fours(2 * f + j) >> 4 & TWO_BITS) << (2 * f);
            (0..2).for_each(|j| vector((0..4).fold(0, |all, f| all | field(j, f))));
        }
    }
}

const NIBBLES: u32 = 0x0f0f_0f0f;
const TWO_BITS: u32 = 0x0303_0303;

/// The integers of values `i` to `i + 3` of a block as bytes; `i` is a multiple of four.
fn four(quant: Quant, block: &[u8], i: usize) -> u32 {
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    match quant {
        Quant::Q8_0 => word(2 + i),
        Quant::Q4_0 => word(2 + i % 16) >> (4 * (i / 16)) & NIBBLES,
        Quant::Q4_1 => word(4 + i % 16) >> (4 * (i / 16)) & NIBBLES,
        Quant::Q4_K => word(16 + i / 64 * 32 + i % 32) >> (4 * (i % 64 / 32)) & NIBBLES,
        Quant::Q6_K => {
            // Halves of 128 values; in each, four runs of 32 share 64 bytes of low and 32 bytes of high parts.
            let (half, run, l) = (i / 128, i % 128 / 32, i % 32);
            let low = word(64 * half + 32 * (run % 2) + l) >> (4 * (run / 2)) & NIBBLES;
            low | (word(128 + 32 * half + l) >> (2 * run) & TWO_BITS) << 4
        }
    }
}
