//! Matrix products in WGSL: `shaders/gemm.wgsl` in tiles, `shaders/gemm_few.wgsl` for few rows of lhs, `shaders/gemm_matrix.wgsl`
//! for f16 where the adapter has cooperative matrices.
//!
//! A rhs is plain or in quantised blocks, as it lies in a checkpoint: nothing is packed. Its values are multiplied as they
//! are; lhs is not rounded to meet quantised ones.

use super::Gemm;
use crate::backend::wgpu::shader::{Shader, rows_shader, shader};
use crate::backend::wgpu::{Bind, Call, Caps, Wgpu};
use crate::backend::{Backend, Kernel, Kernels, Launch};
use crate::dtype::{DType, Format};
use crate::error::{Result, Unsupported};
use crate::layout::{Layout, Takes};
use std::ops::Range;

impl Kernels<Wgpu> for Gemm {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        few_row::<true>("gemm_few__wgsl_subgroup"),
        few_row::<false>("gemm_few__wgsl"),
        Kernel::new("gemm_f16__wgsl_matrix", supports_matrix, launch_matrix)
            .takes(&[Takes::Strided, Takes::Strided])
            .suits(|op, _| fills(op)),
        tiled_row::<128>("gemm__wgsl_m128n128"),
        tiled_row::<64>("gemm__wgsl_m64n64"),
    ];
}

/// Rows of lhs that [`few_row`] takes.
const FEW: usize = 8;
/// Workgroups that a product is split into at least, if it has enough k: several on each multiprocessor.
const WORKGROUPS: usize = 512;
/// The least k of a split.
const SPLIT_K: usize = 256;

const fn few_row<const SUBGROUPS: bool>(name: &'static str) -> Kernel<Wgpu, Gemm> {
    Kernel::new(name, supports_few::<SUBGROUPS>, launch_few::<SUBGROUPS>).takes(&[Takes::Rows, Takes::Rows])
}

const fn tiled_row<const BLOCK: usize>(name: &'static str) -> Kernel<Wgpu, Gemm> {
    Kernel::new(name, supports::<BLOCK>, launch::<BLOCK>)
        .takes(&[Takes::Strided, Takes::Strided])
        .tunables(if BLOCK == 128 { &[("block", 128)] } else { &[("block", 64)] })
        .suits(|op, _| BLOCK == 64 || fills(op))
        .workspace(|op, caps| match Splits::of(op, caps, BLOCK).count {
            1 => 0,
            count => 4 * count * op.batch * op.m * op.rhs_rows(),
        })
}

/// Whether there are enough tiles of 128 x 128 for most of the adapter.
fn fills(op: &Gemm) -> bool {
    op.m > 64 && op.batch * tiles(op, 128, op.n).iter().product::<usize>() >= 128
}

fn takes_rhs(op: &Gemm) -> Result<(), Unsupported> {
    Unsupported::require("rhs plain or in quantised blocks", matches!(op.format, Format::Plain | Format::Blocks(_)))
}

fn supports_few<const SUBGROUPS: bool>(op: &Gemm, caps: &Caps) -> Result<(), Unsupported> {
    takes_rhs(op)?;
    if SUBGROUPS {
        caps.needs_subgroups()?;
    }
    Unsupported::require("at most 8 rows of lhs", op.m <= FEW)
}

fn supports<const BLOCK: usize>(op: &Gemm, caps: &Caps) -> Result<(), Unsupported> {
    takes_rhs(op)?;
    Unsupported::require("32 KiB of workgroup memory", BLOCK < 128 || caps.workgroup_bytes >= 32 << 10)
}

fn supports_matrix(op: &Gemm, caps: &Caps) -> Result<(), Unsupported> {
    Unsupported::require("f16 times f16", op.lhs == DType::F16 && op.rhs == DType::F16 && op.format == Format::Plain)?;
    Unsupported::require("matrices of f16", caps.matrix_f16 && caps.f16)?;
    caps.needs_subgroups()?;
    let [least, most] = caps.subgroup_size;
    Unsupported::require("subgroups of 32 or 64", least == most && matches!(least, 32 | 64))?;
    Unsupported::require("workgroups of eight subgroups", caps.workgroup_size >= 8 * least)?;
    Unsupported::require("28 KiB of workgroup memory", caps.workgroup_bytes >= 28 << 10)
}

/// Tiles along m, and along the `n` columns of a dispatch.
fn tiles(op: &Gemm, block: usize, n: usize) -> [usize; 2] {
    [op.m.div_ceil(block), n.div_ceil(if op.gated { block / 2 } else { block })]
}

/// How k is split: few tiles with a long k would leave most of the adapter idle.
struct Splits {
    count: usize,
    /// Of one split; a multiple of what tiles go over at once.
    k: usize,
}

