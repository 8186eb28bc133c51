//! The gradients of attention in CUDA: `kernels/attention_bwd.cu`, and for 16-bit operands `kernels/common/flash_bwd.cuh`.

use super::AttentionBwd;
use crate::backend::cuda::{Call, Caps, Cuda, Module, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::Op;
use crate::ops::attend::cuda::{attend, fits, strides, whole};

const R: Takes = Takes::Rows;
const TAKES: &[Takes] = &[R, R, R, R, Takes::Contiguous, R, R];

/// Places of the operands.
const OUT: usize = 3;
const LSE: usize = 4;
const DOUT: usize = 5;
const BIAS: usize = 6;
const DLSE: usize = 11;

/// The rows of tensor cores, for heads of more than `$over` columns and at most the named number of them.
macro_rules! flash {
    ($($D:literal over $over:literal in $stem:literal),*) => {
        impl Kernels<Cuda> for AttentionBwd {
            const KERNELS: &'static [Kernel<Cuda, Self>] = &[
                $(flash!(BF16 "bf16" $D $over $stem), flash!(F16 "f16" $D $over $stem),)*
                Kernel::new("attention_bwd_f32__sm80", |op, _| fits(&op.attend()), plain)
                    .takes(TAKES)
                    .workspace(|op, _| 8 * rows(op)),
            ];
        }
    };
    ($V:ident $dtype:literal $D:literal $over:literal $stem:literal) => {
        Kernel::new(
            concat!("attention_bwd_", $dtype, "_d", $D, "__sm80"),
            |op, caps| flash_takes(op, caps, DType::$V, $over, $D),
            |k, op, l| flash(k, op, l, concat!("attention_bwd_queries_", $dtype, "_d", $D, "__sm80"), $D, ptx!($stem)),
        )
        .takes(TAKES)
        .workspace(|op, _| (8 + 2 * op.head_dim) * rows(op))
    };
}
flash! {
    64 over 0 in "attention_bwd_d64",
    96 over 64 in "attention_bwd_d128",
    128 over 96 in "attention_bwd_d128",
    256 over 128 in "attention_bwd_d256"
}

/// Queries of all heads.
fn rows(op: &AttentionBwd) -> usize {
    op.batch * op.heads_q * op.len_q
}

fn flash_takes(op: &AttentionBwd, caps: &Caps, dtype: DType, over: usize, most: usize) -> Result<(), Unsupported> {
    Unsupported::require("operands of this dtype", op.dtype == dtype)?;
    Unsupported::require("a head_dim of this kernel", op.head_dim > over)?;
    Unsupported::at_most("head_dim", op.head_dim, most as u64)?;
    Unsupported::require("head_dim in vectors of 8", op.head_dim.is_multiple_of(8))?;
    let smem_bytes = Sides::keys(most).smem_bytes.max(Sides::queries(most).smem_bytes);
    Unsupported::at_most("bytes of shared memory", smem_bytes, caps.block_smem_bytes)?;
    fits(&op.attend())
}

/// What a block of `flash_bwd.cuh` owns, and its shared memory: two tiles of its own rows and a ring of two for the others'.
struct Sides {
    rows: usize,
    smem_bytes: usize,
}

impl Sides {
    fn new(columns: usize, tiles: usize, others: usize, ends_bytes: usize) -> Sides {
        let rows = 4 * 16 * tiles;
        Sides { rows, smem_bytes: 4 * columns * rows + 2 * (4 * columns * others + ends_bytes) }
    }
    fn keys(columns: usize) -> Sides {
        let others = if columns <= 96 { 64 } else { 32 };
        Sides::new(columns, 1, others, 8 * others)
    }
    fn queries(columns: usize) -> Sides {
        let (tiles, others) = match columns {
            ..=96 => (2, 32),
            128 => (1, 64),
            _ => (1, 32),
        };
        Sides::new(columns, tiles, others, 0)
    }
}

/// Log-sum-exps in base 2 and deltas, into the workspace from `ends` on; and dout in the operands' dtype to `rounded`, if not 0.
fn delta(op: &AttentionBwd, l: &Launch<'_, Cuda>, ends: u64, rounded: u64) -> Result<()> {
    let call = l
        .call("attention_bwd_delta__sm80", ptx!("attention_bwd"))
        .pointer(l.input(OUT))
        .pointer(l.input(DOUT))
        .pointer(l.input(LSE))
        .pointer(l.input(DLSE))
        .pointer(ends)
        .pointer(ends + 4 * rows(op) as u64)
        .pointer(rounded);
    strides(attend(call, &op.attend(), l, BIAS), l, &[OUT, DOUT])
        .params(&[rows(op), op.out.code() as usize, op.dtype.code() as usize])
        .faults(AttentionBwd::NAME)
        .launch(rows(op).div_ceil(8))
}

