//! Packing, blocking and the walk over k, for any register tile. See `mod.rs` for the algorithm.
//!
//! Blocking, from the caches of a core (L1 48 KiB, L2 2 MiB; 1 MiB is enough), for tiles of vectors (that of AMX has its own, `amx.rs`):
//! - A block of the result is up to 112 rows by 512 columns: 224 KiB of sums, which stay in L2 from the first step of k to the
//!   last. Every value of rhs that comes from L3 meets 112 rows, every value of lhs 512 columns: 90 operations a byte. Blocks are
//!   narrower only where threads would have to wait for each other: 16 blocks for any number of threads take 197x768x3072 8 %
//!   longer, for each copies its rows of lhs.
//! - KC = 512 steps of k, up to a quarter more where that saves a block (588 steps in two take 3 % longer): a tile of lhs is
//!   32 KiB, a panel's piece of rhs 64 KiB. Both stream from L2, 14 bytes a cycle of the 48 that it gives; a tile's sums are
//!   loaded and stored every 7168 cycles.
//! - While a piece of rhs is used, the next one is asked for, and the rows of lhs of the next block of k, a little with every step, so
//!   that L3 is read evenly. Asked for in one go before each tile, the requests hold up the tile's own loads: 6 % for lhs alone.
//!   A line between every few steps is a loop in a loop ([`Stretch`](super::ahead::Stretch)): 577x4096x1024 took 31.2 ms, now 27.8,
//!   2048^3 108, now 100, 197x3072x768 5.7, now 5.1 (Xeon, family 6, model 167, f32, one thread).
//!   What the tile reads itself is asked for in L1 four steps ahead: without that the first multiply-adds of a step wait, 2 % of
//!   the time.
//! - The last step of k ends in the epilogue, tile by tile. Lines of the result and of a residual are asked for before the tile
//!   that ends in them: a store that misses holds up what comes after it (577x4096x1024 takes 5 % longer; asking for them
//!   between steps gains half of that). Sums that are the result as they are, or with a bias, go there from the registers: by way
//!   of L1 they cost 2 to 3 %.
//! - Rows are read where they lie unless they are whole pages apart, or have to be widened. Then a block copies its own, KC steps at a
//!   time, to rows that share no set of L1: 230 KiB in L2, once for each 512 columns. (Zen 5, f32: 2048^3 takes 2.3 % longer with
//!   all of lhs packed beforehand, and copying takes 2.3 % longer without asking for rows ahead; with rows of 2032 values, which are
//!   read in place, it reaches 249 GFLOP/s, copying 241, of 265. 1024^3 and 2048^3 in bf16 take 7 % longer with lhs packed.) What is
//!   left of it: 112 rows 16 KiB apart share four sets of L2, which loses some before they are copied. Copying a row between tiles,
//!   as soon as it is there, takes as long or 2 % longer.
//!
//! Measured (Sapphire Rapids, f32, one thread, 1024^3; multiply-adds reach 98 % of their peak with everything in L2): 77 % with
//! 224 x 64 blocks, KC = 256, lhs in rows 272 apart, requests before each tile; 82 % with lhs interleaved; 84 % with requests
//! between steps; 85 % with 512 columns; 88 % with KC = 512. KC = 1024 or blocks of 224 rows change nothing, with
//! 2048^3 neither. On Zen 5 (L2 1 MiB) KC of 256 and 384 are within 2 % of 512, to either side. A residual that tiles add from
//! their registers instead of by way of L1 gains nothing.

use super::ahead::{Ahead, Lines};
use super::epilogue::{self, Direct, Epilogue, Rows};

use crate::backend::cpu::simd::{LINE, Lane, Simd, pitch, transpose};
use crate::backend::cpu::{Caps, Cpu, Pool, Slots, deal};
use crate::backend::{Backend, Launch};
use crate::dtype::{Elem, Format};
use crate::ops::gemm::Gemm;
use crate::ops::panels::pack_panels;
use crate::ops::with_float;
use bytemuck::{Pod, Zeroable};
use std::ops::Range;

