//! RVQ encoding on the CPU: x [n, dim], codebooks [levels, size, dim], all contiguous f32.
//!
//! 1. Codebooks (for cosines: their unit vectors) are packed into panels of two vectors of entries, each with -‖e‖²/2 of its
//!    entries behind it.
//! 2. A part of the work is some vectors through all levels. Their residuals are kept interleaved, `height` vectors at a time, for
//!    the product: [tile][dim][height], one stream. Per level, slices of `DEPTH` of a panel stay in L1 while all tiles pass:
//!    r·e - ‖e‖²/2 in registers, carried from slice to slice in L1 (`tile.rs`).
//! 3. After a panel's last slice each lane of a vector keeps its best score, whose it is, and its second best score: scores
//!    do not leave L1.
//! 4. Where a second entry comes within the f32 error of the best, all that do are weighed again in f64 by the direct
//!    form Σ(r - e)², the lowest index first (a lane whose second best does: all of the lane). So equal distances are
//!    equal, and rounding of the expanded form decides nothing (`nearest.rs`).
//! 5. The entries that a tile's vectors have chosen are turned, some columns at a time, and the residuals lose them where they are,
//!    which gives their new lengths. What was chosen is summed up once, after the last level.
//!
//! Caches: a slice is 32 KiB; a part's residuals and the panel in use stay in L2, and the next slice is asked for while this one is
//! used. Codebooks beyond L2 are read from L3 once for each part: such parts are larger. Bound: arithmetic, 2·n·size·dim per level.
//!
//! Tried and lost, in GFLOP/s of the tile alone on one core with an FMA peak of 178, for codebooks of 1 and of 4 MB a level:
//! tiles of 14 rows 150-157 and 97-143 (12 rows: 160-163 and 141-145, same rounds); residuals as [dim/16][ROWS][16], which
//! would need no interleaving, 159 and 111; no slice asked for ahead 149 and 118; half as many vectors to a part 150 and
//! 121. All scores written to L2 and read again for the best, and f64 sums of one chain each, were half of the time.
//!
//! Residuals in rows as well, interleaved anew for each level, and sums of what was chosen kept up to date took 2 to 3 % longer for
//! 1500x1024x1024x8 (an Xeon with AMX, family 6, model 167, calls of both in turn in one process): both are larger than what L2 has
//! room for beside a codebook. Tiles of 14 vectors took 1 % less there, and 3 % more for 1500x128x2048x4. Asking for entries that
//! are about to be packed gains nothing. Of the time 88 % are products, 5 % turning and packing, 2 % lengths of entries.

mod nearest;
mod tile;

