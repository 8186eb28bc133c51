//! Convolutions in CUDA: how products are cut and launched. `kernels/common/convolution.cuh` says what they are.

use super::product::{Cut, Product};
use crate::backend::cuda::{Call, Caps, Cuda, Module, ptx};
use crate::backend::{Kernel, Launch};
use crate::dtype::DType;
use crate::error::{Error, Result, Unsupported};
use crate::layout::Takes;
use std::ops::Deref;

/// Columns of a tile, and steps of one in float arithmetic and on the tensor cores.
const TILE_COLS: usize = 128;
const TILE_DEPTH: usize = 16;
const MMA_DEPTH: usize = 32;
/// Threads of a block of tiles, and of the direct kernels.
const TILE_BLOCK: usize = 256;
const DIRECT_BLOCK: usize = 128;
/// Blocks that a product is split for: two on each of 132 multiprocessors, smaller ones of the direct kernels.
const ENOUGH_TILES: usize = 264;
const ENOUGH_PIECES: usize = 1056;
const ENOUGH_DOTS: usize = 1056;
/// The least that a split is worth: steps of tiles, channels of the direct way, positions of dot products.
const SPLIT_DEPTH: usize = 256;
const SPLIT_CHANNELS: usize = 8;
const SPLIT_POSITIONS: usize = 2048;
/// Positions of a line that a block of the direct way owns at most, and bytes of shared memory that it takes more lines for.
const PIECE: usize = 4 * DIRECT_BLOCK;
const PIECE_BYTES: usize = 32 << 10;
/// Taps of a block of dot products.
const TAPS: usize = 8;
/// What kernels divide, and places that they keep in 32 bits.
const MOST: usize = (1 << 31) - 1;

/// A convolution with rows of each kind. Functions of its modules have the names that its rows have.
pub(in crate::ops) trait Convolution: Sized + 'static {
    /// In float arithmetic, and on the tensor cores with the function that brings weights into their order.
    const MODULE: &'static Module;
    const TENSOR_MODULE: &'static Module;
    const PACK: &'static str;
    fn cutting(&self) -> Cutting;
    /// Points that a window passes along each axis.
    fn points(&self) -> [usize; 3];
    /// Of x and of the weight.
    fn dtypes(&self) -> [DType; 2];
}

type Supports<O> = fn(&O, &Caps) -> Result<(), Unsupported>;

/// The row of a direct kernel.
pub(in crate::ops) const fn straight<O: Convolution>(name: &'static str, supports: Supports<O>) -> Kernel<Cuda, O> {
    Kernel::new(name, supports, |k, op, l| op.cutting().direct(k.name, O::MODULE, l))
        .takes(&[Takes::Rows])
        .suits(|op, _| op.cutting().is_narrow())
        .workspace(|op, _| op.cutting().direct_bytes())
}

/// The row of tiles on the tensor cores.
pub(in crate::ops) const fn on_tensor_cores<O: Convolution, const BLOCK_M: usize>(
    name: &'static str,
    supports: Supports<O>,
) -> Kernel<Cuda, O> {
    Kernel::new(name, supports, |k, op, l| op.cutting().tensor::<BLOCK_M>(k.name, O::TENSOR_MODULE, l, O::PACK))
        .takes(&[Takes::Rows])
        .workspace(|op, _| op.cutting().tensor_bytes(BLOCK_M))
}

/// The row of tiles in float arithmetic.
pub(in crate::ops) const fn in_tiles<O: Convolution, const BLOCK_M: usize>(
    name: &'static str,
    supports: Supports<O>,
) -> Kernel<Cuda, O> {
    Kernel::new(name, supports, |k, op, l| op.cutting().tiled::<BLOCK_M>(k.name, O::MODULE, l))
        .takes(&[Takes::Rows])
        .workspace(|op, _| op.cutting().tiled_bytes(BLOCK_M))
}

/// Operands of any dtypes.
pub(in crate::ops) fn any<O: Convolution>(op: &O, _: &Caps) -> Result<(), Unsupported> {
    supports(&op.cutting(), op.points())
}

/// Operands of one dtype.
pub(in crate::ops) fn of<O: Convolution>(op: &O, dtype: DType) -> Result<(), Unsupported> {
    are(dtype, op.dtypes())?;
    supports(&op.cutting(), op.points())
}