/// Steps of k in a block, unless a tile wants others.
pub(super) const KC: usize = 512;
/// The most columns of a block of the result.
const BLOCK_COLS: usize = 512;
/// Panels of the narrowest block that is made to give every thread something.
const LEAST_PANELS: usize = 2;
/// The most rows of lhs packed at a time: bounds the workspace.
pub(super) const CHUNK_ROWS: usize = 4032;
/// Steps of k that a tile asks for rhs ahead, in L1.
pub(super) const NEAR: usize = 4;
/// Columns up to which a tile that reads whole lines of lhs does so where they lie, for more packing pays: of rows a multiple of a
/// kilobyte apart, 16 of which share a set or two of L1, and of others.
pub(super) const LYING_COLS: [usize; 2] = [1024, 4096];
/// Steps of lhs on their way through a transposition.
const STAGE: usize = 64;

/// A register tile.
pub(super) trait Tile: Send + Sync {
    type S: Simd;
    /// The elements of lhs.
    type Source: Elem;
    /// A step of k in packed lhs: `KR` values, in four bytes.
    type Step: Pod + Send + Sync;
    type Rhs: Elem;
    /// What it reads of rhs.
    type Value: Pod;
    /// What a thread holds while it works on a block of the result.
    type Turn;
    /// Values of k in a step.
    const KR: usize;
    /// The most rows.
    const MR: usize;
    /// From one step of packed lhs to the next.
    const PITCH: usize = Self::MR.next_multiple_of(8);
    /// Steps that are packed row by row: 1 where those of neighbouring rows are neighbours. Blocks of k are whole groups.
    const GROUP: usize = 1;
    /// Whether it reads `MR` rows, each in whole lines, whatever rows there are: then all tiles but the last have as many.
    const WHOLE: bool = false;
    /// Whether it stores sums straight into the result where it can.
    const STORES: bool = true;
    /// The most rows of a block of the result.
    const BLOCK_ROWS: usize = 112;

    /// Of so many steps of k those in a block of so many tiles of rows, a quarter more at most.
    fn steps(_tiles: usize, _steps: usize) -> usize {
        KC
    }

    fn simd(&self) -> Self::S;
    fn begin(&self) -> Self::Turn;
    /// Packs a row, or a block's part of one.
    fn pack_row(&self, row: &[Self::Source], out: &mut [Self::Step]);
    /// A piece of a panel as the tile reads it, in `room` if it has to be written anew.
    fn piece<'a>(&self, rhs: &'a [Self::Rhs], room: &'a mut [f32]) -> &'a [Self::Value];
    /// `lhs[steps, rows] · rhs[steps, nr]` for 1 to `MR` rows, and the steps that `ahead` has: asks for what comes next on the way.
    fn multiply(
        &self,
        turn: &mut Self::Turn,
        rows: usize,
        lhs: Lhs<'_, Self::Step>,
        rhs: &[Self::Value],
        ahead: &mut Ahead,
        sums: Sums<'_>,
    );
}

/// The rows of lhs that a tile reads.
#[derive(Clone, Copy)]
pub(super) enum Lhs<'a, Step> {
    /// Steps of neighbouring rows, `PITCH` apart; or groups of steps, in which those of a row are neighbours.
    Packed(&'a [Step]),
    /// Rows of neighbouring steps, a stride apart.
    Rows(&'a [Step], usize),
}

/// Where the sums of a tile begin and end.
pub(super) struct Sums<'a> {
    /// [MR, nr]
    pub acc: &'a mut [f32],
    /// Whether they begin with those in `acc` and not with zero.
    pub adds: bool,
    /// Where they end; in `acc` if nowhere else.
    pub to: Option<Direct<'a>>,
}