impl Splits {
    fn of(op: &Gemm, caps: &Caps, block: usize) -> Splits {
        let products = op.batch * tiles(op, block, op.n).iter().product::<usize>();
        let bytes = (4 * op.batch * op.m * op.rhs_rows()).max(1);
        // Sums that are written and read again should stay in the cache.
        let afford = ((16usize << 20).min(caps.binding_bytes as usize / 2) / bytes).max(1);
        let wanted = (WORKGROUPS / products.max(1)).min(op.k / SPLIT_K).min(afford).max(1);
        let k = op.k.div_ceil(wanted).next_multiple_of(64).max(64);
        Splits { count: op.k.div_ceil(k).max(1), k }
    }
}

/// What one dispatch computes: all products or one of them, and columns of the result.
struct Piece {
    batches: Range<usize>,
    columns: Range<usize>,
}

/// Strides of batch, row and k. Where there is one product the first does not count.
fn strides(layout: &Layout, batch: usize) -> [usize; 3] {
    match (batch, layout.strides()) {
        (1, &[row, k]) => [0, row, k],
        (_, &[batch, row, k]) => [batch, row, k],
        (_, &[row, k]) => [0, row, k],
        _ => unreachable!("operands of products are matrices"),
    }
}

/// A rhs as shaders see it.
struct Rhs {
    /// Of batch, row and k; with quantised blocks in bytes.
    strides: [usize; 3],
    /// Elements of a row from the first to the last.
    row_span: usize,
    bytes: usize,
}

impl Rhs {
    fn new(op: &Gemm, l: &Launch<'_, Wgpu>) -> Rhs {
        match op.format.quant() {
            Some(quant) => {
                let row = quant.row_bytes(op.k);
                Rhs { strides: [0, row, 1], row_span: row, bytes: 1 }
            }
            None => {
                let strides = strides(l.layout(1), op.rhs_batch);
                Rhs { strides, row_span: op.k.saturating_sub(1) * strides[2] + 1.min(op.k), bytes: op.rhs.bytes() }
            }
        }
    }

    /// The elements of rows of a matrix of the batch, counted from the operand's first.
    fn rows(&self, batches: &Range<usize>, rows: Range<usize>) -> Range<usize> {
        let [batch, row, _] = self.strides;
        let start = batches.start * batch + rows.start * row;
        let last = batches.len().saturating_sub(1) * batch + rows.len().saturating_sub(1) * row;
        start..start + last + self.row_span
    }

    /// The dispatches of a problem, such that each sees no more of rhs than the adapter can bind.
    fn pieces(&self, op: &Gemm, caps: &Caps) -> Vec<Piece> {
        let fits = |batches: &Range<usize>, n: usize| {
            // What lies before the first element up to an aligned address, and behind the last up to a whole vector.
            let around = caps.binding_alignment as usize + 16;
            self.rows(&(0..batches.len()), 0..n).len() * self.bytes + around <= caps.binding_bytes as usize
        };
        let all = 0..op.batch;
        let step = if fits(&all, op.n) || self.strides[0] == 0 { op.batch } else { 1 };
        let mut pieces = Vec::new();
        for first in (0..op.batch).step_by(step.max(1)) {
            let batches = first..first + step;
            let mut n = op.n;
            while n > 64 && !fits(&batches, n) {
                n = n.div_ceil(2).next_multiple_of(64).min(n - 1);
            }
            let cut = |from| Piece { batches: batches.clone(), columns: from..op.n.min(from + n) };
            pieces.extend((0..op.n).step_by(n.max(1)).map(cut));
        }
        pieces
    }
}

/// Whether eight k of a row are whole vectors.
fn has_vectors(k: usize, dtype: DType, bind: Bind<'_>, [batch, row, step]: [usize; 3]) -> bool {
    let per_vector = 16 / dtype.bytes();
    let aligned = |at: usize| at.is_multiple_of(per_vector);
    step == 1 && k.is_multiple_of(8) && aligned(bind.offset()) && aligned(batch) && aligned(row)
}

/// The call of a piece but for what its algorithm adds: constants, bindings, and the parameters that products have.
#[allow(clippy::too_many_arguments)] // the parts of one description
fn call<'a>(
    k: &Kernel<Wgpu, Gemm>,
    shader: &'static Shader,
    op: &Gemm,
    l: &Launch<'a, Wgpu>,
    rhs: &Rhs,
    piece: &Piece,
    splits: &Splits,
    [tiles_m, tiles_n]: [usize; 2],
) -> (Call<'a>, usize) {
    let Piece { batches, columns } = piece;
    let lhs_strides = strides(l.layout(0), op.batch);
    let rows = |from: usize| l.input(1).range(rhs.rows(batches, from + columns.start..from + columns.end));
    let (first, up) = (rows(0), if op.gated { rows(op.n) } else { Bind::NONE });
    let vectors = op.format == Format::Plain
        && has_vectors(op.k, op.rhs, first, rhs.strides)
        && (!op.gated || has_vectors(op.k, op.rhs, up, rhs.strides));
    let products = batches.len() * splits.count * tiles_m * tiles_n;
    // The range of rhs begins at the first of these batches, lhs and out at the problem's first.
    let call = l
        .call(k.name, shader)
        .dtype("lhs_dtype", op.lhs)
        .dtype("rhs_dtype", op.rhs)
        .constant("quant", op.format.quant().map_or(0, |q| q as u32))
        .constant("lhs_vectors", has_vectors(op.k, op.lhs, l.input(0), lhs_strides))
        .constant("rhs_vectors", vectors)
        .constant("gated", op.gated)
        .constant("activation", op.activation as u32)
        .bind(l.input(0))
        .bind(first)
        .bind(up)
        .params(&[op.m, columns.len(), op.k, columns.start])
        .params(&[op.n, op.batch, batches.start, splits.count])
        .params(&[splits.k, products, tiles_m, tiles_n])
        .params(&lhs_strides)
        .params(&rhs.strides);
    (call, products)
}

