//! RVQ encoding on the CPU: x [n, dim], codebooks [levels, size, dim], all contiguous f32.
//!
//! 1. Codebooks (for cosines: their unit vectors) are packed into panels of two vectors of entries, with -‖e‖²/2 beside
//!    them.
//! 2. A part of the work is some vectors through all levels. Their residuals lie in rows, and interleaved by `ROWS` for
//!    the product: [tile][dim][ROWS], one stream. Per level, slices of `DEPTH` of a panel stay in L1 while all tiles pass:
//!    r·e - ‖e‖²/2 in registers, carried from slice to slice in L1.
//! 3. After a panel's last slice each lane of a vector keeps its best score, whose it is, and its second best score; no
//!    score is written to memory.
//! 4. Where a second entry comes within the f32 error of the best, all that do are weighed again in f64 by the direct
//!    form Σ(r - e)², the lowest index first (a lane whose second best does: all of the lane). So equal distances are
//!    equal, and rounding of the expanded form decides nothing.
//! 5. The residual loses the entry.
//!
//! Registers (AVX-512): 24 accumulators, 2 of the panel, 1 broadcast. Caches: a slice is 32 KiB; a part's residuals and
//! the panel in use stay in L2, and the next slice is asked for while this one is used. Codebooks beyond L2 are read from
//! L3 once for each part: such parts are larger. Bound: arithmetic, 2·n·size·dim per level.
//!
//! Tried and lost, in GFLOP/s of the tile alone on one core with an FMA peak of 178, for codebooks of 1 and of 4 MB a level:
//! tiles of 14 rows 150-157 and 97-143 (12 rows: 160-163 and 141-145, same rounds); residuals as [dim/16][ROWS][16], which
//! would need no interleaving, 159 and 111; no slice asked for ahead 149 and 118; half as many vectors to a part 150 and
//! 121. All scores written to L2 and read again for the best, and f64 sums of one chain each, were half of the time.
#![allow(unsafe_code)] // the innermost loop reads through pointers whose ranges are asserted before it

use super::{Distance, RvqEncode};
use crate::backend::cpu::simd::{Isa, Simd, fetch, fetch_line, transpose};
use crate::backend::cpu::{Caps, Cpu, Pool};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::Format;
use crate::error::{Result, Unsupported};
use crate::ops::panels::pack_panels;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for RvqEncode {
    const KERNELS: &'static [Kernel<Cpu, Self>] =
        isa_rows![("rvq_encode_f32", supports, launch).workspace(|op, _| 4 * Sizes::of(op).workspace())];
}

/// Depth of a slice of a panel.
const DEPTH: usize = 256;
/// Added to the distance of residuals in rows, so that they do not fall into the same sets of L1.
const PAD: usize = 16;
/// The widest panel: two vectors of AVX-512.
const MAX_NR: usize = 32;
/// Rows of a part are a multiple of this, which every tile's height divides.
const ROWS: usize = 12;
/// Bytes of all levels that stay in L2 beside a part, and of the residuals of a part.
const L2_BYTES: usize = 1 << 20;
const RESIDUAL_BYTES: usize = 704 << 10;

fn supports<S: Simd>(_: &RvqEncode, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

/// How work and workspace are divided, in vectors and floats.
struct Sizes {
    dim: usize,
    levels: usize,
    /// Packed entries of a level.
    panels: usize,
    /// The same and what is added to their products.
    level: usize,
    /// A level's unit vectors, for cosines.
    unit: usize,
    /// Vectors of a part.
    rows: usize,
    parts: usize,
}

impl Sizes {
    fn of(op: &RvqEncode) -> Sizes {
        let (dim, size) = (op.codebook_dim, op.codebook_size);
        let padded = size.next_multiple_of(MAX_NR);
        let most = if 4 * op.num_quantizers * padded * dim <= L2_BYTES { 7 * ROWS } else { 14 * ROWS };
        let most = (RESIDUAL_BYTES / (4 * dim.max(1))).clamp(ROWS, most);
        // An even number of parts, so that two threads get the same.
        let rows = op.n.div_ceil(op.n.div_ceil(most).next_multiple_of(2).max(1)).next_multiple_of(ROWS).max(ROWS);
        Sizes {
            dim,
            levels: op.num_quantizers,
            panels: padded * dim,
            level: padded * (dim + 1),
            unit: if op.distance == Distance::Cosine { size * dim } else { 0 },
            rows,
            parts: op.n.div_ceil(rows),
        }
    }

    fn part(&self) -> usize {
        self.rows * (2 * self.dim + PAD + MAX_NR + 3 * MAX_NR / 2 + 2 * self.levels)
    }

    fn workspace(&self) -> usize {
        self.levels * self.level + self.unit + self.parts * self.part()
    }
}

/// What a part works in.
struct Part<'a> {
    /// Residuals in rows, `dim + PAD` apart.
    residuals: &'a mut [f32],
    /// The same as [tile][dim][ROWS].
    tiles: &'a mut [f32],
    /// Sums of products on their way from slice to slice: a panel's width each.
    sums: &'a mut [f32],
    /// Of each lane the best score, the second best, and the number (as bits) of the best one's vector of entries.
    bests: &'a mut [f32],
    /// Codes (as bits) and measures of each vector.
    records: &'a mut [f32],
}

