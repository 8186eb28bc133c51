//! Adding up rows in CUDA: `kernels/scatter_add.cu`.

use super::ScatterAdd;
use crate::backend::cuda::{Caps, Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::Op;
use crate::ops::walk::WALKERS;

impl Kernels<Cuda> for ScatterAdd {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        row("scatter_add_f32__sm80", |op, _| of(op, DType::F32)),
        row("scatter_add_bf16__sm80", |op, _| of(op, DType::BF16)),
        row("scatter_add_f16__sm80", |op, _| of(op, DType::F16)),
    ];
}

type Supports = fn(&ScatterAdd, &Caps) -> Result<(), Unsupported>;

const fn row(name: &'static str, supports: Supports) -> Kernel<Cuda, ScatterAdd> {
    Kernel::new(name, supports, launch)
        .takes(&[Takes::Rows])
        .workspace(|op, _| (2 * op.count + op.n) * size_of::<u32>())
}

fn of(op: &ScatterAdd, dtype: DType) -> Result<(), Unsupported> {
    Unsupported::require("rows of the kernel's dtype", op.dtype == dtype)
}

/// Columns of a row that a warp adds up.
const COLUMNS: usize = 128;

fn launch(k: &Kernel<Cuda, ScatterAdd>, op: &ScatterAdd, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let last = l.scratch();
    let members = last + (op.count * size_of::<u32>()) as u64;
    let before = members + (op.count * size_of::<u32>()) as u64;
    let limit = if op.ids == DType::I32 { op.count.min(1 << 31) } else { op.count.min(u32::MAX as usize) };
    let call = |entry: &'static str| l.call(entry, ptx!("scatter_add")).block(WALKERS);
    call("scatter_add_clear").pointer(last).pointer(members).param(op.count).launch(op.count.div_ceil(WALKERS))?;
    call("scatter_add_link")
        .pointer(l.input(1))
        .pointer(last)
        .pointer(members)
        .pointer(before)
        .params(&[op.n, limit])
        .faults(ScatterAdd::NAME)
        .launch(op.n.div_ceil(WALKERS))?;
    let quads = op.width.is_multiple_of(4)
        && l.row_stride(0).is_multiple_of(4)
        && l.input(0).is_multiple_of(4 * op.dtype.bytes() as u64)
        && l.output(0).is_multiple_of(16);
    let warps = op.width.div_ceil(COLUMNS).clamp(1, WALKERS / 32);
    let tiles = op.width.div_ceil(COLUMNS * warps);
    call(k.name)
        .pointer(l.input(0))
        .pointer(l.input(1))
        .pointer(l.output(0))
        .pointer(last)
        .pointer(members)
        .pointer(before)
        .param_u64(l.row_stride(0))
        .params(&[op.n, op.width, usize::from(quads)])
        .divisor(tiles)
        .block(32 * warps)
        .launch(op.count * tiles)
}