// Loops over registers name them by number, over ranges known to be there: otherwise some are kept in memory.
#[allow(clippy::needless_range_loop)]
impl Sums<'_> {
    #[inline(always)]
    pub fn begin<S: Simd, const ROWS: usize>(&self, s: S) -> [[S::V; 2]; ROWS] {
        let nr = 2 * S::LANES;
        let mut c = [[s.zero(); 2]; ROWS];
        if self.adds {
            let acc = &self.acc[..ROWS * nr];
            for r in 0..ROWS {
                c[r] = [s.load(&acc[r * nr..]), s.load(&acc[r * nr + S::LANES..])];
            }
        }
        c
    }

    #[inline(always)]
    pub fn end<S: Simd, const ROWS: usize>(self, s: S, c: &[[S::V; 2]; ROWS]) {
        let nr = 2 * S::LANES;
        if let Some(to) = self.to {
            return to.store(s, c);
        }
        let acc = &mut self.acc[..ROWS * nr];
        for r in 0..ROWS {
            s.store(c[r][0], &mut acc[r * nr..]);
            s.store(c[r][1], &mut acc[r * nr + S::LANES..]);
        }
    }
}

/// How a product [rows, k] · [k, columns of panels] is cut.
#[derive(Clone, Copy)]
struct Cut {
    rows: usize,
    /// Rows of every tile but the last, if they are not dealt out evenly.
    whole: Option<usize>,
    /// Register tiles of rows, and blocks of them.
    tiles: usize,
    row_blocks: usize,
    panels: usize,
    col_blocks: usize,
    /// Steps of k in all, in each block but the last, and the number of these.
    steps: usize,
    depth: usize,
    depths: usize,
}

impl Cut {
    /// `panels` have `nr` values for each value of k.
    fn new<T: Tile>(rows: usize, k: usize, panels: usize, threads: usize) -> Cut {
        let nr = 2 * T::S::LANES;
        let tiles = rows.div_ceil(T::MR);
        let row_blocks = tiles.div_ceil(T::BLOCK_ROWS / T::MR);
        // As wide as they may be: every block reads its rows of lhs. Narrower ones only where threads would wait for the last.
        let balanced = |blocks: usize| {
            threads == 1 || blocks >= 8 * threads || blocks.is_multiple_of(threads) && blocks >= 2 * threads
        };
        let widest = panels.div_ceil(BLOCK_COLS / nr);
        let narrowest = panels.div_ceil(LEAST_PANELS).max(widest);
        let col_blocks = (widest..narrowest).find(|&n| balanced(row_blocks * n)).unwrap_or(narrowest);
        let steps = k.div_ceil(T::KR);
        // A remainder of less than a quarter of a block is spread over the others.
        let kc = T::steps(tiles.div_ceil(row_blocks.max(1)), steps);
        let depths = ((steps + kc - kc / 4 - 1) / kc).max(1);
        let depth = steps.div_ceil(depths).max(1).next_multiple_of(T::GROUP);
        let whole = T::WHOLE.then_some(T::MR);
        Cut { rows, whole, tiles, row_blocks, panels, col_blocks, steps, depth, depths: steps.div_ceil(depth).max(1) }
    }

    /// The rows of a tile.
    fn rows_of(&self, tile: usize) -> Range<usize> {
        match self.whole {
            Some(rows) => tile * rows..self.rows.min((tile + 1) * rows),
            None => deal(self.rows, self.tiles, tile),
        }
    }

    /// The rows of some tiles.
    fn rows_of_all(&self, tiles: Range<usize>) -> Range<usize> {
        self.rows_of(tiles.start).start..self.rows_of(tiles.end - 1).end
    }

    /// Steps of packed lhs.
    fn lhs_len<T: Tile>(&self) -> usize {
        self.depths * self.tiles * self.depth * T::PITCH
    }
}

