//! Matrix products in CUDA: `kernels/gemm_matrix.cu` on the tensor cores (`gemm_matrix_any.cu` for 16-bit operands that lie in
//! any way), `kernels/gemm_few.cu` and `gemm_few_quant.cu` for few rows of lhs, `kernels/gemm.cu` for everything.
//!
//! A rhs is plain or in quantised blocks, as it lies in a checkpoint: nothing is packed. Its values are multiplied as they
//! are; lhs is not rounded to meet quantised ones.

use super::Gemm;
use crate::backend::cuda::{Call, Caps, Cuda, ptx};
use crate::backend::{Backend, Kernel, Kernels, Launch};
use crate::dtype::{DType, Format, Quant};
use crate::error::{Result, Unsupported};
use crate::layout::{Layout, Takes};

impl Kernels<Cuda> for Gemm {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        few_row::<0>(),
        few_row::<1>(),
        few_row::<2>(),
        few_row::<3>(),
        few_row::<4>(),
        few_row::<5>(),
        few_row::<6>(),
        few_row::<7>(),
        matrix_row::<0>(),
        matrix_row::<1>(),
        matrix_row::<2>(),
        matrix_row::<3>(),
        matrix_row::<4>(),
        matrix_row::<5>(),
        matrix_row::<6>(),
        matrix_row::<7>(),
        tiled_row::<0>("gemm__sm80_m128n128"),
        tiled_row::<1>("gemm__sm80_m64n64"),
    ];
}

/// Rows of lhs at most that [`few_row`] takes.
const FEW: usize = 16;
/// The least k of a split.
const SPLIT_K: usize = 256;
/// Bytes of partial sums at most: they should stay in L2.
const SPLIT_BYTES: usize = 32 << 20;

/// A kernel for few rows: its rhs, and its function for up to eight rows of lhs (the row's own is for one).
struct Few {
    name: &'static str,
    rows8: &'static str,
    rhs: DType,
    format: Format,
}

const fn few(name: &'static str, rows8: &'static str, rhs: DType, format: Format) -> Few {
    Few { name, rows8, rhs, format }
}

const FEWS: [Few; 8] = [
    few("gemm_few_bf16__sm80", "gemm_few_bf16__sm80_rows8", DType::BF16, Format::Plain),
    few("gemm_few_f16__sm80", "gemm_few_f16__sm80_rows8", DType::F16, Format::Plain),
    few("gemm_few_f32__sm80", "gemm_few_f32__sm80_rows8", DType::F32, Format::Plain),
    few("gemm_few_q8_0__sm80", "gemm_few_q8_0__sm80_rows8", DType::U8, Format::Blocks(Quant::Q8_0)),
    few("gemm_few_q4_0__sm80", "gemm_few_q4_0__sm80_rows8", DType::U8, Format::Blocks(Quant::Q4_0)),
    few("gemm_few_q4_1__sm80", "gemm_few_q4_1__sm80_rows8", DType::U8, Format::Blocks(Quant::Q4_1)),
    few("gemm_few_q4_k__sm80", "gemm_few_q4_k__sm80_rows8", DType::U8, Format::Blocks(Quant::Q4_K)),
    few("gemm_few_q6_k__sm80", "gemm_few_q6_k__sm80_rows8", DType::U8, Format::Blocks(Quant::Q6_K)),
];

/// A tile of the result.
#[derive(Clone, Copy)]
struct Tiling {
    block_m: usize,
    block_n: usize,
    threads: usize,
    /// Dynamic shared memory.
    smem_bytes: usize,
    /// Blocks on a multiprocessor.
    blocks: usize,
    /// What a multiprocessor reaches that is full of such blocks, as a part of the best on tensor cores: smaller tiles read
    /// more from L2 for a product. Rates and costs (`Splits`) are fitted to 192 times on an H200, m from 17 to 4616, within
    /// 8 %: the tiling that they pick took 1.02 times as long as the best one, on average, and 1.19 times at worst.
    rate: f64,
}

