//! Attention in CUDA: parts of the keys for a few queries (`kernels/attention_split.cu`), and blocks of queries on tensor
//! cores (`common/flash.cuh`) or in f32 (`attention_f32.cu`), which go over parts of the keys too where they are few.

use super::Attention;
use crate::backend::cuda::{Call, Caps, Cuda, Module, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::Op;
use crate::ops::attend::cuda::{attend, fits, strides, whole};

/// A row for a few queries, whose kernel has so many columns.
macro_rules! split {
    ($name:literal, $dtype:ident, $d:literal) => {
        Kernel::new($name, |op, _| split_supports(op, DType::$dtype, $d), split)
            .takes(TAKES)
            .suits(|op, _| op.attend().rows_per_head() <= FEW_ROWS)
            .workspace(|op, caps| Grid::split(op, caps).parts_bytes(op))
    };
}

/// A row for blocks of queries, whose kernel has so many columns and results finer than the operands or not.
macro_rules! flash {
    ($name:literal, $dtype:ident, $d:literal, $fine:literal) => {
        Kernel::new(
            $name,
            |op, caps| flash_supports(op, caps, DType::$dtype, $d, $fine),
            |k, op, l| flash(k.name, op, l, $d, $fine),
        )
        .takes(TAKES)
        .workspace(|op, caps| Grid::blocks(op, caps, flash_rows($d, $fine)).parts_bytes(op))
    };
}

/// A row for blocks of queries in f32, whose kernel has so many columns.
macro_rules! tiled {
    ($name:literal, $d:literal) => {
        Kernel::new($name, tiled_supports::<$d>, |k, op, l| {
            tiled(k.name, op, l, &Grid::blocks(op, l.device.caps(), TILED_ROWS))
        })
        .takes(TAKES)
        .workspace(|op, caps| Grid::blocks(op, caps, TILED_ROWS).parts_bytes(op))
    };
}

impl Kernels<Cuda> for Attention {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        split!("attention_bf16_split_d64__sm80", BF16, 64),
        split!("attention_bf16_split_d128__sm80", BF16, 128),
        split!("attention_bf16_split_d256__sm80", BF16, 256),
        split!("attention_f16_split_d64__sm80", F16, 64),
        split!("attention_f16_split_d128__sm80", F16, 128),
        split!("attention_f16_split_d256__sm80", F16, 256),
        split!("attention_f32_split_d64__sm80", F32, 64),
        split!("attention_f32_split_d128__sm80", F32, 128),
        split!("attention_f32_split_d256__sm80", F32, 256),
        flash!("attention_bf16_d32__sm80", BF16, 32, false),
        flash!("attention_bf16_d64__sm80", BF16, 64, false),
        flash!("attention_bf16_d96__sm80", BF16, 96, false),
        flash!("attention_bf16_d128__sm80", BF16, 128, false),
        flash!("attention_bf16_d192__sm80", BF16, 192, false),
        flash!("attention_bf16_d256__sm80", BF16, 256, false),
        flash!("attention_f16_d32__sm80", F16, 32, false),
        flash!("attention_f16_d64__sm80", F16, 64, false),
        flash!("attention_f16_d96__sm80", F16, 96, false),
        flash!("attention_f16_d128__sm80", F16, 128, false),
        flash!("attention_f16_d192__sm80", F16, 192, false),
        flash!("attention_f16_d256__sm80", F16, 256, false),
        flash!("attention_bf16_d32_fine__sm80", BF16, 32, true),
        flash!("attention_bf16_d64_fine__sm80", BF16, 64, true),
        flash!("attention_bf16_d96_fine__sm80", BF16, 96, true),
        flash!("attention_bf16_d128_fine__sm80", BF16, 128, true),
        flash!("attention_bf16_d192_fine__sm80", BF16, 192, true),
        flash!("attention_bf16_d256_fine__sm80", BF16, 256, true),
        flash!("attention_f16_d32_fine__sm80", F16, 32, true),
        flash!("attention_f16_d64_fine__sm80", F16, 64, true),
        flash!("attention_f16_d96_fine__sm80", F16, 96, true),
        flash!("attention_f16_d128_fine__sm80", F16, 128, true),
        flash!("attention_f16_d192_fine__sm80", F16, 192, true),
        flash!("attention_f16_d256_fine__sm80", F16, 256, true),
        tiled!("attention_f32_d64__sm80", 64),
        tiled!("attention_f32_d128__sm80", 128),
    ];
}