/// The memory of a thread: sums of a block, a piece of rhs, and rows of lhs. A tile of groups reads both where they are packed.
fn slot_len<T: Tile>(cut: &Cut) -> [usize; 3] {
    let nr = 2 * T::S::LANES;
    let sums = if cut.depths > 1 { T::BLOCK_ROWS * BLOCK_COLS } else { T::MR * nr };
    let of_steps = if T::GROUP == 1 { [cut.depth * T::KR * nr, T::BLOCK_ROWS * pitch(cut.depth)] } else { [0; 2] };
    [sums.next_multiple_of(16), of_steps[0], of_steps[1]]
}

/// Packed lhs of one chunk, what threads work in, then packed rhs if it is not prepared.
pub(super) fn workspace_bytes<T: Tile>(op: &Gemm, panels: Format, caps: &Caps) -> usize {
    let cut = Cut::new::<T>(op.m.min(CHUNK_ROWS), op.k, 1, caps.threads);
    let slot = slot_len::<T>(&cut).iter().sum();
    let rhs = if op.format == Format::Plain { panels.elements(op.rhs_rows(), op.k) * op.rhs.bytes() } else { 0 };
    cut.lhs_len::<T>() * 4 + Slots::bytes(caps, slot) + rhs
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
    let nr = 2 * T::S::LANES;
    let panels_of = |n: usize| n.div_ceil(if op.gated { nr / 2 } else { nr });
    let threads = Cpu::caps(l.device).threads;
    let cut_of = |rows: usize| Cut::new::<T>(rows, op.k, panels_of(op.n), threads);
    let largest = cut_of(op.m.min(CHUNK_ROWS));
    let slot = slot_len::<T>(&largest).iter().sum();
    let (packed_lhs, scratch) = l.scratch::<f32>().split_at_mut(largest.lhs_len::<T>());
    let (slots, packed_rhs) = scratch.split_at_mut(threads * slot);
    let slots = Slots::new(slots, slot);
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
            let cut = cut_of(rows);
            let lying = lying::<T>(&lhs, (b, first), op.k, &cut);
            let way = match lying {
                None if T::GROUP == 1 && lhs.col_stride == 1 => Way::Copied,
                _ => {
                    let rows = lying.unwrap_or(&[]);
                    let tiles = whole_tiles::<T>(&lhs, rows, op.k, &cut);
                    pack_lhs(tile, pool, &lhs, (b, first), op.k, &cut, tiles, packed_lhs);
                    Way::Before { rows, tiles, packed: &*packed_lhs }
                }
            };
            let lhs = Left { all: &lhs, at: (b, first), k: op.k, way };
            let base = (b * op.m + first) * op.n;
            let epilogue = Epilogue {
                bias,
                activation: op.activation,
                residual: residual.map(|r| &r[base..base + rows * op.n]),
                gated: op.gated,
                n: op.n,
            };
            let out = Rows::new(&mut out[base..base + rows * op.n], op.n);
            multiply(tile, pool, &lhs, rhs, &cut, &slots, &epilogue, &out);
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
        &self.rows(batch, row)[k]
    }

    /// Everything from a row on.
    fn rows(&self, batch: usize, row: usize) -> &'a [E] {
        &self.data[batch * self.batch_stride + row * self.row_stride..]
    }

    /// Copies a part of a row whose elements are no neighbours, from `k` on.
    fn gather(&self, batch: usize, row: usize, k: usize, out: &mut [E]) {
        let row = self.rows(batch, row);
        for (out, p) in out.iter_mut().zip(k..) {
            *out = row[p * self.col_stride];
        }
    }
}

/// How tiles come to rows of lhs.
#[derive(Clone, Copy)]
enum Way<'a, Step> {
    /// So many tiles read them where they lie, from the first on; those of the others are packed before.
    Before { rows: &'a [Step], tiles: usize, packed: &'a [Step] },
    /// Those of a block of the result are copied, a block of k at a time.
    Copied,
}

/// The rows of lhs that a product is about.
struct Left<'a, T: Tile> {
    all: &'a Strided<'a, T::Source>,
    /// The batch, and the first row.
    at: (usize, usize),
    k: usize,
    way: Way<'a, T::Step>,
}