const fn matrix_tiling(
    block_m: usize,
    block_n: usize,
    threads: usize,
    stages: usize,
    blocks: usize,
    rate: f64,
) -> Tiling {
    Tiling { block_m, block_n, threads, smem_bytes: stages * (block_m + block_n) * 128, blocks, rate }
}
const M128N256: Tiling = matrix_tiling(128, 256, 256, 3, 1, 1.0);
const M128N128: Tiling = matrix_tiling(128, 128, 128, 3, 2, 0.98);
const M64N64: Tiling = matrix_tiling(64, 64, 128, 3, 4, 0.77);
const M16N64: Tiling = matrix_tiling(16, 64, 128, 4, 5, 0.43);

/// A kernel on the tensor cores. Operands that do not lie in vectors go to the function `any`, of a tiling of its own.
struct Matrix {
    name: &'static str,
    dtype: DType,
    tiling: Tiling,
    any: &'static str,
    any_tiling: Tiling,
    tunables: &'static [(&'static str, u32)],
}

/// One of [`MATRICES`]: dtype, tilings, functions, and the tunables of the first tiling.
macro_rules! matrix {
    ($dtype:ident, $tiling:ident, $any_tiling:ident, $name:literal, $any:literal, $m:literal, $n:literal, $stages:literal) => {
        Matrix {
            name: $name,
            dtype: DType::$dtype,
            tiling: $tiling,
            any: $any,
            any_tiling: $any_tiling,
            tunables: &[("block_m", $m), ("block_n", $n), ("stages", $stages)],
        }
    };
}

const MATRICES: [Matrix; 8] = [
    matrix!(BF16, M128N256, M128N128, "gemm_bf16__sm80_m128n256", "gemm_bf16_any__sm80_m128n128", 128, 256, 3),
    matrix!(BF16, M128N128, M128N128, "gemm_bf16__sm80_m128n128", "gemm_bf16_any__sm80_m128n128", 128, 128, 3),
    matrix!(BF16, M64N64, M64N64, "gemm_bf16__sm80_m64n64", "gemm_bf16_any__sm80_m64n64", 64, 64, 3),
    matrix!(BF16, M16N64, M16N64, "gemm_bf16__sm80_m16n64", "gemm_bf16_any__sm80_m16n64", 16, 64, 4),
    matrix!(F16, M128N256, M128N128, "gemm_f16__sm80_m128n256", "gemm_f16_any__sm80_m128n128", 128, 256, 3),
    matrix!(F16, M128N128, M128N128, "gemm_f16__sm80_m128n128", "gemm_f16_any__sm80_m128n128", 128, 128, 3),
    matrix!(F16, M64N64, M64N64, "gemm_f16__sm80_m64n64", "gemm_f16_any__sm80_m64n64", 64, 64, 3),
    matrix!(F16, M16N64, M16N64, "gemm_f16__sm80_m16n64", "gemm_f16_any__sm80_m16n64", 16, 64, 4),
];

/// The tilings of `kernels/gemm.cu`, whose shared memory is static.
const TILINGS: [Tiling; 2] = [
    Tiling { block_m: 128, block_n: 128, threads: 256, smem_bytes: 0, blocks: 2, rate: 0.07 },
    Tiling { block_m: 64, block_n: 64, threads: 64, smem_bytes: 0, blocks: 8, rate: 0.055 },
];

const fn few_row<const I: usize>() -> Kernel<Cuda, Gemm> {
    Kernel::new(FEWS[I].name, supports_few::<I>, launch_few::<I>)
        .takes(&[Takes::Rows, Takes::Rows])
        .suits(|op, _| op.m == 1 || !is_matrix(op))
}

const fn matrix_row<const I: usize>() -> Kernel<Cuda, Gemm> {
    Kernel::new(MATRICES[I].name, supports_matrix::<I>, launch_matrix::<I>)
        .takes(&[Takes::Strided, Takes::Strided])
        .tunables(MATRICES[I].tunables)
        .suits(|op, caps| {
            // Four of each dtype.
            let all = MATRICES[I / 4 * 4..][..4].iter().map(|m| &m.tiling).filter(|t| fits(t, caps).is_ok());
            is_best(op, caps, &MATRICES[I].tiling, all)
        })
        .workspace(|op, caps| Splits::of(op, caps, &MATRICES[I].tiling).bytes(op))
}