const TAKES: &[Takes] = &[Takes::Rows; 4];
/// Places of the operands.
const QKV: &[usize] = &[0, 1, 2];
const BIAS: usize = 3;

/// How the work is divided: blocks of rows (queries of all heads of a group), for each head of keys, over parts of the keys.
struct Grid {
    rows: usize,
    blocks: usize,
    parts: usize,
    heads: usize,
}

impl Grid {
    /// For blocks of so many rows, about `filling` of them on each multiprocessor, over parts of at least so many keys.
    fn new(op: &Attention, caps: &Caps, block_rows: usize, filling: usize, least_keys: usize) -> Grid {
        let rows = op.attend().rows_per_head();
        let (blocks, heads) = (rows.div_ceil(block_rows), op.batch * op.heads_kv);
        let wanted = caps.multiprocessors as usize * filling / (heads * blocks).max(1);
        Grid { rows, blocks, parts: wanted.min(op.len_k.div_ceil(least_keys)).max(1), heads }
    }

    /// Of kernels that hold two blocks on a multiprocessor and are bound by computing: parts are for a grid that would leave
    /// half of it without work.
    fn blocks(op: &Attention, caps: &Caps, block_rows: usize) -> Grid {
        Grid::new(op, caps, block_rows, 2, 128)
    }

    /// Of the kernel for a few queries, bound by memory: four times two blocks, so that the last ones are a small part.
    fn split(op: &Attention, caps: &Caps) -> Grid {
        Grid::new(op, caps, split_rows(op.dtype), 8, 256)
    }

    fn count(&self) -> usize {
        self.blocks * self.parts * self.heads
    }

    /// What the ends of all parts take, up to where the sums begin.
    fn ends_bytes(&self) -> usize {
        (8 * self.heads * self.parts * self.rows).next_multiple_of(16)
    }

    /// The workspace.
    fn parts_bytes(&self, op: &Attention) -> usize {
        if self.parts == 1 { 0 } else { self.ends_bytes() + 4 * self.heads * self.parts * self.rows * op.head_dim }
    }

    /// The next parameter: the struct `Results`.
    fn results<'a>(&self, call: Call<'a>, op: &Attention, l: &Launch<'a, Cuda>) -> Call<'a> {
        call.pointer(l.output(0))
            .pointer(l.output(1))
            .pointer(l.scratch() + self.ends_bytes() as u64)
            .pointer(l.scratch())
            .dtype(op.out)
            .param(self.parts)
    }

    /// Begins a call of a kernel, with the parameters that all have.
    fn call<'a>(&self, name: &'static str, module: &'static Module, op: &Attention, l: &Launch<'a, Cuda>) -> Call<'a> {
        let call = QKV.iter().fold(l.call(name, module), |call, &i| call.pointer(l.input(i)));
        let call = strides(attend(call, &op.attend(), l, BIAS), l, QKV);
        self.results(call, op, l).params(&[self.rows, self.blocks])
    }

    /// Makes results of the parts' sums.
    fn join(&self, op: &Attention, l: &Launch<'_, Cuda>) -> Result<()> {
        if self.parts == 1 {
            return Ok(());
        }
        let rows = op.batch * op.len_q * op.heads_q;
        self.results(l.call("attention_join", ptx!("attention_split")), op, l)
            .params(&[op.len_q, op.heads_q, op.heads_kv, op.head_dim])
            .param_u64(rows)
            .block(128)
            .launch(rows.div_ceil(4))
    }
}

/// Rows up to which the kernels for a few queries are better than those for blocks; they take four times as many.
const FEW_ROWS: usize = 16;

/// Rows of a block of the kernels for a few queries.
fn split_rows(dtype: DType) -> usize {
    if dtype == DType::F32 { 4 } else { 16 }
}

fn split_supports(op: &Attention, dtype: DType, d: usize) -> Result<(), Unsupported> {
    fits(&op.attend())?;
    Unsupported::require("q, k and v of the kernel's dtype", op.dtype == dtype)?;
    Unsupported::require("heads of the kernel's columns", within(op.head_dim, d, &[64, 128, 256]))?;
    Unsupported::require("heads in vectors of 16 bytes", (op.head_dim * dtype.bytes()).is_multiple_of(16))?;
    Unsupported::at_most("queries for each head of keys", op.attend().rows_per_head(), 4 * FEW_ROWS)
}