impl<T: Tile> Left<'_, T> {
    /// Copies what some rows have in a block of k, if tiles do not read them elsewhere.
    fn copy(&self, tile: &T, cut: &Cut, rows: Range<usize>, block: usize, to: &mut [T::Step]) {
        if !matches!(self.way, Way::Copied) {
            return;
        }
        let (batch, first) = self.at;
        let part = self.part(cut, block);
        for (row, to) in rows.zip(to.chunks_exact_mut(pitch(cut.depth))) {
            tile.pack_row(self.all.part(batch, first + row, part.clone()), to);
        }
    }

    /// Of what some tiles have in a block of k, to be in L2 when it is copied or read, part `number` of `parts`. (Not a call: what it
    /// gives would be copied in memory, see [`Ahead`].)
    #[inline(always)]
    fn next(&self, cut: &Cut, tiles: Range<usize>, block: usize, number: usize, parts: usize) -> Lines {
        if let Way::Before { tiles: 0, packed, .. } = self.way {
            let (entry, line) = (cut.depth * T::PITCH, LINE / size_of::<T::Step>());
            let all = &packed[(block * cut.tiles + tiles.start) * entry..][..tiles.len() * entry];
            let share = deal(all.len() / line, parts, number);
            return Lines::of(&all[share.start * line..share.end * line]);
        }
        let rows = cut.rows_of_all(tiles);
        let share = deal(rows.len(), parts, number);
        if share.is_empty() {
            return Lines::NONE;
        }
        let (batch, first) = self.at;
        let row = self.all.part(batch, first + rows.start + share.start, self.part(cut, block));
        let stride = self.all.row_stride * size_of::<T::Source>();
        Lines::new(row.as_ptr(), stride, size_of_val(row), share.len())
    }

    /// The elements of a row in a block of k.
    fn part(&self, cut: &Cut, block: usize) -> Range<usize> {
        block * cut.depth * T::KR..self.k.min((block + 1) * cut.depth * T::KR)
    }

    /// What a tile reads in a block of k; rows from number `from` on are copied.
    fn tile<'b>(
        &'b self,
        cut: &Cut,
        block: usize,
        tile: usize,
        from: usize,
        copied: &'b [T::Step],
    ) -> Lhs<'b, T::Step> {
        let first = cut.rows_of(tile).start;
        match self.way {
            Way::Before { rows, tiles, .. } if tile < tiles => {
                let stride = self.all.row_stride / T::KR;
                Lhs::Rows(&rows[first * stride + block * cut.depth..], stride)
            }
            Way::Before { tiles, packed, .. } => {
                Lhs::Packed(&packed[(block * (cut.tiles - tiles) + tile - tiles) * cut.depth * T::PITCH..])
            }
            Way::Copied => Lhs::Rows(&copied[(first - from) * pitch(cut.depth)..], pitch(cut.depth)),
        }
    }
}

/// Rows of lhs as tiles can read them where they lie, from one on: their elements are neighbours and whole steps, as they stand in
/// memory. Rows whole pages apart share a set of L1, which has fewer ways than a tile has rows.
fn lying<'a, T: Tile>(
    lhs: &Strided<'a, T::Source>,
    (batch, first): (usize, usize),
    k: usize,
    cut: &Cut,
) -> Option<&'a [T::Step]> {
    const PAGE: usize = 4096;
    let (rows, stride) = (lhs.rows(batch, first), lhs.row_stride * size_of::<T::Source>());
    let apart = lhs.col_stride == 1 && !stride.is_multiple_of(PAGE);
    let whole = k.is_multiple_of(T::KR) && lhs.row_stride.is_multiple_of(T::KR);
    let fit = T::KR * size_of::<T::Source>() == size_of::<T::Step>();
    let pays = !T::WHOLE || {
        let in_lines = stride.is_multiple_of(LINE) && (rows.as_ptr() as usize).is_multiple_of(LINE);
        let most = LYING_COLS[usize::from(!stride.is_multiple_of(PAGE / 4))];
        in_lines && cut.panels * 2 * T::S::LANES <= most
    };
    (fit && apart && whole && pays)
        .then(|| bytemuck::try_cast_slice(&rows[..rows.len() / T::KR * T::KR]).ok())
        .flatten()
}