const fn tiled_row<const I: usize>(name: &'static str) -> Kernel<Cuda, Gemm> {
    Kernel::new(name, supports, launch::<I>)
        .takes(&[Takes::Strided, Takes::Strided])
        .tunables(if I == 0 { &[("block", 128)] } else { &[("block", 64)] })
        .suits(|op, caps| is_best(op, caps, &TILINGS[I], TILINGS.iter()))
        .workspace(|op, caps| Splits::of(op, caps, &TILINGS[I]).bytes(op))
}

/// Whether the tensor cores take it: both operands of one 16-bit dtype.
fn is_matrix(op: &Gemm) -> bool {
    op.lhs == op.rhs && op.lhs.bytes() == 2 && op.format == Format::Plain
}

fn supports_few<const I: usize>(op: &Gemm, _: &Caps) -> Result<(), Unsupported> {
    let few = &FEWS[I];
    Unsupported::require("a rhs of the dtype and format in its name", op.rhs == few.rhs && op.format == few.format)?;
    Unsupported::at_most("rows of lhs", op.m, FEW)
}

fn fits(tiling: &Tiling, caps: &Caps) -> Result<(), Unsupported> {
    Unsupported::at_most("bytes of shared memory of a block", tiling.smem_bytes, caps.block_smem_bytes)
}

fn supports_matrix<const I: usize>(op: &Gemm, caps: &Caps) -> Result<(), Unsupported> {
    Unsupported::require("both operands of the dtype in its name", is_matrix(op) && op.lhs == MATRICES[I].dtype)?;
    fits(&MATRICES[I].tiling, caps)
}

fn supports(op: &Gemm, _: &Caps) -> Result<(), Unsupported> {
    Unsupported::require("rhs plain or in quantised blocks", matches!(op.format, Format::Plain | Format::Blocks(_)))
}

/// Whether no tiling of a list is expected to take less time; of equals the first is best.
fn is_best<'a>(op: &Gemm, caps: &Caps, tiling: &Tiling, all: impl Iterator<Item = &'a Tiling>) -> bool {
    let cost = |t: &Tiling| Splits::of(op, caps, t).cost;
    let best = all.min_by(|a, b| cost(a).total_cmp(&cost(b)));
    best.is_some_and(|best| (best.block_m, best.block_n) == (tiling.block_m, tiling.block_n))
}

/// Tiles along m and along n.
fn tiles(op: &Gemm, tiling: &Tiling) -> [usize; 2] {
    let block_n = if op.gated { tiling.block_n / 2 } else { tiling.block_n };
    [op.m.div_ceil(tiling.block_m), op.n.div_ceil(block_n)]
}

/// How k is split: few tiles with a long k would leave most of the device idle.
struct Splits {
    count: usize,
    /// Of one split; a multiple of what tiles go over at once.
    k: usize,
    /// The expected time, in multiply-adds of a multiprocessor at full rate (1.6e12 a second on an H200).
    cost: f64,
}

impl Splits {
    fn of(op: &Gemm, caps: &Caps, tiling: &Tiling) -> Splits {
        let multiprocessors = caps.multiprocessors.max(1) as usize;
        let products = (op.batch * tiles(op, tiling).iter().product::<usize>()).max(1);
        let sums = (op.batch * op.m * op.rhs_rows()).max(1);
        let new = |wanted: usize| {
            let k = op.k.div_ceil(wanted.max(1)).next_multiple_of(64).max(64);
            let count = op.k.div_ceil(k).max(1);
            // The fullest multiprocessor. A block fills its stages and stores its results in the time of 180 k more; the last
            // few blocks, alone on it, hide less of each other's latency.
            let blocks = (products * count).div_ceil(multiprocessors);
            let (rounds, last) = (blocks / tiling.blocks, blocks % tiling.blocks);
            let share = last as f64 / tiling.blocks as f64;
            let filled = (rounds * tiling.blocks) as f64 + last as f64 / (0.39 + 0.61 * share);
            let multiplied = filled * (tiling.block_m * tiling.block_n * (k + 180)) as f64 / tiling.rate;
            // Sums that are written and read again, and the launch that reads them.
            let merged = if count > 1 { 3e6 + 1.24 * (sums * count) as f64 } else { 0.0 };
            Splits { count, k, cost: multiplied + merged }
        };
        let most = (multiprocessors * tiling.blocks / products).min(op.k / SPLIT_K).min(SPLIT_BYTES / 4 / sums);
        let (whole, split) = (new(1), new(most));
        if split.cost < whole.cost { split } else { whole }
    }