/// An x of this dtype, for a direct kernel.
pub(in crate::ops) fn direct_of<O: Convolution>(op: &O, x: DType, caps: &Caps) -> Result<(), Unsupported> {
    are(x, [op.dtypes()[0]])?;
    supports(&op.cutting(), op.points())?;
    Unsupported::at_most("bytes of shared memory", op.cutting().pieces().smem_bytes, caps.block_smem_bytes)
}

/// Whether tiles of 128 rows are the better ones.
pub(in crate::ops) fn is_wide<O: Convolution>(op: &O, _: &Caps) -> bool {
    op.cutting().is_wide()
}

/// How the direct kernels cut a plane of positions; `kernels/common/convolution_direct.cuh` has the fields.
struct Pieces {
    rows_each: usize,
    blocks: [usize; 2],
    words: [usize; 15],
    smem_bytes: usize,
}

/// Whether the kernels can count such a product, and points along each axis.
pub(in crate::ops) fn supports(p: &Cutting, points: [usize; 3]) -> Result<(), Unsupported> {
    Unsupported::at_most("points along an axis", points.into_iter().fold(0, usize::max), 1usize << 30)?;
    Unsupported::at_most("columns", p.cols, MOST)?;
    Unsupported::at_most("elements of a factor", (p.groups * p.rows).saturating_mul(p.depth), MOST)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A product as the kernels cut it.
pub(in crate::ops) struct Cutting(pub Product);

impl Deref for Cutting {
    type Target = Product;
    fn deref(&self) -> &Product {
        &self.0
    }
}

impl Cutting {
    /// Whether tiles of 128 rows are the better ones.
    pub fn is_wide(&self) -> bool {
        self.rows > 64
    }

    fn tiles(&self, block_m: usize, unit: usize) -> Cut {
        let cut = Cut {
            rows_each: block_m,
            row_blocks: self.rows.div_ceil(block_m),
            col_blocks: self.cols.div_ceil(TILE_COLS),
            splits: 1,
            split_depth: 0,
        };
        let present = (cut.row_blocks * cut.col_blocks * self.groups).max(1);
        // Not more than run together.
        cut.split(present, ENOUGH_TILES / present * present, self.depth, unit, SPLIT_DEPTH)
    }

    fn pieces(&self) -> Pieces {
        let w = &self.window;
        let rows_each = if self.rows == 1 { 1 } else { 4 };
        // One position has no distance from another, nor has one tap: any other will do.
        let apart = |axis: usize| match (w.positions[axis], w.taps[axis]) {
            (1, 1) => (1, 1),
            (1, _) => (w.dilation[axis], w.dilation[axis]),
            (_, 1) => (w.stride[axis], w.stride[axis]),
            _ => (w.stride[axis], w.dilation[axis]),
        };
        let along = w.positions[2].min(PIECE);
        let quads = along.div_ceil(4);
        let (stride, dilation) = apart(2);
        let (slides, point_every) = (stride == dilation, gcd(stride, dilation));
        let (point_step, point_tap) = (stride / point_every, dilation / point_every);
        let weight_pitch = w.taps[2].next_multiple_of(4);
        let pitch = match slides {
            true => quads * 4 + weight_pitch,
            false => ((quads * 4 - 1) * point_step + (w.taps[2] - 1) * point_tap + 1).next_multiple_of(4),
        };
        // As many lines as there are threads for and as fit well.
        let cut = |lines: usize| {
            let (stride, dilation) = apart(1);
            let (every, step, tap) = match (lines, gcd(stride, dilation)) {
                (1, _) => (dilation, 0, 1),
                (_, every) => (every, stride / every, dilation / every),
            };
            let slots = (lines - 1) * step + (w.taps[1] - 1) * tap + 1;
            let seen = slots * pitch + rows_each * w.taps[1] * weight_pitch;
            (seen.max(rows_each * lines * quads * 4) * size_of::<f32>(), slots, [every, step, tap])
        };
        let most = (DIRECT_BLOCK / quads).clamp(1, w.positions[1]);
        let lines = (1..=most).rev().find(|&lines| cut(lines).0 <= PIECE_BYTES).unwrap_or(1);
        let (smem_bytes, slots, [line_every, line_step, line_tap]) = cut(lines);
        let blocks = [w.positions[2].div_ceil(along), w.positions[1].div_ceil(lines)];
        let words = [
            along,
            lines,
            quads,
            blocks[0],
            blocks[1],
            slots,
            pitch,
            line_every,
            point_every,
            line_step,
            line_tap,
            point_step,
            point_tap,
            weight_pitch,
            usize::from(slides),
        ];
        Pieces { rows_each, blocks, words, smem_bytes }
    }

    fn direct_cut(&self, pieces: &Pieces) -> Cut {
        let cut = Cut {
            rows_each: pieces.rows_each,
            row_blocks: self.rows.div_ceil(pieces.rows_each),
            col_blocks: pieces.blocks[0] * pieces.blocks[1] * self.window.positions[0],
            splits: 1,
            split_depth: 0,
        };
        let present = cut.row_blocks * cut.col_blocks * self.groups * self.batch;
        cut.split(present, ENOUGH_PIECES, self.channels, 1, SPLIT_CHANNELS)
    }

    fn dots_cut(&self) -> Cut {
        let [d, h, w] = self.window.positions;
        let cut = Cut {
            rows_each: 1,
            row_blocks: 1,
            col_blocks: self.window.taps[2].div_ceil(TAPS),
            splits: 1,
            split_depth: 0,
        };
        let present = self.dot_blocks(&cut);
        cut.split(present, ENOUGH_DOTS, self.batch * d * h, 1, SPLIT_POSITIONS.div_ceil(w))
    }

    /// Bytes of the sums of splits.
    fn partial_bytes(&self, cut: &Cut) -> usize {
        if cut.splits > 1 { (cut.splits * self.total * size_of::<f32>()).next_multiple_of(256) } else { 0 }
    }

    /// Elements from a row of a packed factor to the next one.
    fn pitch(&self) -> usize {
        self.depth.next_multiple_of(8)
    }

    /// Bytes of workspace of each way.
    pub fn tiled_bytes(&self, block_m: usize) -> usize {
        self.partial_bytes(&self.tiles(block_m, TILE_DEPTH))
    }
    pub fn tensor_bytes(&self, block_m: usize) -> usize {
        let packed = self.groups * self.rows * self.pitch() * size_of::<u16>();
        self.partial_bytes(&self.tiles(block_m, MMA_DEPTH)) + packed
    }
    pub fn direct_bytes(&self) -> usize {
        self.partial_bytes(&self.direct_cut(&self.pieces()))
    }
    pub fn dots_bytes(&self) -> usize {
        self.partial_bytes(&self.dots_cut())
    }

    /// Launches a kernel with `common/convolution_tiled.cuh`.
    pub fn tiled<const BLOCK_M: usize>(
        &self,
        name: &'static str,
        module: &'static Module,
        l: &Launch<'_, Cuda>,
    ) -> Result<()> {
        if self.total == 0 {
            return Ok(());
        }
        let cut = self.tiles(BLOCK_M, TILE_DEPTH);
        let blocks = cut.row_blocks * self.groups * cut.col_blocks * cut.splits;
        self.pass(l.call(name, module), l, &cut, l.input(1))?.block(TILE_BLOCK).launch(blocks)?;
        self.add_splits(l, &cut)
    }

    /// Launches a kernel with `common/convolution_mma.cuh`; `pack` is the one that packs the factor.
    pub fn tensor<const BLOCK_M: usize>(
        &self,
        name: &'static str,
        module: &'static Module,
        l: &Launch<'_, Cuda>,
        pack: &'static str,
    ) -> Result<()> {
        if self.total == 0 {
            return Ok(());
        }
        let cut = self.tiles(BLOCK_M, MMA_DEPTH);
        let mut factor = l.input(1);
        let lies_well = factor.is_multiple_of(16) && self.pitch() == self.depth;
        if self.is_transposed() || !lies_well {
            let packed = l.scratch() + self.partial_bytes(&cut) as u64;
            let chunks = self.groups * self.rows * self.pitch() / 8;
            self.pass(l.call(pack, module), l, &cut, factor)?
                .pointer(packed)
                .block(TILE_BLOCK)
                .launch(chunks.div_ceil(TILE_BLOCK))?;
            factor = packed;
        }
        let blocks = cut.row_blocks * self.groups * cut.col_blocks * cut.splits;
        self.pass(l.call(name, module), l, &cut, factor)?.block(TILE_BLOCK).launch(blocks)?;
        self.add_splits(l, &cut)
    }

    /// Launches a kernel with `common/convolution_direct.cuh`.
    pub fn direct(&self, name: &'static str, module: &'static Module, l: &Launch<'_, Cuda>) -> Result<()> {
        if self.total == 0 {
            return Ok(());
        }
        let pieces = self.pieces();
        let cut = self.direct_cut(&pieces);
        self.pass(l.call(name, module), l, &cut, l.input(1))?
            .params(&pieces.words)
            .smem(pieces.smem_bytes)
            .block(DIRECT_BLOCK)
            .launch(cut.row_blocks * cut.col_blocks * self.groups * self.batch * cut.splits)?;
        self.add_splits(l, &cut)
    }

    /// Launches the kernel that gives each block 8 taps of a line, and lines of positions.
    pub fn dots(&self, name: &'static str, module: &'static Module, l: &Launch<'_, Cuda>) -> Result<()> {
        if self.total == 0 {
            return Ok(());
        }
        let cut = self.dots_cut();
        self.pass(l.call(name, module), l, &cut, l.input(1))?
            .divisor(self.window.positions[2].div_ceil(4))
            .param(usize::from(self.slides()))
            .block(DIRECT_BLOCK)
            .launch(self.dot_blocks(&cut))?;
        self.add_splits(l, &cut)
    }

    fn is_transposed(&self) -> bool {
        self.spread.phases[0] > 0
    }

    /// The parameters `Product` and, of a transposed convolution, `Spread`.
    fn pass<'a>(&self, call: Call<'a>, l: &Launch<'_, Cuda>, cut: &Cut, factor: u64) -> Result<Call<'a>> {
        let (w, s) = (&self.window, &self.spread);
        let all = |axes: &[usize; 3]| axes.iter().product::<usize>();
        let divisors = |call: Call<'a>, axes: &[usize; 3]| {
            axes.iter().chain([&all(axes)]).fold(call, |call, &extent| call.divisor(extent))
        };
        // Distances beyond all points are those of one position or one tap, which have none.
        let distances = |call: Call<'a>, axes: &[usize; 3]| {
            axes.iter().fold(call, |call, &n| call.param_i32(n.min(1 << 30) as isize))
        };
        let x = l.layout(0).strides;
        let reach = (self.groups * self.channels * x[1]).max(w.size[0] * x[2]).max(w.size[1] * x[3]);
        if reach > MOST / 4 {
            return Err(Error::problem("convolution", format!("a sample of x reaches over {reach} elements; copy it")));
        }
        let run = self.out_run.is_multiple_of(4) && l.output(0).is_multiple_of(16);
        let call = call
            .pointer(l.input(0))
            .pointer(factor)
            .pointer(l.input(2))
            .pointer(l.output(0))
            .pointer(if cut.splits > 1 { l.scratch() } else { 0 })
            .param_u64(x[0])
            .param_u64(self.total)
            .params(&x[1..4])
            .params(&w.size);
        let call = distances(distances(call, &w.stride), &w.dilation);
        let call = w.before.iter().fold(call, |call, &n| call.param_i32(n));
        let call = divisors(divisors(call, &w.positions), &w.taps)
            .params(&[self.padding as usize, self.channels, self.groups, self.rows, self.cols, self.depth])
            .params(&[cut.row_blocks, cut.col_blocks, cut.split_depth])
            .dtype(self.x)
            .dtype(self.factor)
            .dtype(self.out)
            .params(&[self.activation as usize, usize::from(run), self.pitch()]);
        if !self.is_transposed() {
            return Ok(call);
        }
        let call = distances(distances(call, &s.tap_step), &s.lead)
            .params(&s.kernel)
            .param(all(&s.kernel))
            .params(&s.out_size)
            .param(all(&s.out_size));
        let call = s.every.iter().fold(call, |call, &every| call.divisor(every.min(1 << 30)));
        Ok(divisors(call, &s.phases))
    }

    /// Adds the splits, if there are several.
    fn add_splits(&self, l: &Launch<'_, Cuda>, cut: &Cut) -> Result<()> {
        if cut.splits == 1 {
            return Ok(());
        }
        let channels = self.channels_out.max(1);
        let vectors = self.total.is_multiple_of(4) && l.output(0).is_multiple_of(16);
        l.call("conv_splits__sm80", ptx!("conv"))
            .pointer(l.scratch())
            .pointer(l.input(2))
            .pointer(l.output(0))
            .divisor(self.total / channels / self.batch.max(1))
            .divisor(channels)
            .params(&[self.total, cut.splits, self.out.code() as usize, self.activation as usize, usize::from(vectors)])
            .block(TILE_BLOCK)
            .launch(self.total.div_ceil(4 * TILE_BLOCK))
    }
}

/// Whether operands are of the dtype that a kernel is for.
fn are<const N: usize>(dtype: DType, operands: [DType; N]) -> Result<(), Unsupported> {
    Unsupported::require("operands of this kernel's dtype", operands.iter().all(|&d| d == dtype))
}