/// The first tiles, which find all rows that they read in `rows`.
fn whole_tiles<T: Tile>(lhs: &Strided<'_, T::Source>, rows: &[T::Step], k: usize, cut: &Cut) -> usize {
    let stride = lhs.row_stride / T::KR;
    let ends = |tile: usize| {
        let rows = cut.rows_of(tile);
        (if T::WHOLE { rows.start + T::MR } else { rows.end } - 1) * stride + k.div_ceil(T::KR)
    };
    (0..cut.tiles).take_while(|&tile| ends(tile) <= rows.len()).count()
}

/// Packs the rows of lhs of the tiles after `lying` ones: for each block of k all tiles, each [step][row], or [group of
/// steps][row][step].
#[allow(clippy::too_many_arguments)]
fn pack_lhs<T: Tile>(
    tile: &T,
    pool: &Pool,
    lhs: &Strided<'_, T::Source>,
    (batch, first): (usize, usize),
    k: usize,
    cut: &Cut,
    lying: usize,
    out: &mut [T::Step],
) {
    let (entry, tiles) = (cut.depth * T::PITCH, cut.tiles - lying);
    pool.chunks_mut(&mut out[..cut.depths * tiles * entry], entry, |i, out| {
        let (block, rows) = (i / tiles, cut.rows_of(lying + i % tiles));
        let steps = block * cut.depth..((block + 1) * cut.depth).min(cut.steps);
        let rows = first + rows.start..first + rows.end;
        let pack = |row: usize, steps: Range<usize>, out: &mut [T::Step]| {
            let part = steps.start * T::KR..(steps.end * T::KR).min(k);
            if lhs.col_stride == 1 {
                return tile.pack_row(lhs.part(batch, row, part), out);
            }
            let mut gathered = [T::Source::zeroed(); 2 * STAGE];
            let gathered = &mut gathered[..part.len()];
            lhs.gather(batch, row, part.start, gathered);
            tile.pack_row(gathered, out);
        };
        match T::GROUP {
            1 => pack_steps(tile, rows, steps, pack, out),
            _ => pack_groups::<T>(rows, steps, pack, out),
        }
    });
}

/// `pack` gives some steps of a row, here all those of a group.
fn pack_groups<T: Tile>(
    rows: Range<usize>,
    steps: Range<usize>,
    pack: impl Fn(usize, Range<usize>, &mut [T::Step]),
    out: &mut [T::Step],
) {
    for (i, row) in rows.enumerate() {
        for (from, out) in steps.clone().step_by(T::GROUP).zip(out.chunks_mut(T::GROUP * T::PITCH)) {
            pack(row, from..(from + T::GROUP).min(steps.end), &mut out[i * T::GROUP..][..T::GROUP]);
        }
    }
}

/// `pack` gives some steps of a row, which are turned here.
fn pack_steps<T: Tile>(
    tile: &T,
    rows: Range<usize>,
    steps: Range<usize>,
    pack: impl Fn(usize, Range<usize>, &mut [T::Step]),
    out: &mut [T::Step],
) {
    let mut stage = [T::Step::zeroed(); 16 * STAGE];
    for (from, out) in steps.clone().step_by(STAGE).zip(out.chunks_mut(STAGE * T::PITCH)) {
        let count = (steps.end - from).min(STAGE);
        for (row, line) in rows.clone().zip(stage.chunks_exact_mut(STAGE)) {
            pack(row, from..from + count, &mut line[..count]);
        }
        // Rows that the tile does not have are turned as well, and never read.
        let (stage, out) = (bytemuck::cast_slice(&stage), bytemuck::cast_slice_mut(out));
        transpose(tile.simd(), stage, STAGE, (T::PITCH, count), None, out, T::PITCH);
    }
}