    /// Of the partial sums.
    fn bytes(&self, op: &Gemm) -> usize {
        if self.count > 1 { 4 * self.count * op.batch * op.m * op.rhs_rows() } else { 0 }
    }
}

/// An operand as kernels see it: strides of batch, row and k, with quantised blocks in bytes. Those that nothing is
/// multiplied by are 0, or 1 along k.
#[derive(Clone, Copy)]
struct Operand {
    at: u64,
    strides: [usize; 3],
    dtype: DType,
}

impl Operand {
    fn new(at: u64, layout: &Layout, dtype: DType, [batch, rows, k]: [usize; 3]) -> Operand {
        let strides = match *layout.strides() {
            [batch, row, k] => [batch, row, k],
            [row, k] => [0, row, k],
            _ => unreachable!("operands of products are matrices"),
        };
        let step = |d: usize, size: usize, one: usize| if size > 1 { strides[d] } else { one };
        Operand { at, strides: [step(0, batch, 0), step(1, rows, 0), step(2, k, 1)], dtype }
    }

    fn lhs(op: &Gemm, l: &Launch<'_, Cuda>) -> Operand {
        Operand::new(l.input(0), l.layout(0), op.lhs, [op.batch, op.m, op.k])
    }

    fn rhs(op: &Gemm, l: &Launch<'_, Cuda>) -> Result<Operand> {
        Ok(match op.format.quant() {
            Some(quant) => Operand { at: l.blocks(1, quant)?, strides: [0, quant.row_bytes(op.k), 1], dtype: op.rhs },
            None => Operand::new(l.input(1), l.layout(1), op.rhs, [op.rhs_batch, op.rhs_rows(), op.k]),
        })
    }

    /// Whether each row of `k` elements is a run of whole groups of so many bytes.
    fn in_groups(&self, k: usize, bytes: usize) -> bool {
        let [batch, row, step] = self.strides;
        let whole = |elements: usize| (elements * self.dtype.bytes()).is_multiple_of(bytes);
        step == 1 && self.at.is_multiple_of(bytes as u64) && [batch, row, k].into_iter().all(whole)
    }

    /// Whether eight k of a row are whole vectors of 16 bytes.
    fn in_octets(&self, k: usize) -> bool {
        k.is_multiple_of(8) && self.in_groups(k, 16)
    }

    /// The mode of `common/gemm_matrix.cuh`, for tiles of so many rows of the operand's `rows`.
    fn mode(&self, rows: usize, k: usize, block: usize) -> usize {
        let [batch, row, step] = self.strides;
        let transposed = Operand { strides: [batch, step, row], ..*self };
        match () {
            _ if self.in_groups(k, 16) => 0,
            _ if block >= 64 && rows.is_multiple_of(8) && transposed.in_groups(rows, 16) => 3,
            _ if self.in_groups(k, 4) => 1,
            _ => 2,
        }
    }
}

/// `Matrix lhs, Matrix rhs`.
fn operands<'a>(call: Call<'a>, lhs: &Operand, rhs: &Operand) -> Call<'a> {
    [lhs, rhs].into_iter().fold(call, |call, x| {
        let [batch, row, k] = x.strides;
        call.pointer(x.at).param_u64(batch).param_u64(row).param_u64(k)
    })
}

/// `Reads reads`.
fn reads<'a>(call: Call<'a>, op: &Gemm, lhs: &Operand, rhs: &Operand) -> Call<'a> {
    call.dtype(op.lhs)
        .param(lhs.in_octets(op.k).into())
        .dtype(op.rhs)
        .param((op.format == Format::Plain && rhs.in_octets(op.k)).into())
        .param(op.format.quant().map_or(0, |q| q as usize))
}

/// `Sizes s`.
fn sizes<'a>(call: Call<'a>, op: &Gemm, tiles: [usize; 2], splits: [usize; 2]) -> Call<'a> {
    call.params(&[op.m, op.n, op.k, op.batch]).params(&tiles).params(&splits)
}