use super::{Distance, RvqEncode};
use crate::backend::cpu::simd::{Simd, accumulate, fetch, transpose_rows};
use crate::backend::cpu::{Caps, Cpu, Pool, Slots, deal, parts_of};
use crate::backend::{Backend, Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::{isa_rows, simd_fn};
use nearest::{outright, slack_per_length, squares, unit_divisor, weigh};
use std::ops::Range;
use tile::{Slice, height};

impl Kernels<Cpu> for RvqEncode {
    const KERNELS: &'static [Kernel<Cpu, Self>] =
        isa_rows![("rvq_encode_f32", supports, launch).workspace(|op, caps| 4 * Sizes::of(op, caps).workspace())];
}

/// Depth of a slice of a panel, and columns in which residuals lose what was chosen.
const DEPTH: usize = 256;
/// Columns of a panel that are packed at a time: rows of so many and what they become stay in L1.
const PACKED: usize = 64;
/// The widest panel: two vectors of AVX-512.
const MAX_NR: usize = 32;
/// Vectors of a part are a multiple of this, which every tile's height divides.
const ROWS: usize = 12;
/// Bytes of all levels that stay in L2 beside a part, and of the residuals of a part.
const L2_BYTES: usize = 1 << 20;
const RESIDUAL_BYTES: usize = 704 << 10;

fn supports<S: Simd>(_: &RvqEncode, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

/// How work and workspace are divided, in vectors and floats.
struct Sizes {
    n: usize,
    dim: usize,
    levels: usize,
    /// A packed codebook.
    level: usize,
    /// A codebook's unit vectors, for cosines.
    unit: usize,
    /// Vectors of the largest part.
    rows: usize,
    parts: usize,
    threads: usize,
}

impl Sizes {
    fn of(op: &RvqEncode, caps: &Caps) -> Sizes {
        let (dim, size) = (op.codebook_dim, op.codebook_size);
        let padded = size.next_multiple_of(MAX_NR);
        let most = if 4 * op.num_quantizers * padded * dim <= L2_BYTES { 7 } else { 14 };
        let most = (RESIDUAL_BYTES / (4 * ROWS * dim.max(1))).clamp(1, most);
        // As many parts for each thread.
        let (groups, threads) = (op.n.div_ceil(ROWS), caps.threads);
        let parts = parts_of(groups, 1..=most, threads);
        Sizes {
            n: op.n,
            dim,
            levels: op.num_quantizers,
            level: padded * (dim + 1),
            unit: if op.distance == Distance::Cosine { size * dim } else { 0 },
            rows: groups.div_ceil(parts.max(1)) * ROWS,
            parts,
            threads,
        }
    }

    /// The vectors of a part.
    fn part(&self, part: usize) -> Range<usize> {
        let groups = deal(self.n.div_ceil(ROWS), self.parts, part);
        (groups.start * ROWS).min(self.n)..(groups.end * ROWS).min(self.n)
    }

    fn slot(&self) -> usize {
        let rows = self.rows * (self.dim + MAX_NR + 3 * MAX_NR / 2);
        rows + ROWS * DEPTH + (1 + ROWS) * self.dim
    }

    fn workspace(&self) -> usize {
        self.levels * self.level + self.unit + 2 * self.n * self.levels + self.threads * self.slot()
    }
}

/// What a thread works in.
struct Slot<'a> {
    /// Residuals as [tile][dim][height].
    tiles: &'a mut [f32],
    /// Sums of products on their way from slice to slice: a panel's width each.
    sums: &'a mut [f32],
    /// Of each lane the best score, the second best, and the number (as bits) of the best one's vector of entries.
    bests: &'a mut [f32],
    /// Columns of a tile's chosen entries.
    turned: &'a mut [f32],
    /// A residual in a row, or a unit vector.
    row: &'a mut [f32],
    /// Unit vectors of a tile's chosen entries, for cosines.
    unit: &'a mut [f32],
}

impl<'a> Slot<'a> {
    fn new(sizes: &Sizes, floats: &'a mut [f32]) -> Slot<'a> {
        let rows = sizes.rows;
        let (tiles, rest) = floats.split_at_mut(rows * sizes.dim);
        let (sums, rest) = rest.split_at_mut(rows * MAX_NR);
        let (bests, rest) = rest.split_at_mut(rows * 3 * MAX_NR / 2);
        let (turned, rest) = rest.split_at_mut(ROWS * DEPTH);
        let (row, unit) = rest.split_at_mut(sizes.dim);
        Slot { tiles, sums, bests, turned, row, unit }
    }
}

/// What a part gives.
struct Part<'a> {
    /// Its vectors.
    count: usize,
    /// [vector][dim]
    quantized: &'a mut [f32],
    /// [vector][level]
    codes: &'a mut [u32],
    measures: &'a mut [f32],
}

fn launch<S: Simd>(_: &Kernel<Cpu, RvqEncode>, op: &RvqEncode, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let (x, books) = (l.input::<f32>(0), l.input::<f32>(1));
    let (n, dim, levels) = (op.n, op.codebook_dim, op.num_quantizers);
    let (pool, sizes) = (l.pool(), Sizes::of(op, Cpu::caps(l.device)));
    let (packed, rest) = l.scratch::<f32>().split_at_mut(levels * sizes.level);
    let (unit, rest) = rest.split_at_mut(sizes.unit);
    let (codes_of, rest) = rest.split_at_mut(n * levels);
    let (measures_of, slots) = rest.split_at_mut(n * levels);
    let codes_of: &mut [u32] = bytemuck::cast_slice_mut(codes_of);
    for (level, packed) in packed.chunks_exact_mut(sizes.level).enumerate() {
        pack(s, op, pool, &books[level * op.codebook_size * dim..][..op.codebook_size * dim], unit, packed);
    }
    let (Some(codes), Some(quantized), Some(measure)) = (l.output::<u32>(0), l.output::<f32>(1), l.output::<f32>(2))
    else {
        return Ok(());
    };
    let mut parts = Vec::with_capacity(sizes.parts);
    let (mut quantized, mut codes_left, mut measures_left) = (quantized, &mut *codes_of, &mut *measures_of);
    for part in 0..sizes.parts {
        let count = sizes.part(part).len();
        parts.push(Part {
            count,
            quantized: quantized.split_off_mut(..count * dim).expect("parts are all vectors"),
            codes: codes_left.split_off_mut(..count * levels).expect("parts are all vectors"),
            measures: measures_left.split_off_mut(..count * levels).expect("parts are all vectors"),
        });
    }
    let slack = packed.chunks_exact(sizes.level).map(|packed| slack_per_length::<S>(op, packed)).collect();
    let books = Books { op, all: books, packed, level: sizes.level, slack };
    let slots = Slots::new(&mut slots[..sizes.threads * sizes.slot()], sizes.slot());
    pool.chunks_mut(&mut parts, 1, |i, part| {
        let rows = sizes.part(i);
        let x = &x[rows.start * dim..rows.end * dim];
        slots.with(|slot| encode(s, &books, x, Slot::new(&sizes, slot), &mut part[0]));
    });
    for i in 0..n {
        for level in 0..levels {
            codes[level * n + i] = codes_of[i * levels + level];
            measure[level * n + i] = measures_of[i * levels + level];
        }
    }
    Ok(())
}

/// Packs a codebook: panels of entries, each with what is added to their products.
fn pack<S: Simd>(s: S, op: &RvqEncode, pool: &Pool, book: &[f32], unit: &mut [f32], packed: &mut [f32]) {
    let (dim, size, nr) = (op.codebook_dim, op.codebook_size, 2 * S::LANES);
    let packed = &mut packed[..size.div_ceil(nr) * (dim + 1) * nr];
    pool.chunk_pairs_mut((packed, (dim + 1) * nr), (unit, nr * dim), |panel, packed, unit| {
        let count = nr.min(size - panel * nr);
        let entries = &book[panel * nr * dim..][..count * dim];
        let (panel, added) = packed.split_at_mut(dim * nr);
        // Entries that pad the last panel are never the best.
        added[count..].fill(f32::NEG_INFINITY);
        let entry = |i: usize| &entries[i * dim..][..dim];
        let entries = match op.distance {
            Distance::Euclidean => {
                (0..count).for_each(|i| added[i] = (-0.5 * squares(s, entry(i))) as f32);
                entries
            }
            Distance::Cosine => {
                added[..count].fill(0.0);
                for (i, unit) in unit.chunks_exact_mut(dim.max(1)).enumerate() {
                    divide(s, entry(i), unit);
                }
                unit
            }
        };
        let mut rows: [&[f32]; MAX_NR] = [&[]; MAX_NR];
        rows.iter_mut().zip(entries.chunks_exact(dim.max(1))).for_each(|(row, entry)| *row = entry);
        if count < nr {
            panel.fill(0.0);
        }
        for from in (0..dim).step_by(PACKED) {
            let cols = PACKED.min(dim - from);
            transpose_rows(s, &rows[..count], from, cols, &mut panel[from * nr..][..cols * nr], nr);
        }
    });
}

/// The codebooks as they are and packed, a level of which is so long.
struct Books<'a> {
    op: &'a RvqEncode,
    all: &'a [f32],
    packed: &'a [f32],
    level: usize,
    /// How far scores may be from the best, see [`slack_per_length`].
    slack: Vec<[f64; 2]>,
}