/// What writes the op's own results.
fn with_epilogue<'a>(call: Call<'a>, op: &Gemm, l: &Launch<'a, Wgpu>) -> Call<'a> {
    call.dtype("out_dtype", op.out)
        .constant("has_bias", op.bias)
        .constant("has_residual", op.residual)
        .bind(l.input(2))
        .bind(l.input(3))
        .bind(l.output(0))
}

fn launch_few<const SUBGROUPS: bool>(k: &Kernel<Wgpu, Gemm>, op: &Gemm, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    if op.m == 0 {
        return Ok(());
    }
    let shader =
        rows_shader!(SUBGROUPS, "gemm_few", "dtype", "math", "activation", "epilogue", "quant", "product", "row_out");
    let rhs = Rhs::new(op, l);
    let whole = Splits { count: 1, k: op.k };
    for piece in rhs.pieces(op, Wgpu::caps(l.device)) {
        let groups = piece.columns.len().div_ceil(if op.gated { 2 } else { 4 });
        // Enough invocations for the adapter's memory to be busy, none without work.
        let lanes = ((1 << 17) / (groups * piece.batches.len()).max(1)).min(op.k / 8).clamp(32, 256);
        let lanes = if lanes.is_power_of_two() { lanes } else { lanes.next_power_of_two() / 2 };
        let (call, products) = call(k, shader, op, l, &rhs, &piece, &whole, [1, groups]);
        with_epilogue(call, op, l)
            .constant("rows", op.m as u32)
            .constant("lanes", lanes as u32)
            .dispatch_many(products)?;
    }
    Ok(())
}

fn launch<const BLOCK: usize>(k: &Kernel<Wgpu, Gemm>, op: &Gemm, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let caps = Wgpu::caps(l.device);
    let shader = shader!("gemm", "dtype", "math", "activation", "epilogue", "quant", "product", "row_out");
    let rhs = Rhs::new(op, l);
    let splits = Splits::of(op, caps, BLOCK);
    for piece in rhs.pieces(op, caps) {
        let (call, products) = call(k, shader, op, l, &rhs, &piece, &splits, tiles(op, BLOCK, piece.columns.len()));
        let call = call
            .constant("block", BLOCK as u32)
            .constant("lanes", (BLOCK * BLOCK / 64) as u32)
            .constant("tile_vectors", (BLOCK * BLOCK / 16) as u32);
        let call = match splits.count {
            1 => with_epilogue(call, op, l),
            _ => call
                .dtype("out_dtype", DType::F32)
                .constant("partial_sums", true)
                .bind(Bind::NONE)
                .bind(Bind::NONE)
                .bind(l.scratch()),
        };
        call.dispatch_many(products)?;
    }
    if splits.count > 1 {
        let out = l.output(0);
        return l
            .call(k.name, shader!("gemm_split", "dtype", "math", "activation", "epilogue", "flat"))
            .constant("gated", op.gated)
            .constant("activation", op.activation as u32)
            .constant("has_bias", op.bias)
            .constant("has_residual", op.residual)
            .bind(l.scratch().read())
            .bind(l.input(2))
            .bind(l.input(3))
            .bind(out)
            .params(&[op.n, splits.count])
            .dispatch_flat(out, op.out);
    }
    Ok(())
}

fn launch_matrix(k: &Kernel<Wgpu, Gemm>, op: &Gemm, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let caps = Wgpu::caps(l.device);
    let shader = shader!(
        enable "f16",
        enable "wgpu_cooperative_matrix",
        "gemm_matrix",
        "dtype",
        "math",
        "activation",
        "epilogue",
        "quant",
        "product",
        "row_out"
    );
    let rhs = Rhs::new(op, l);
    let whole = Splits { count: 1, k: op.k };
    for piece in rhs.pieces(op, caps) {
        let (call, products) = call(k, shader, op, l, &rhs, &piece, &whole, tiles(op, 128, piece.columns.len()));
        with_epilogue(call, op, l).constant("lanes", 8 * caps.subgroup_size[0]).dispatch_many(products)?;
    }
    Ok(())
}