/// `Epilogue e`.
fn epilogue<'a>(call: Call<'a>, op: &Gemm, l: &Launch<'_, Cuda>) -> Call<'a> {
    let pointers = [l.input(2), l.input(3), l.output(0)];
    let vectors = op.n.is_multiple_of(4) && pointers.iter().all(|p| p.is_multiple_of(16));
    pointers.into_iter().fold(call, Call::pointer).params(&[op.m, op.n]).dtype(op.out).params(&[
        op.activation as usize,
        op.gated.into(),
        vectors.into(),
    ])
}

fn launch_few<const I: usize>(k: &Kernel<Cuda, Gemm>, op: &Gemm, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let module = if op.format == Format::Plain { ptx!("gemm_few") } else { ptx!("gemm_few_quant") };
    let (symbol, rows) = if op.m == 1 { (k.name, 1) } else { (FEWS[I].rows8, 8) };
    let (wide, warp_k) = (if op.gated { 2 } else { 4 }, if op.rhs == DType::F32 { 256 } else { 512 });
    let tiles_m = op.m.div_ceil(rows);
    // Warps of a block that share columns, so that there are 16 for each multiprocessor, none without work.
    let wanted = 16 * Cuda::caps(l.device).multiprocessors as usize;
    let groups = op.batch * tiles_m * op.n.div_ceil(wide);
    let shares = |&warps: &usize| warps == 1 || (groups * warps / 2 < wanted && op.k.div_ceil(warp_k) >= warps);
    let k_warps = [8, 4, 2, 1].into_iter().find(shares).unwrap_or(1);
    let tiles_n = op.n.div_ceil(wide * 8 / k_warps);
    let (lhs, rhs) = (Operand::lhs(op, l), Operand::rhs(op, l)?);
    let call = reads(operands(l.call(symbol, module), &lhs, &rhs), op, &lhs, &rhs);
    let call = sizes(call, op, [tiles_m, tiles_n], [1, op.k]).param(k_warps);
    epilogue(call, op, l).block(256).launch(op.batch * tiles_m * tiles_n)
}

fn launch_matrix<const I: usize>(k: &Kernel<Cuda, Gemm>, op: &Gemm, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let matrix = &MATRICES[I];
    let splits = Splits::of(op, Cuda::caps(l.device), &matrix.tiling);
    let (lhs, rhs) = (Operand::lhs(op, l), Operand::rhs(op, l)?);
    let modes = [lhs.mode(op.m, op.k, matrix.tiling.block_m), rhs.mode(op.n, op.k, matrix.tiling.block_n)];
    let (call, tiling) = match modes {
        [0, 0] => (l.call(k.name, ptx!("gemm_matrix")), &matrix.tiling),
        _ => (l.call(matrix.any, ptx!("gemm_matrix_any")), &matrix.any_tiling),
    };
    let tiles = tiles(op, tiling);
    let call = sizes(operands(call, &lhs, &rhs), op, tiles, [splits.count, splits.k]);
    epilogue(call, op, l)
        .pointer(l.scratch())
        .params(&modes)
        .block(tiling.threads)
        .smem(tiling.smem_bytes)
        .launch(op.batch * splits.count * tiles[0] * tiles[1])?;
    add_splits(op, l, &splits)
}

fn launch<const I: usize>(k: &Kernel<Cuda, Gemm>, op: &Gemm, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let tiling = &TILINGS[I];
    let splits = Splits::of(op, Cuda::caps(l.device), tiling);
    let tiles = tiles(op, tiling);
    let (lhs, rhs) = (Operand::lhs(op, l), Operand::rhs(op, l)?);
    let call = reads(operands(l.call(k.name, ptx!("gemm")), &lhs, &rhs), op, &lhs, &rhs);
    let call = sizes(call, op, tiles, [splits.count, splits.k]);
    epilogue(call, op, l)
        .pointer(l.scratch())
        .block(tiling.threads)
        .launch(op.batch * splits.count * tiles[0] * tiles[1])?;
    add_splits(op, l, &splits)
}

fn add_splits(op: &Gemm, l: &Launch<'_, Cuda>, splits: &Splits) -> Result<()> {
    if splits.count == 1 {
        return Ok(());
    }
    let rows = op.batch * op.m;
    let call = l.call("gemm_split", ptx!("gemm_split")).pointer(l.scratch()).params(&[splits.count, rows]);
    epilogue(call, op, l).block(256).launch((rows * op.n.div_ceil(4)).div_ceil(256))
}