#[allow(clippy::too_many_arguments)]
fn multiply<T: Tile, O: Lane>(
    tile: &T,
    pool: &Pool,
    lhs: &Left<'_, T>,
    rhs: &[T::Rhs],
    cut: &Cut,
    slots: &Slots<'_>,
    epilogue: &Epilogue<'_>,
    out: &Rows<'_, O>,
) {
    let nr = 2 * T::S::LANES;
    // Columns of the result that a panel stands for.
    let panel_cols = if epilogue.gated { nr / 2 } else { nr };
    let panel_len = cut.steps * T::KR * nr;
    let [sums, piece, _] = slot_len::<T>(cut);
    pool.run(cut.row_blocks * cut.col_blocks, |part| {
        slots.with(|slot| {
            let (acc, slot) = slot.split_at_mut(sums);
            let (room, copied) = slot.split_at_mut(piece);
            let copied: &mut [T::Step] = bytemuck::cast_slice_mut(copied);
            // Neighbouring parts share panels.
            let place = |part: usize| {
                let (rb, cb) = (part % cut.row_blocks, part / cut.row_blocks % cut.col_blocks);
                (deal(cut.tiles, cut.row_blocks, rb), deal(cut.panels, cut.col_blocks, cb))
            };
            let (tiles, columns) = place(part);
            let (tiles_of_next, columns_of_next) = place(part + 1);
            let rows_of_part = cut.rows_of_all(tiles.clone());
            let mut turn = tile.begin();
            for block in 0..cut.depths {
                let from = block * cut.depth;
                let count = (cut.steps - from).min(cut.depth);
                let (first, last) = (block == 0, block + 1 == cut.depths);
                lhs.copy(tile, cut, rows_of_part.clone(), block, copied);
                // What comes after this block of k: the next one, or the first of the next part.
                let (block_after, tiles_after, columns_after) = match last {
                    true => (0, &tiles_of_next, &columns_of_next),
                    false => (block + 1, &tiles, &columns),
                };
                for panel in columns.clone() {
                    let start = panel * panel_len + from * T::KR * nr;
                    // What comes after this piece of rhs.
                    let after = match panel + 1 < columns.end {
                        true => start + panel_len,
                        false => columns_after.start * panel_len + block_after * cut.depth * T::KR * nr,
                    };
                    let next = rhs.get(after..(after + count * T::KR * nr).min(rhs.len())).unwrap_or(&[]);
                    let piece = tile.piece(&rhs[start..start + count * T::KR * nr], room);
                    for t in tiles.clone() {
                        let rows = cut.rows_of(t);
                        let share = &next[deal(next.len(), tiles.len(), t - tiles.start)];
                        let number = (panel - columns.start) * tiles.len() + t - tiles.start;
                        // Sums of a single block of k never leave L1.
                        let at = if first && last { 0 } else { number };
                        let acc = &mut acc[at * T::MR * nr..][..T::MR * nr];
                        let left = panel * panel_cols;
                        if last {
                            epilogue::fetch(epilogue, out, rows.clone(), left, panel_cols);
                        }
                        let lhs_after =
                            lhs.next(cut, tiles_after.clone(), block_after, number, columns.len() * tiles.len());
                        let mut ahead = Ahead::new(Lines::of(share), lhs_after, count);
                        let to =
                            if last && T::STORES { Direct::new(epilogue, out, rows.clone(), left, nr) } else { None };
                        let done = to.is_some();
                        let sums = Sums { acc: &mut *acc, adds: !first, to };
                        tile.multiply(
                            &mut turn,
                            rows.len(),
                            lhs.tile(cut, block, t, rows_of_part.start, copied),
                            piece,
                            &mut ahead,
                            sums,
                        );
                        if last && !done {
                            let acc = &acc[..rows.len() * nr];
                            epilogue::store(tile.simd(), epilogue, acc, rows.start, left, epilogue.n, out);
                        }
                    }
                }
            }
        })
    });
}