fn split(kernel: &Kernel<Cuda, Attention>, op: &Attention, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let grid = Grid::split(op, l.device.caps());
    if !whole(&op.attend(), l, QKV) {
        // Rows that begin anywhere are rare, and not worth another kernel.
        return tiled(if op.head_dim <= 64 { TILED_64 } else { TILED_128 }, op, l, &grid);
    }
    // On tensor cores: Q, or sums of four warps.
    let d = [64, 128].into_iter().find(|&d| op.head_dim <= d).unwrap_or(256);
    let (module, smem) = match op.dtype {
        DType::F32 => (ptx!("attention_split_f32"), 0),
        _ => (ptx!("attention_split"), (16 * (2 * d + 64)).max(4 * 16 * (d + 4) * 4)),
    };
    grid.call(kernel.name, module, op, l).faults(Attention::NAME).block(128).smem(smem).launch(grid.count())?;
    grid.join(op, l)
}

/// Whether heads of this length are for the kernel of `d` columns, among kernels of these.
fn within(head_dim: usize, d: usize, of: &[usize]) -> bool {
    of.iter().find(|&&d| head_dim <= d) == Some(&d)
}

/// Rows of a block of the kernels on tensor cores.
const fn flash_rows(d: usize, fine: bool) -> usize {
    if d <= 128 && !fine { 128 } else { 64 }
}

/// Q and three tiles of keys or values; after them 16 rows of results for each of four warps.
const fn flash_smem(d: usize, fine: bool) -> usize {
    let keys = match (d <= 128, fine) {
        (true, _) => 64,
        (false, false) => 32,
        (false, true) => 16,
    };
    let (tiles, results) = (2 * d * (flash_rows(d, fine) + 3 * keys), 4 * 16 * (d + 8) * 4);
    if tiles > results { tiles } else { results }
}

fn flash_supports(op: &Attention, caps: &Caps, dtype: DType, d: usize, fine: bool) -> Result<(), Unsupported> {
    fits(&op.attend())?;
    Unsupported::require("q, k and v of the kernel's dtype", op.dtype == dtype)?;
    Unsupported::require("heads of the kernel's columns", within(op.head_dim, d, &[32, 64, 96, 128, 192, 256]))?;
    let finer = op.out != op.dtype && op.out != DType::BF16;
    Unsupported::require("results as fine as the kernel's", finer == fine)?;
    Unsupported::at_most("bytes of shared memory", flash_smem(d, fine), caps.block_smem_bytes)
}

fn flash(name: &'static str, op: &Attention, l: &mut Launch<'_, Cuda>, d: usize, fine: bool) -> Result<()> {
    let module = match d {
        32 | 64 => ptx!("attention_d64"),
        96 | 128 => ptx!("attention_d128"),
        _ => ptx!("attention_d256"),
    };
    let grid = Grid::blocks(op, l.device.caps(), flash_rows(d, fine));
    grid.call(name, module, op, l)
        .param(whole(&op.attend(), l, QKV).into())
        .faults(Attention::NAME)
        .block(128)
        .smem(flash_smem(d, fine))
        .launch(grid.count())?;
    grid.join(op, l)
}

const TILED_64: &str = "attention_f32_d64__sm80";
const TILED_128: &str = "attention_f32_d128__sm80";
/// Rows of a block, and keys of a tile, of the kernels in f32.
const TILED_ROWS: usize = 64;

fn tiled_smem(d: usize) -> usize {
    4 * (2 * TILED_ROWS * (d + 4) + TILED_ROWS * (TILED_ROWS + 16))
}

fn tiled_supports<const D: usize>(op: &Attention, caps: &Caps) -> Result<(), Unsupported> {
    fits(&op.attend())?;
    Unsupported::require("heads of the kernel's columns", (op.head_dim <= 64) == (D == 64))?;
    Unsupported::at_most("head_dim", op.head_dim, 128usize * 65535)?;
    Unsupported::at_most("bytes of shared memory", tiled_smem(D), caps.block_smem_bytes)
}

fn tiled(name: &'static str, op: &Attention, l: &Launch<'_, Cuda>, grid: &Grid) -> Result<()> {
    let d = if name == TILED_64 { 64 } else { 128 };
    let blocks = op.attend().rows_per_head().div_ceil(TILED_ROWS);
    let grid = Grid { blocks, ..*grid };
    let floats = op.dtype == DType::F32 && whole(&op.attend(), l, QKV);
    grid.call(name, ptx!("attention_f32"), op, l)
        .param(floats.into())
        .dtype(op.dtype)
        .faults(Attention::NAME)
        .block(128)
        .smem(tiled_smem(d))
        .launch_grid([grid.count(), op.head_dim.div_ceil(d), 1])?;
    grid.join(op, l)
}