impl<'a> Books<'a> {
    fn book(&self, level: usize) -> &'a [f32] {
        let len = self.op.codebook_size * self.op.codebook_dim;
        &self.all[level * len..][..len]
    }

    fn entry(&self, level: usize, code: usize) -> &'a [f32] {
        &self.book(level)[code * self.op.codebook_dim..][..self.op.codebook_dim]
    }

    fn packed(&self, level: usize) -> &'a [f32] {
        &self.packed[level * self.level..][..self.level]
    }
}

/// Encodes a part's vectors.
fn encode<S: Simd>(s: S, books: &Books<'_>, x: &[f32], mut slot: Slot<'_>, part: &mut Part<'_>) {
    let &RvqEncode { codebook_dim: dim, num_quantizers: levels, .. } = books.op;
    let (height, count) = (height::<S>(), part.count);
    let tiles = count.div_ceil(height);
    for (t, tile) in slot.tiles.chunks_exact_mut((height * dim).max(1)).take(tiles).enumerate() {
        let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
        rows.iter_mut().zip(of_tile::<S>(t, count)).for_each(|(row, i)| *row = &x[i * dim..][..dim]);
        transpose_rows(s, &rows[..height], 0, dim, tile, height);
    }
    let mut lengths: Vec<f64> = (0..count).map(|i| squares(s, &x[i * dim..][..dim]).sqrt()).collect();
    for level in 0..levels {
        score(s, books, level, tiles, &mut slot);
        choose(s, books, level, &lengths, &mut slot, part);
        lose(s, books, level, &mut lengths, &mut slot, part);
    }
    if levels == 0 {
        part.quantized.fill(0.0);
    }
    for (i, q) in part.quantized.chunks_exact_mut(dim.max(1)).enumerate() {
        for level in 0..levels {
            let mut chosen = books.entry(level, part.codes[i * levels + level] as usize);
            if books.op.distance == Distance::Cosine {
                divide(s, chosen, slot.row);
                chosen = slot.row;
            }
            match level {
                0 => q.copy_from_slice(chosen),
                _ => accumulate(s, chosen, q),
            }
        }
    }
}