impl<'a> Part<'a> {
    fn new(sizes: &Sizes, floats: &'a mut [f32]) -> Part<'a> {
        let rows = sizes.rows;
        let (residuals, rest) = floats.split_at_mut(rows * (sizes.dim + PAD));
        let (tiles, rest) = rest.split_at_mut(rows * sizes.dim);
        let (sums, rest) = rest.split_at_mut(rows * MAX_NR);
        let (bests, records) = rest.split_at_mut(rows * 3 * MAX_NR / 2);
        Part { residuals, tiles, sums, bests, records }
    }
}

fn launch<S: Simd>(_: &Kernel<Cpu, RvqEncode>, op: &RvqEncode, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let (x, books) = (l.input::<f32>(0), l.input::<f32>(1));
    let (n, dim, levels) = (op.n, op.codebook_dim, op.num_quantizers);
    let (pool, sizes) = (l.pool(), Sizes::of(op));
    let (packed, rest) = l.scratch::<f32>().split_at_mut(levels * sizes.level);
    let (unit, work) = rest.split_at_mut(sizes.unit);
    for (level, packed) in packed.chunks_exact_mut(sizes.level).enumerate() {
        let book = &books[level * op.codebook_size * dim..][..op.codebook_size * dim];
        pack(s, op, pool, book, unit, packed.split_at_mut(sizes.panels));
    }
    let (Some(codes), Some(quantized), Some(measure)) = (l.output::<u32>(0), l.output::<f32>(1), l.output::<f32>(2))
    else {
        return Ok(());
    };
    let (packed, work) = (&*packed, &mut work[..sizes.parts * sizes.part()]);
    pool.chunk_pairs_mut((work, sizes.part()), (quantized, sizes.rows * dim), |i, work, quantized| {
        let first = i * sizes.rows;
        let x = &x[first * dim..(first + sizes.rows).min(n) * dim];
        encode(s, op, &sizes, x, books, packed, Part::new(&sizes, work), quantized);
    });
    for (i, work) in work.chunks_exact_mut(sizes.part()).enumerate() {
        let first = i * sizes.rows;
        let records = Part::new(&sizes, work).records;
        for (i, record) in (first..n).zip(records.chunks_exact(2 * levels.max(1))) {
            for level in 0..levels {
                codes[level * n + i] = record[level].to_bits();
                measure[level * n + i] = record[levels + level];
            }
        }
    }
    Ok(())
}

/// Packs a level: panels of entries, and what is added to their products.
fn pack<S: Simd>(
    s: S,
    op: &RvqEncode,
    pool: &Pool,
    book: &[f32],
    unit: &mut [f32],
    (panels, added): (&mut [f32], &mut [f32]),
) {
    let (dim, size) = (op.codebook_dim, op.codebook_size);
    let format = Format::Panels { nr: 2 * S::LANES as u16, kr: 1, gated: false };
    let panels = &mut panels[..format.elements(size, dim)];
    // Entries that pad the last panel are never the best.
    let (added, none) = added.split_at_mut(size);
    none.fill(f32::NEG_INFINITY);
    match op.distance {
        Distance::Euclidean => {
            pool.chunks_mut(added, MAX_NR, |i, added| {
                for (j, added) in added.iter_mut().enumerate() {
                    let e = &book[(i * MAX_NR + j) * dim..][..dim];
                    *added = (-0.5 * squares(s, e)) as f32;
                }
            });
            pack_panels(pool, book, [dim, 1], [size, dim], format, panels);
        }
        Distance::Cosine => {
            added.fill(0.0);
            pool.chunks_mut(unit, MAX_NR * dim, |i, unit| {
                for (unit, e) in unit.chunks_exact_mut(dim).zip(book[i * MAX_NR * dim..].chunks_exact(dim)) {
                    let divisor = unit_divisor(s, e);
                    unit.iter_mut().zip(e).for_each(|(unit, &v)| *unit = v / divisor);
                }
            });
            pack_panels(pool, unit, [dim, 1], [size, dim], format, panels);
        }
    }
}

/// Encodes the vectors of a part.
#[allow(clippy::too_many_arguments)]
fn encode<S: Simd>(
    s: S,
    op: &RvqEncode,
    sizes: &Sizes,
    x: &[f32],
    books: &[f32],
    packed: &[f32],
    part: Part<'_>,
    quantized: &mut [f32],
) {
    let (dim, size, levels) = (op.codebook_dim, op.codebook_size, op.num_quantizers);
    let Part { residuals, tiles, sums, bests, records } = part;
    let (rows, stride, nr) = (tile_rows::<S>(), dim + PAD, 2 * S::LANES);
    residuals.fill(0.0);
    quantized.fill(0.0);
    for (r, x) in residuals.chunks_exact_mut(stride).zip(x.chunks_exact(dim.max(1))) {
        r[..dim].copy_from_slice(x);
    }
    let mut lengths: Vec<f64> = residuals.chunks_exact(stride).map(|r| squares(s, r).sqrt()).collect();
    // The last part has fewer vectors: with a width of 0, as many as it has room for do no harm.
    let count = x.len().checked_div(dim).unwrap_or(sizes.rows);
    let groups = count.div_ceil(rows);
    for level in 0..levels {
        let packed = &packed[level * sizes.level..][..sizes.level];
        let (panels, added) = packed.split_at(sizes.panels);
        interleave(s, &residuals[..groups * rows * stride], stride, dim, tiles);
        for best in bests.chunks_exact_mut(3 * S::LANES) {
            best[..2 * S::LANES].fill(f32::NEG_INFINITY);
            best[2 * S::LANES..].fill(0.0);
        }
        for panel in 0..size.div_ceil(nr) {
            for from in (0..dim.max(1)).step_by(DEPTH) {
                let depth = DEPTH.min(dim - from);
                let (entries, after) = panels[(panel * dim + from) * nr..].split_at(depth * nr);
                let ahead = &after[..after.len().min(DEPTH * nr)];
                let share = ahead.len().div_ceil(groups).next_multiple_of(16).max(1);
                let mut ahead = ahead.chunks(share);
                for group in 0..groups {
                    let slice = Slice {
                        residuals: &tiles[(group * dim + from) * rows..][..depth * rows],
                        entries,
                        added: &added[panel * nr..][..nr],
                        ahead: ahead.next().unwrap_or(&[]),
                        first: from == 0,
                        last: from + depth == dim,
                        number: 2 * panel as u32,
                    };
                    let sums = &mut sums[group * rows * nr..][..rows * nr];
                    let bests = &mut bests[group * rows * 3 * S::LANES..][..rows * 3 * S::LANES];
                    tile_any(s, slice, sums, bests);
                }
            }
        }
        let book = &books[level * size * dim..][..size * dim];
        let slack = slack_per_length(op, &added[..size]);
        for i in 0..count {
            let limit = slack[0] * lengths[i] + slack[1];
            let r = &residuals[i * stride..][..dim];
            let code = nearest(s, op, r, book, &bests[i * 3 * S::LANES..][..3 * S::LANES], limit);
            records[i * 2 * levels + level] = f32::from_bits(code as u32);
            // It lies anywhere in a codebook that the panels have pushed out; all are chosen before the first is taken.
            fetch(&book[code * dim..][..dim]);
        }
        for i in 0..count {
            let r = &mut residuals[i * stride..][..dim];
            let record = &mut records[i * 2 * levels..][..2 * levels];
            let code = record[level].to_bits() as usize;
            let entry = &book[code * dim..][..dim];
            let q = &mut quantized[i * dim..][..dim];
            match op.distance {
                Distance::Euclidean => {
                    take(s, entry, None, r, q);
                    lengths[i] = squares(s, r).sqrt();
                    record[levels + level] = lengths[i] as f32;
                }
                Distance::Cosine => {
                    record[levels + level] = cosine(s, r, entry, lengths[i]) as f32;
                    take(s, entry, Some(unit_divisor(s, entry)), r, q);
                    lengths[i] = squares(s, r).sqrt();
                }
            }
        }
    }
}

/// How far from the best score an entry may be that is nearer: of ‖r‖, and besides.
///
/// Sums of `dim` products in f32 err by about √dim rounding steps of ‖r‖·‖e‖; four times that is kept.
fn slack_per_length(op: &RvqEncode, added: &[f32]) -> [f64; 2] {
    let longest = match op.distance {
        Distance::Euclidean => f64::from(-2.0 * added.iter().fold(0f32, |m, &v| m.min(v))).sqrt(),
        Distance::Cosine => 1.0,
    };
    let steps = 4.0 * f64::from(f32::EPSILON) * (op.codebook_dim as f64).sqrt().max(2.0);
    [steps * longest, steps * 0.5 * longest * longest]
}

/// The nearest entry, by what each lane has kept; f64 decides among scores that are at most `slack` from the largest.
fn nearest<S: Simd>(s: S, op: &RvqEncode, r: &[f32], book: &[f32], bests: &[f32], slack: f64) -> usize {
    let (dim, lanes) = (op.codebook_dim, S::LANES);
    let (scores, seconds, numbers) = (&bests[..lanes], &bests[lanes..2 * lanes], &bests[2 * lanes..]);
    let limit = f64::from(s.max_lane(s.load(scores))) - slack;
    let reaches = |score: f32| f64::from(score) >= limit;
    let of_lane = |lane: usize| numbers[lane].to_bits() as usize * lanes + lane;
    let mut near = (0..lanes).filter(|&lane| reaches(scores[lane]));
    // Where nothing is a number, nothing reaches.
    let Some(lane) = near.next() else { return 0 };
    if near.next().is_none() && !reaches(seconds[lane]) {
        return of_lane(lane);
    }
    let (mut best, mut least) = (0, f64::INFINITY);
    let mut weigh = |k: usize| {
        let entry = &book[k * dim..][..dim];
        let distance = match op.distance {
            Distance::Euclidean => distance(s, r, entry),
            Distance::Cosine => -cosine(s, r, entry, 1.0),
        };
        if distance < least || (distance == least && k < best) {
            (best, least) = (k, distance);
        }
    };
    for lane in (0..lanes).filter(|&lane| reaches(scores[lane])) {
        match reaches(seconds[lane]) {
            true => (lane..op.codebook_size).step_by(lanes).for_each(&mut weigh),
            false => weigh(of_lane(lane)),
        }
    }
    best
}

/// The cosine of r, whose length is known, and an entry.
fn cosine<S: Simd>(s: S, r: &[f32], entry: &[f32], length: f64) -> f64 {
    dot(s, r, entry) / (length.max(1e-12) * squares(s, entry).sqrt().max(1e-12))
}

fn unit_divisor<S: Simd>(s: S, x: &[f32]) -> f32 {
    squares(s, x).sqrt().max(1e-12) as f32
}

/// A sum in f64 of what `$term` makes of each element, in sixteen sums: one would wait for itself.
macro_rules! sum_f64 {
    ($x:ident, $y:ident, |$a:ident, $b:ident| $term:expr) => {{
        let mut sums = [0f64; 16];
        let blocks = $x.chunks_exact(16).zip($y.chunks_exact(16));
        for (x, y) in blocks {
            for (sum, (&$a, &$b)) in sums.iter_mut().zip(x.iter().zip(y)) {
                let ($a, $b) = (f64::from($a), f64::from($b));
                *sum += $term;
            }
        }
        let rest = $x.len() - $x.len() % 16;
        for (sum, (&$a, &$b)) in sums.iter_mut().zip($x[rest..].iter().zip(&$y[rest..])) {
            let ($a, $b) = (f64::from($a), f64::from($b));
            *sum += $term;
        }
        // In pairs: sixteen additions in a row would wait for each other.
        let mut width = sums.len() / 2;
        while width > 0 {
            for i in 0..width {
                sums[i] += sums[i + width];
            }
            width /= 2;
        }
        sums[0]
    }};
}

simd_fn! {
    /// Σ(x - y)².
    fn distance[S](_s, x: &[f32], y: &[f32]) -> f64 {
        sum_f64!(x, y, |a, b| (a - b) * (a - b))
    }
}

simd_fn! {
    /// Σx·y.
    fn dot[S](_s, x: &[f32], y: &[f32]) -> f64 {
        sum_f64!(x, y, |a, b| a * b)
    }
}

simd_fn! {
    /// Σx².
    fn squares[S](_s, x: &[f32]) -> f64 {
        sum_f64!(x, x, |a, _b| a * a)
    }
}

simd_fn! {
    /// r loses an entry (its unit vector) and q gains it.
    fn take[S](_s, entry: &[f32], divisor: Option<f32>, r: &mut [f32], q: &mut [f32]) {
        let each = r.iter_mut().zip(q).zip(entry);
        match divisor {
            None => each.for_each(|((r, q), &e)| {
                *r -= e;
                *q += e;
            }),
            Some(divisor) => each.for_each(|((r, q), &e)| {
                *r -= e / divisor;
                *q += e / divisor;
            }),
        }
    }
}

const fn tile_rows<S: Simd>() -> usize {
    match S::ISA {
        Isa::Avx512 => 12,
        Isa::Avx2 => 6,
        Isa::Portable => 4,
    }
}

/// Rows to [tile][dim][height].
fn interleave<S: Simd>(s: S, rows: &[f32], stride: usize, dim: usize, tiles: &mut [f32]) {
    if dim == 0 {
        return;
    }
    let height = tile_rows::<S>();
    for (rows, tile) in rows.chunks_exact(height * stride).zip(tiles.chunks_exact_mut(height * dim)) {
        transpose(s, rows, stride, (height, dim), None, tile, height);
    }
}

/// What a tile multiplies.
struct Slice<'a> {
    /// [depth][HEIGHT]
    residuals: &'a [f32],
    /// [depth][2·LANES]
    entries: &'a [f32],
    /// What is added to the products of the panel's entries.
    added: &'a [f32],
    /// Entries to bring into L2 meanwhile.
    ahead: &'a [f32],
    /// Whether sums begin here, and end.
    first: bool,
    last: bool,
    /// The panel's first vector, counted from the first entry.
    number: u32,
}