fn flash(
    k: &Kernel<Cuda, AttentionBwd>,
    op: &AttentionBwd,
    l: &mut Launch<'_, Cuda>,
    queries: &'static str,
    columns: usize,
    module: &'static Module,
) -> Result<()> {
    // Rows that begin elsewhere than at multiples of 16 bytes are left to the other kernels.
    if !whole(&op.attend(), l, &[0, 1, 2]) || !(0..3).all(|i| l.out_in_vectors(i)) {
        return plain(k, op, l);
    }
    let rounded = l.scratch();
    let ends = rounded + 2 * (op.head_dim * rows(op)) as u64;
    delta(op, l, ends, rounded)?;

    // The structs `Operands16` and `Attend`.
    let call = |entry: &'static str, sides: &Sides, len: usize| {
        let call = [l.input(0), l.input(1), l.input(2), rounded, ends, ends + 4 * rows(op) as u64]
            .into_iter()
            .fold(l.call(entry, module), Call::pointer);
        let call = strides(call, l, &[0, 1, 2]).param(len.div_ceil(sides.rows)).param(0);
        attend(call, &op.attend(), l, BIAS).block(128).smem(sides.smem_bytes)
    };
    let sides = Sides::queries(columns);
    call(queries, &sides, op.len_q)
        .pointer(l.output(0))
        .launch(op.batch * op.heads_q * op.len_q.div_ceil(sides.rows))?;
    let sides = Sides::keys(columns);
    // Of 256 columns, a block has dK or dV.
    let sums = if columns == 256 { 2 } else { 1 };
    call(k.name, &sides, op.len_k)
        .pointer(l.output(1))
        .pointer(l.output(2))
        .launch(sums * op.batch * op.heads_kv * op.len_k.div_ceil(sides.rows))?;
    dbias(op, l, ends)
}

/// In f32, for all dtypes and layouts.
fn plain(_: &Kernel<Cuda, AttentionBwd>, op: &AttentionBwd, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let ends = l.scratch();
    delta(op, l, ends, 0)?;
    let passes = op.head_dim.div_ceil(COLUMNS);
    tile(op, l, ends, "attention_bwd_queries_f32__sm80", op.len_q)
        .pointer(l.output(0))
        .launch(op.batch * op.heads_q * passes * op.len_q.div_ceil(TILE))?;
    tile(op, l, ends, "attention_bwd_f32__sm80", op.len_k)
        .pointer(l.output(1))
        .pointer(l.output(2))
        .launch(op.batch * op.heads_kv * passes * op.len_k.div_ceil(TILE))?;
    dbias(op, l, ends)
}

fn dbias(op: &AttentionBwd, l: &Launch<'_, Cuda>, ends: u64) -> Result<()> {
    if !op.dbias {
        return Ok(());
    }
    tile(op, l, ends, "attention_bwd_bias__sm80", op.len_q)
        .pointer(l.output(3))
        .params(&[op.batch, op.bias_batch, op.bias_heads])
        .launch(op.bias_batch * op.bias_heads * op.len_q.div_ceil(TILE) * op.len_k.div_ceil(TILE))
}

/// Rows of a tile of either side, and columns of a block's sums.
const TILE: usize = 64;
const COLUMNS: usize = 128;

/// Begins a call of f32 arithmetic whose own side has `len` rows: the structs `Operands` and `Attend`.
fn tile<'a>(op: &AttentionBwd, l: &Launch<'a, Cuda>, ends: u64, entry: &'static str, len: usize) -> Call<'a> {
    let call = [l.input(0), l.input(1), l.input(2), l.input(DOUT), ends, ends + 4 * rows(op) as u64]
        .into_iter()
        .fold(l.call(entry, ptx!("attention_bwd")), Call::pointer);
    let call = strides(call, l, &[0, 1, 2, DOUT]).dtype(op.dtype).params(&[
        len.div_ceil(TILE),
        op.len_k.div_ceil(TILE),
        op.head_dim.div_ceil(COLUMNS),
    ]);
    // Columns of both sides' operands, then the weights P and dS.
    attend(call, &op.attend(), l, BIAS).smem(4 * (4 * 16 + 2 * TILE) * (TILE + 4))
}