/// The vectors of a tile, of `count` in all. One that has fewer gets the last one several times.
fn of_tile<S: Simd>(tile: usize, count: usize) -> impl Iterator<Item = usize> {
    (tile * height::<S>()..(tile + 1) * height::<S>()).map(move |i| i.min(count - 1))
}

/// What the products of some tiles and a codebook leave in `bests`.
fn score<S: Simd>(s: S, books: &Books<'_>, level: usize, tiles: usize, slot: &mut Slot<'_>) {
    let (dim, nr, height) = (books.op.codebook_dim, 2 * S::LANES, height::<S>());
    let (packed, panel_len) = (books.packed(level), (dim + 1) * nr);
    for panel in 0..books.op.codebook_size.div_ceil(nr) {
        let added = &packed[panel * panel_len + dim * nr..][..nr];
        for from in (0..dim.max(1)).step_by(DEPTH) {
            let depth = DEPTH.min(dim - from);
            let (entries, after) = packed[panel * panel_len + from * nr..].split_at(depth * nr);
            let ahead = &after[..after.len().min(DEPTH * nr)];
            let share = ahead.len().div_ceil(tiles).next_multiple_of(16).max(1);
            let mut ahead = ahead.chunks(share);
            for tile in 0..tiles {
                let slice = Slice {
                    residuals: &slot.tiles[(tile * dim + from) * height..][..depth * height],
                    entries,
                    added,
                    ahead: ahead.next().unwrap_or(&[]),
                    first: from == 0,
                    last: from + depth == dim,
                    number: 2 * panel as u32,
                };
                // Those that a single slice gives never leave L1.
                let at = if dim <= DEPTH { 0 } else { tile * height * nr };
                let sums = &mut slot.sums[at..][..height * nr];
                let bests = &mut slot.bests[tile * height * 3 * S::LANES..][..height * 3 * S::LANES];
                tile::multiply(s, slice, sums, bests);
            }
        }
    }
}