fn tile_any<S: Simd>(s: S, slice: Slice<'_>, sums: &mut [f32], bests: &mut [f32]) {
    match S::ISA {
        Isa::Avx512 => tile::<S, 12>(s, slice, sums, bests),
        Isa::Avx2 => tile::<S, 6>(s, slice, sums, bests),
        Isa::Portable => tile::<S, 4>(s, slice, sums, bests),
    }
}

simd_fn! {
    /// Products of a slice; at the end of the sums, what they do to the best of each lane.
    fn tile[S; const HEIGHT: usize](s, slice: Slice<'_>, sums: &mut [f32], bests: &mut [f32]) {
        let (l, nr) = (S::LANES, 2 * S::LANES);
        let Slice { residuals, entries, added, .. } = slice;
        let depth = entries.len() / nr;
        assert!(residuals.len() >= depth * HEIGHT);
        let mut c = [[s.zero(); 2]; HEIGHT];
        for (c, sums) in c.iter_mut().zip(sums.chunks_exact(nr)) {
            let from = if slice.first { added } else { sums };
            *c = [s.load(from), s.load(&from[l..])];
        }
        // A little in each step: asked for in one go they would wait for each other, and everything for them.
        let (mut ahead, share) = (slice.ahead.as_ptr().cast::<u8>(), size_of_val(slice.ahead) / depth.max(1));
        let mut at = residuals.as_ptr();
        for e in entries.chunks_exact(nr) {
            fetch_line(ahead);
            ahead = ahead.wrapping_add(share);
            let e = [s.load(e), s.load(&e[l..])];
            for (i, c) in c.iter_mut().enumerate() {
                // SAFETY: `at` has advanced by fewer than `depth` rows of HEIGHT, so this is inside by the assertion above.
                let r = s.splat(unsafe { *at.add(i) });
                c[0] = s.fma(r, e[0], c[0]);
                c[1] = s.fma(r, e[1], c[1]);
            }
            // SAFETY: at most one past the last value.
            at = unsafe { at.add(HEIGHT) };
        }
        if !slice.last {
            for (c, sums) in c.iter().zip(sums.chunks_exact_mut(nr)) {
                s.store(c[0], sums);
                s.store(c[1], &mut sums[l..]);
            }
            return;
        }
        let numbers = [0, 1].map(|half| s.splat(f32::from_bits(slice.number + half)));
        for (c, bests) in c.iter().zip(bests.chunks_exact_mut(3 * l)) {
            let (mut best, mut second) = (s.load(bests), s.load(&bests[l..]));
            let mut number = s.load(&bests[2 * l..]);
            for (&score, of) in c.iter().zip(numbers) {
                // What is no number stays out of both: `max` and `min` hand on the operand on the right.
                second = s.max(s.min(score, best), second);
                number = s.select_lt(best, score, of, number);
                best = s.max(score, best);
            }
            s.store(best, bests);
            s.store(second, &mut bests[l..]);
            s.store(number, &mut bests[2 * l..]);
        }
    }
}
