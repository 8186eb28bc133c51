//! Few rows of lhs against prepared panels: the decode step of a language model.
//!
//! Layouts: lhs [m, k] with contiguous rows at any distance, m up to 8; rhs in panels of two vectors with kr = 1 or 2.
//!
//! Algorithm: a part of the work is some whole panels. Each is read once, front to back, and meets all rows: a step of k
//! is two vectors of rhs and a value of every row, broadcast from where it lies (16-bit rows are widened first). One or two
//! rows take several steps at a time in sums of their own, since a chain of multiply-adds alone would wait for itself.
//! What is read a little later is asked for early: the processor's own guesses end at each page. One thread, bf16, in L3 / in
//! DRAM: 24.6 / 18.7 GB/s asking for L2 4 KiB ahead, 25.7 / 23.7 for L1 8 KiB ahead, 28.2 / 29.2 with huge pages besides.
//!
//! Bound: memory, rhs read once. The epilogue is that of all products.
#![allow(unsafe_code)] // the innermost loop reads through pointers whose ranges are asserted before it

use super::epilogue::{self, Epilogue, Rows};

use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd, fetch_beyond, widen};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Launch};
use crate::dtype::{DType, Format};
use crate::error::{Result, Unsupported};
use crate::ops::gemm::Gemm;
use crate::ops::with_float;
use crate::simd_fn;

/// The most rows.
const MOST_ROWS: usize = 8;
/// Bytes of a part of the work at least, where panels are smaller.
const PART_BYTES: usize = 32 << 10;
/// How far ahead memory is asked for.
const AHEAD_BYTES: usize = 8192;

pub(super) fn supports<S: Simd>(op: &Gemm, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)?;
    Unsupported::at_most("rows", op.batch * op.m, MOST_ROWS)?;
    let own = [1, 2].map(|kr| Format::Panels { nr: 2 * S::LANES as u16, kr, gated: op.gated });
    Unsupported::require("rhs in panels of this kernel's width (nr) and kr = 1 or 2", own.contains(&op.format))?;
    Unsupported::equal("batch", op.batch, 1usize)
}

pub(super) fn workspace(op: &Gemm, _: &Caps) -> usize {
    if op.lhs == DType::F32 { 0 } else { op.m * op.k * 4 }
}

pub(super) fn launch<S: Simd>(_: &Kernel<Cpu, Gemm>, op: &Gemm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let wide = l.scratch::<f32>();
    let stride = l.layout(0).strides[0];
    let lhs = match op.lhs {
        DType::F32 => Lhs { values: l.input(0), stride },
        _ => {
            with_float!(op.lhs, L => for (row, wide) in wide.chunks_exact_mut(op.k.max(1)).enumerate() {
                widen(s, &l.input::<L>(0)[row * stride..][..op.k], wide);
            });
            Lhs { values: wide, stride: op.k }
        }
    };
    with_float!(op.rhs, R => with_float!(op.out, O => run::<S, R, O>(s, op, lhs, l)));
    Ok(())
}

/// Rows of lhs.
#[derive(Clone, Copy)]
struct Lhs<'a> {
    values: &'a [f32],
    stride: usize,
}

fn run<S: Simd, R: Lane, O: Lane>(s: S, op: &Gemm, lhs: Lhs<'_>, l: &mut Launch<'_, Cpu>) {
    let e =
        Epilogue { bias: l.optional(2), activation: op.activation, residual: l.optional(3), gated: op.gated, n: op.n };
    let (rhs, pool) = (l.input::<R>(1), l.pool());
    let Some(out) = l.output::<O>(0).filter(|out| !out.is_empty()) else { return };
    let out = Rows::new(out, op.n);
    let (nr, pairs) = (2 * S::LANES, matches!(op.format, Format::Panels { kr: 2, .. }));
    let panel_len = nr * if pairs { op.k.next_multiple_of(2) } else { op.k };
    let columns = if op.gated { nr / 2 } else { nr };
    let panels = op.n.div_ceil(columns);
    let per_part = (PART_BYTES / size_of::<R>() / panel_len.max(1)).max(1);
    pool.run(panels.div_ceil(per_part), |part| {
        for panel in part * per_part..((part + 1) * per_part).min(panels) {
            let mut acc = [0f32; MOST_ROWS * 2 * MAX_LANES];
            let acc = &mut acc[..op.m * nr];
            let rhs = &rhs[panel * panel_len..][..panel_len];
            match pairs {
                false => rows::<S, R, 1>(s, op, lhs, rhs, acc),
                true => rows::<S, R, 2>(s, op, lhs, rhs, acc),
            }
            epilogue::store(s, &e, acc, 0, panel * columns, op.n, &out);
        }
    });
}