/// Codes of a level.
fn choose<S: Simd>(s: S, books: &Books<'_>, level: usize, lengths: &[f64], slot: &mut Slot<'_>, part: &mut Part<'_>) {
    let &RvqEncode { codebook_dim: dim, num_quantizers: levels, .. } = books.op;
    let height = height::<S>();
    let slack = books.slack[level];
    for (i, (length, codes)) in lengths.iter().zip(part.codes.chunks_exact_mut(levels)).enumerate() {
        let bests = &slot.bests[i * 3 * S::LANES..][..3 * S::LANES];
        let limit = slack[0] * length + slack[1];
        let code = outright(s, bests, limit).unwrap_or_else(|| {
            let tile = &slot.tiles[i / height * height * dim..][..height * dim];
            slot.row.iter_mut().zip(tile[i % height..].iter().step_by(height)).for_each(|(to, &v)| *to = v);
            weigh(s, books.op, slot.row, books.book(level), bests, limit)
        });
        codes[level] = code as u32;
        // It lies anywhere in a codebook that the panels have pushed out; all are chosen before the first is taken.
        fetch(books.entry(level, code));
    }
}

/// Residuals lose what was chosen for them, which gives their lengths and measures.
fn lose<S: Simd>(s: S, books: &Books<'_>, level: usize, lengths: &mut [f64], slot: &mut Slot<'_>, part: &mut Part<'_>) {
    let &RvqEncode { codebook_dim: dim, num_quantizers: levels, distance, .. } = books.op;
    let height = height::<S>();
    for (t, lengths) in lengths.chunks_mut(height).enumerate() {
        let first = t * height;
        let tile = &mut slot.tiles[first * dim..][..height * dim];
        let mut chosen: [&[f32]; ROWS] = [&[]; ROWS];
        let mut units = slot.unit.chunks_exact_mut(dim.max(1));
        for (chosen, i) in chosen.iter_mut().zip(of_tile::<S>(t, part.count)) {
            *chosen = books.entry(level, part.codes[i * levels + level] as usize);
            if let (Distance::Cosine, Some(unit)) = (distance, units.next()) {
                divide(s, chosen, unit);
                *chosen = unit;
            }
        }
        let (mut squares, mut dots): (Sums, Sums) = ([0.0; _], [0.0; _]);
        for from in (0..dim).step_by(DEPTH) {
            let cols = DEPTH.min(dim - from);
            let (turned, r) = (&mut slot.turned[..cols * height], &mut tile[from * height..][..cols * height]);
            transpose_rows(s, &chosen[..height], from, cols, turned, height);
            if distance == Distance::Cosine {
                fold(s, turned, r, &mut dots);
            }
            subtract(s, turned, r);
            fold(s, r, r, &mut squares);
        }
        for (i, length) in lengths.iter_mut().enumerate() {
            let of = |sums: &Sums| sums[i..].iter().step_by(height).sum::<f64>();
            let before = length.max(1e-12);
            *length = of(&squares).sqrt();
            part.measures[(first + i) * levels + level] = match distance {
                Distance::Euclidean => *length,
                Distance::Cosine => of(&dots) / before,
            } as f32;
        }
    }
}

/// Sums over the values of a tile's vectors: a multiple of every tile's height, so that vector `i` has those `i`, `i + height` and so
/// on, and each waits for itself seldom.
type Sums = [f64; 48];

simd_fn! {
    /// Adds products of two tiles of as many columns.
    fn fold[S](_s, x: &[f32], y: &[f32], sums: &mut Sums) {
        let mut open = *sums;
        let whole = x.len() / open.len() * open.len();
        for (x, y) in x[..whole].chunks_exact(open.len()).zip(y[..whole].chunks_exact(open.len())) {
            for i in 0..open.len() {
                open[i] += f64::from(x[i]) * f64::from(y[i]);
            }
        }
        for ((x, y), sum) in x[whole..].iter().zip(&y[whole..]).zip(&mut open) {
            *sum += f64::from(*x) * f64::from(*y);
        }
        *sums = open;
    }
}

simd_fn! {
    fn subtract[S](_s, x: &[f32], from: &mut [f32]) {
        from.iter_mut().zip(x).for_each(|(from, x)| *from -= x);
    }
}

simd_fn! {
    /// The unit vector of an entry.
    fn divide[S](s, entry: &[f32], unit: &mut [f32]) {
        let divisor = unit_divisor(s, entry);
        unit.iter_mut().zip(entry).for_each(|(unit, &e)| *unit = e / divisor);
    }
}
