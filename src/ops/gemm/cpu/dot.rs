//! Few rows of lhs against a plain rhs: dot products along rows, nothing packed.
//!
//! Each thread takes groups of 16 rows of rhs; four of them at a time meet one row of lhs, with two accumulators each, so
//! that the loads of rhs, not the latency of the adds, are the limit. Bound: reading rhs once. For more rows of lhs than
//! `SUITS_ROWS` packing pays.

use super::epilogue::{Epilogue, Rows};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Launch};
use crate::dtype::Format;
use crate::error::{Result, Unsupported};
use crate::ops::gemm::Gemm;
use crate::ops::with_float;
use crate::simd_fn;

/// Rows of lhs up to which this is the better way.
const SUITS_ROWS: usize = 4;
/// Columns of the result that a part of the work computes.
const GROUP: usize = 16;

pub(super) fn supports<S: Simd>(op: &Gemm, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)?;
    Unsupported::require("a plain rhs", op.format == Format::Plain)
}

pub(super) fn suits(op: &Gemm, _: &Caps) -> bool {
    op.m <= SUITS_ROWS
}

pub(super) fn launch<S: Simd>(_: &Kernel<Cpu, Gemm>, op: &Gemm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.lhs, L => with_float!(op.rhs, R => with_float!(op.out, O => run::<S, L, R, O>(s, op, l))));
    Ok(())
}

fn run<S: Simd, L: Lane, R: Lane, O: Lane>(s: S, op: &Gemm, l: &mut Launch<'_, Cpu>) {
    let (lhs, rhs) = (l.input::<L>(0), l.input::<R>(1));
    let strides = |i: usize, batched: bool| {
        let strides = l.layout(i).strides;
        if batched { [strides[0], strides[1]] } else { [0, strides[0]] }
    };
    let (ls, rs) = (strides(0, op.batch > 1), strides(1, op.rhs_batch > 1));
    let (bias, residual) = (l.optional::<f32>(2), l.optional::<f32>(3));
    let pool = l.pool();
    let Some(out) = l.output::<O>(0) else { return };
    if op.m * op.n == 0 {
        return;
    }
    let groups = op.n.div_ceil(GROUP);
    let out = Rows::new(out, op.n);
    let e = Epilogue { bias, activation: op.activation, residual, gated: op.gated, n: op.n };
    pool.run(op.batch * groups, |part| {
        let (b, left) = (part / groups, part % groups * GROUP);
        let right = (left + GROUP).min(op.n);
        // A row of rhs by its number; beyond the last the last again, whose product is not stored.
        let row_at = |j: usize, half: usize| b * rs[0] + (half * op.n + j.min(op.n - 1)) * rs[1];
        for i in 0..op.m {
            let x = row(lhs, b * ls[0] + i * ls[1], op.k);
            let mut sums = [[0f32; GROUP]; 2];
            for (half, sums) in sums.iter_mut().enumerate().take(if op.gated { 2 } else { 1 }) {
                for (j, sums) in sums.chunks_exact_mut(4).enumerate() {
                    let rows = [0, 1, 2, 3].map(|q| row(rhs, row_at(left + 4 * j + q, half), op.k));
                    sums.copy_from_slice(&dot4(s, x, rows));
                }
            }
            finish(s, &e, &sums, b * op.m + i, left, right, &out);
        }
    });
}

/// `len` elements from `at` on; of an operand without elements none, wherever its rows would begin.
fn row<E>(data: &[E], at: usize, len: usize) -> &[E] {
    if len == 0 { &[] } else { &data[at..at + len] }
}

simd_fn! {
    /// Four dot products with the same left side.
    fn dot4[S, L: Lane, R: Lane](s, x: &[L], rows: [&[R]; 4]) -> [f32; 4] {
        let mut acc = [[s.zero(); 2]; 4];
        let whole = x.len() - x.len() % (2 * S::LANES);
        let rows = rows.map(|r| &r[..x.len()]);
        for at in (0..whole).step_by(2 * S::LANES) {
            let (x0, x1) = (L::load(s, &x[at..]), L::load(s, &x[at + S::LANES..]));
            for (acc, row) in acc.iter_mut().zip(rows) {
                acc[0] = s.fma(x0, R::load(s, &row[at..]), acc[0]);
                acc[1] = s.fma(x1, R::load(s, &row[at + S::LANES..]), acc[1]);
            }
        }
        for at in (whole..x.len()).step_by(S::LANES) {
            let to = (at + S::LANES).min(x.len());
            let x = L::load_part(s, &x[at..to]);
            for (acc, row) in acc.iter_mut().zip(rows) {
                acc[0] = s.fma(x, R::load_part(s, &row[at..to]), acc[0]);
            }
        }
        acc.map(|a| s.sum(s.add(a[0], a[1])))
    }
}

/// Stores up to a group of sums of one row through the epilogue, laid out as rows of two vectors.
fn finish<S: Simd, O: Lane>(
    s: S,
    e: &Epilogue<'_>,
    sums: &[[f32; GROUP]; 2],
    row: usize,
    left: usize,
    right: usize,
    out: &Rows<'_, O>,
) {
    let step = if e.gated { S::LANES } else { 2 * S::LANES };
    for from in (left..right).step_by(step) {
        let mut acc = [0f32; 2 * MAX_LANES];
        let count = (right - from).min(step);
        acc[..count].copy_from_slice(&sums[0][from - left..from - left + count]);
        if e.gated {
            acc[S::LANES..S::LANES + count].copy_from_slice(&sums[1][from - left..from - left + count]);
        }
        super::epilogue::store(s, e, &acc[..2 * S::LANES], row, from, right, out);
    }
}