fn rows<S: Simd, R: Lane, const KR: usize>(s: S, op: &Gemm, lhs: Lhs<'_>, rhs: &[R], acc: &mut [f32]) {
    match op.m {
        1 => panel::<S, R, KR, 1, 4>(s, lhs, op.k, rhs, acc),
        2 => panel::<S, R, KR, 2, 2>(s, lhs, op.k, rhs, acc),
        3 => panel::<S, R, KR, 3, 1>(s, lhs, op.k, rhs, acc),
        4 => panel::<S, R, KR, 4, 1>(s, lhs, op.k, rhs, acc),
        5 => panel::<S, R, KR, 5, 1>(s, lhs, op.k, rhs, acc),
        6 => panel::<S, R, KR, 6, 1>(s, lhs, op.k, rhs, acc),
        7 => panel::<S, R, KR, 7, 1>(s, lhs, op.k, rhs, acc),
        _ => panel::<S, R, KR, 8, 1>(s, lhs, op.k, rhs, acc),
    }
}

simd_fn! {
    /// acc[r, :] = Σ_p lhs[r, p] · rhs[p, :] for ROWS rows, UNROLL steps of KR values at a time.
    fn panel[S, R: Lane; const KR: usize, const ROWS: usize, const UNROLL: usize](s, lhs: Lhs<'_>, k: usize, rhs: &[R], acc: &mut [f32]) {
        let (nr, steps) = (2 * S::LANES, k.div_ceil(KR));
        let reach = if k == 0 { 0 } else { (ROWS - 1) * lhs.stride + k };
        assert!(lhs.values.len() >= reach && rhs.len() >= steps * KR * nr && acc.len() >= ROWS * nr);
        let mut sums = [[[s.zero(); 2]; ROWS]; UNROLL];
        let whole = k / KR;
        let body = whole - whole % UNROLL;
        for p in (0..body).step_by(UNROLL) {
            for (u, sums) in sums.iter_mut().enumerate() {
                step::<S, R, KR, ROWS>(s, lhs, p + u, KR, rhs, sums);
            }
        }
        for p in body..whole {
            step::<S, R, KR, ROWS>(s, lhs, p, KR, rhs, &mut sums[0]);
        }
        if whole < steps {
            step::<S, R, KR, ROWS>(s, lhs, whole, k % KR, rhs, &mut sums[0]);
        }
        for (r, acc) in acc.chunks_exact_mut(nr).take(ROWS).enumerate() {
            for v in 0..2 {
                let mut sum = sums[0][r][v];
                for more in &sums[1..] {
                    sum = s.add(sum, more[r][v]);
                }
                s.store(sum, &mut acc[v * S::LANES..]);
            }
        }
    }
}

/// Step `p`, of which the first `values` values are there.
#[inline(always)]
fn step<S: Simd, R: Lane, const KR: usize, const ROWS: usize>(
    s: S,
    lhs: Lhs<'_>,
    p: usize,
    values: usize,
    rhs: &[R],
    sums: &mut [[S::V; 2]; ROWS],
) {
    let b = &rhs[p * KR * 2 * S::LANES..(p + 1) * KR * 2 * S::LANES];
    fetch_beyond(b, AHEAD_BYTES);
    let b = [load::<S, R, KR>(s, b), load::<S, R, KR>(s, &b[KR * S::LANES..])];
    for i in 0..values {
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: p·KR + i is below k, so inside of row r by the assertion in `panel`.
            let a = s.splat(unsafe { *lhs.values.get_unchecked(r * lhs.stride + p * KR + i) });
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = s.fma(a, b[i], *sum);
            }
        }
    }
}

/// A vector of each of a step's `KR` values.
#[inline(always)]
fn load<S: Simd, R: Lane, const KR: usize>(s: S, b: &[R]) -> [S::V; 2] {
    if KR == 1 { [R::load(s, b), s.zero()] } else { R::load_pairs(s, b) }
}
