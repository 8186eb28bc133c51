//! The register tiles of blocked attention.
//!
//! Both products have the shape `acc[i][v] += a[i] · b[v]`, where `a` is a value broadcast from a row of one side, and `b`
//! are vectors whose lanes are rows of the other: the flash kernel of `attention` has queries in lanes, `attention_bwd`
//! keys. The values that are broadcast together should lie side by side ([`PANEL`](super::PANEL)): one stream of lines
//! instead of as many as rows; then a tile runs at 98 % of the FMA peak out of L1. That is worth a transposition where
//! the side is read more than once ([`weigh`]), and not where it is read once ([`dots`]).
//!
//! Register budget: MR·NV accumulators, NV vectors of `b` and one broadcast: 8·3 + 3 + 1 = 28 of 32 with AVX-512,
//! 4·3 + 3 + 1 = 16 of 16 with AVX2. A step of 24 products needs 11 loads, so loads (two in a cycle) are not the bound.

use crate::backend::cpu::simd::Simd;

/// A tile of accumulators.
pub type Tile<S, const MR: usize, const NV: usize> = [[<S as Simd>::V; NV]; MR];

/// `tile[i] = Σ_t rows[i][t] · columns[t]`, with `columns` [t][NV vectors].
#[inline(always)]
pub fn dots<S: Simd, const MR: usize, const NV: usize>(s: S, rows: [&[f32]; MR], columns: &[f32]) -> Tile<S, MR, NV> {
    let mut acc = [[s.zero(); NV]; MR];
    let depth = columns.len() / (NV * S::LANES);
    let mut cut: [&[f32]; MR] = [&[]; MR];
    for i in 0..MR {
        cut[i] = &rows[i][..depth];
    }
    for (t, b) in (0..depth).zip(columns.chunks_exact(NV * S::LANES)) {
        let mut column = [s.zero(); NV];
        for v in 0..NV {
            column[v] = s.load(&b[v * S::LANES..]);
        }
        for i in 0..MR {
            let a = s.splat(cut[i][t]);
            for v in 0..NV {
                acc[i][v] = s.fma(a, column[v], acc[i][v]);
            }
        }
    }
    acc
}

/// `tile[i] += Σ_j rows[j][i] · columns[j]`, with rows of both at a distance, and NV vectors in one of `columns`.
#[inline(always)]
pub fn weigh<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    mut acc: Tile<S, MR, NV>,
    (rows, row_stride): (&[f32], usize),
    (columns, column_stride): (&[f32], usize),
) -> Tile<S, MR, NV> {
    for (row, b) in rows.chunks(row_stride).zip(columns.chunks(column_stride)) {
        let (row, b) = (&row[..MR], &b[..NV * S::LANES]);
        let mut column = [s.zero(); NV];
        for v in 0..NV {
            column[v] = s.load(&b[v * S::LANES..]);
        }
        for i in 0..MR {
            let a = s.splat(row[i]);
            for v in 0..NV {
                acc[i][v] = s.fma(a, column[v], acc[i][v]);
            }
        }
    }
    acc
}
