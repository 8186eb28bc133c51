//! RVQ encoding on the CPU: x [n, dim], codebooks [levels, size, dim], all contiguous f32.
//!
//! 1. Codebooks (for cosines: their unit vectors) are packed into panels of two vectors of entries, with half of each ‖e‖².
//! 2. A part of the work is `GROUP` vectors through all levels. Per level, each panel meets `ROWS` residuals at a time in a
//!    register tile: r·e - ‖e‖²/2 for all entries, a matrix product whose result stays in L2.
//! 3. Every entry within the f32 error of the best is weighed again in f64 by the direct form Σ(r - e)², the lowest index
//!    first; so equal distances are equal, and rounding of the expanded form decides nothing.
//! 4. The residual loses the entry; it lies in L1 or L2 from the first level to the last.
//!
//! Registers: 24 accumulators (AVX-512, 12 x 32), 2 of the panel, 1 broadcast. GROUP = 48 vectors share each panel read.
//! Bound: arithmetic, 2·n·size·dim per level.
#![allow(unsafe_code)] // the innermost loop reads through pointers whose ranges are asserted before it

use super::{Distance, RvqEncode};
use crate::backend::cpu::simd::{Isa, Simd};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::Format;
use crate::error::{Result, Unsupported};
use crate::ops::panels::pack_panels;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for RvqEncode {
    const KERNELS: &'static [Kernel<Cpu, Self>] =
        isa_rows![("rvq_encode_f32", supports, launch).workspace(|op, _| workspace_bytes(op))];
}

/// Vectors of a part of the work.
const GROUP: usize = 48;
/// Added to the distance of residuals in memory, so that they do not fall into the same sets of L1.
const PAD: usize = 16;
/// The widest panel: two vectors of AVX-512.
const MAX_NR: usize = 32;

fn supports<S: Simd>(_: &RvqEncode, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

/// Floats of packed entries and halves of norms of one level, and of what a vector's encoding is noted in.
fn level_len(op: &RvqEncode) -> usize {
    op.codebook_size.next_multiple_of(MAX_NR) * (op.codebook_dim + 1)
}

fn record_len(op: &RvqEncode) -> usize {
    2 * op.num_quantizers + op.codebook_dim
}

fn workspace_bytes(op: &RvqEncode) -> usize {
    let unit = if op.distance == Distance::Cosine { op.codebook_size * op.codebook_dim } else { 0 };
    4 * (op.num_quantizers * level_len(op) + unit + op.n * record_len(op))
}

fn launch<S: Simd>(_: &Kernel<Cpu, RvqEncode>, op: &RvqEncode, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let (x, books) = (l.input::<f32>(0), l.input::<f32>(1));
    let (n, dim, size, levels) = (op.n, op.codebook_dim, op.codebook_size, op.num_quantizers);
    let pool = l.pool();
    let scratch = l.scratch::<f32>();
    let (packed, rest) = scratch.split_at_mut(levels * level_len(op));
    let (records, unit) = rest.split_at_mut(n * record_len(op));
    for (level, packed) in packed.chunks_exact_mut(level_len(op).max(1)).enumerate() {
        let book = &books[level * size * dim..(level + 1) * size * dim];
        let (panels, halves) = packed.split_at_mut(size.next_multiple_of(MAX_NR) * dim);
        let format = Format::Panels { nr: 2 * S::LANES as u16, kr: 1, gated: false };
        let panels = &mut panels[..format.elements(size, dim)];
        halves.fill(f32::INFINITY);
        match op.distance {
            Distance::Euclidean => {
                for (half, e) in halves.iter_mut().zip(book.chunks_exact(dim.max(1))) {
                    *half = (0.5 * e.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>()) as f32;
                }
                pack_panels(pool, book, [dim, 1], [size, dim], format, panels);
            }
            Distance::Cosine => {
                halves[..size].fill(0.0);
                for (unit, e) in unit.chunks_exact_mut(dim.max(1)).zip(book.chunks_exact(dim.max(1))) {
                    to_unit(e, unit);
                }
                pack_panels(pool, unit, [dim, 1], [size, dim], format, panels);
            }
        }
    }
    let packed = &*packed;
    let len = record_len(op);
    pool.chunks_mut(records, GROUP * len, |part, records| {
        let first = part * GROUP;
        let count = records.len() / len;
        encode(s, op, &x[first * dim..(first + count) * dim], books, packed, records);
    });
    let (Some(codes), Some(quantized), Some(measure)) = (l.output::<u32>(0), l.output::<f32>(1), l.output::<f32>(2))
    else {
        return Ok(());
    };
    for (i, record) in records.chunks_exact(len.max(1)).enumerate() {
        for level in 0..levels {
            codes[level * n + i] = record[level].to_bits();
            measure[level * n + i] = record[levels + level];
        }
        quantized[i * dim..(i + 1) * dim].copy_from_slice(&record[2 * levels..]);
    }
    Ok(())
}

/// Encodes up to `GROUP` vectors. A record holds codes (as bits), measures and the quantised vector.
fn encode<S: Simd>(s: S, op: &RvqEncode, x: &[f32], books: &[f32], packed: &[f32], records: &mut [f32]) {
    let (dim, size, levels) = (op.codebook_dim, op.codebook_size, op.num_quantizers);
    let (count, stride, len) = (records.len() / record_len(op), dim + PAD, record_len(op));
    let rows = tile_rows::<S>();
    let mut residuals = vec![0f32; count.next_multiple_of(rows) * stride];
    for (r, x) in residuals.chunks_exact_mut(stride).zip(x.chunks_exact(dim.max(1))) {
        r[..dim].copy_from_slice(x);
    }
    records.fill(0.0);
    let padded = size.next_multiple_of(2 * S::LANES);
    let mut scores = vec![0f32; count.next_multiple_of(rows) * padded];
    for level in 0..levels {
        let packed = &packed[level * level_len(op)..][..level_len(op)];
        let (panels, halves) = packed.split_at(size.next_multiple_of(MAX_NR) * dim);
        for panel in 0..padded / (2 * S::LANES) {
            let column = panel * 2 * S::LANES;
            let (entries, halves) = (&panels[column * dim..(column + 2 * S::LANES) * dim], &halves[column..]);
            for group in 0..count.div_ceil(rows) {
                let residuals = &residuals[group * rows * stride..];
                tile_any(
                    s,
                    residuals,
                    stride,
                    entries,
                    dim,
                    halves,
                    &mut scores[group * rows * padded + column..],
                    padded,
                );
            }
        }
        let book = &books[level * size * dim..(level + 1) * size * dim];
        for (i, record) in records.chunks_exact_mut(len).enumerate() {
            let r = &mut residuals[i * stride..i * stride + dim];
            let best = nearest(s, op, r, book, &halves[..size], &scores[i * padded..i * padded + size]);
            record[level] = f32::from_bits(best.code as u32);
            let entry = &book[best.code * dim..(best.code + 1) * dim];
            let scale = if op.distance == Distance::Cosine { unit_divisor(entry) } else { 1.0 };
            for ((r, &e), q) in r.iter_mut().zip(entry).zip(&mut record[2 * levels..]) {
                let e = e / scale;
                *r -= e;
                *q += e;
            }
            record[levels + level] = match op.distance {
                Distance::Euclidean => norm(r) as f32,
                Distance::Cosine => best.cosine as f32,
            };
        }
    }
}

struct Best {
    code: usize,
    cosine: f64,
}

/// Weighs again, in f64, every entry whose score is within the error of the largest one.
fn nearest<S: Simd>(s: S, op: &RvqEncode, r: &[f32], book: &[f32], halves: &[f32], scores: &[f32]) -> Best {
    let dim = op.codebook_dim;
    let length = norm(r);
    let largest_half = halves.iter().fold(0f32, |m, &h| m.max(h));
    let longest = if op.distance == Distance::Cosine { 1.0 } else { f64::from(2.0 * largest_half).sqrt() };
    // Sums of `dim` products in f32 err by about √dim rounding steps of ‖r‖·‖e‖; four times that is kept.
    let slack =
        4.0 * f64::from(f32::EPSILON) * (dim as f64).sqrt().max(2.0) * (length * longest + 0.5 * longest * longest);
    let limit = f64::from(largest(s, scores)) - slack;
    let mut best = Best { code: 0, cosine: f64::NEG_INFINITY };
    let mut least = f64::INFINITY;
    for (k, _) in scores.iter().enumerate().filter(|&(_, &score)| f64::from(score) >= limit) {
        let entry = &book[k * dim..(k + 1) * dim];
        let pairs = r.iter().zip(entry).map(|(&a, &b)| (f64::from(a), f64::from(b)));
        let (distance, cosine) = match op.distance {
            Distance::Euclidean => (pairs.map(|(a, b)| (a - b) * (a - b)).sum(), 0.0),
            Distance::Cosine => {
                let cosine = pairs.map(|(a, b)| a * b).sum::<f64>() / (length.max(1e-12) * norm(entry).max(1e-12));
                (-cosine, cosine)
            }
        };
        if distance < least {
            least = distance;
            best = Best { code: k, cosine };
        }
    }
    best
}

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
}

fn unit_divisor(x: &[f32]) -> f32 {
    norm(x).max(1e-12) as f32
}

fn to_unit(x: &[f32], out: &mut [f32]) {
    let length = unit_divisor(x);
    for (out, &v) in out.iter_mut().zip(x) {
        *out = v / length;
    }
}

const fn tile_rows<S: Simd>() -> usize {
    match S::ISA {
        Isa::Avx512 => 12,
        Isa::Avx2 => 6,
        Isa::Portable => 4,
    }
}

#[allow(clippy::too_many_arguments)]
fn tile_any<S: Simd>(
    s: S,
    residuals: &[f32],
    stride: usize,
    entries: &[f32],
    dim: usize,
    halves: &[f32],
    scores: &mut [f32],
    padded: usize,
) {
    match S::ISA {
        Isa::Avx512 => tile::<S, 12>(s, residuals, stride, entries, dim, halves, scores, padded),
        Isa::Avx2 => tile::<S, 6>(s, residuals, stride, entries, dim, halves, scores, padded),
        Isa::Portable => tile::<S, 4>(s, residuals, stride, entries, dim, halves, scores, padded),
    }
}

simd_fn! {
    /// scores[row, 0..nr] = residuals[row] · entries - halves, for ROWS residuals `stride` apart and scores `padded` apart.
    fn tile[S; const ROWS: usize](
        s, residuals: &[f32], stride: usize, entries: &[f32], dim: usize, halves: &[f32], scores: &mut [f32], padded: usize
    ) {
        let nr = 2 * S::LANES;
        assert!(residuals.len() >= (ROWS - 1) * stride + dim);
        let mut c = [[s.zero(); 2]; ROWS];
        let mut at = residuals.as_ptr();
        for e in entries[..dim * nr].chunks_exact(nr) {
            let e = [s.load(e), s.load(&e[S::LANES..])];
            for (r, c) in c.iter_mut().enumerate() {
                // SAFETY: `at` has advanced by fewer than `dim`, so this is residuals[r·stride + p] with p < dim, inside
                // by the assertion above.
                let a = s.splat(unsafe { *at.add(r * stride) });
                c[0] = s.fma(a, e[0], c[0]);
                c[1] = s.fma(a, e[1], c[1]);
            }
            // SAFETY: at most one past the last value that is read.
            at = unsafe { at.add(1) };
        }
        let halves = [s.load(halves), s.load(&halves[S::LANES..])];
        for (r, c) in c.iter().enumerate() {
            let out = &mut scores[r * padded..r * padded + nr];
            s.store(s.sub(c[0], halves[0]), out);
            s.store(s.sub(c[1], halves[1]), &mut out[S::LANES..]);
        }
    }
}

simd_fn! {
    fn largest[S](s, x: &[f32]) -> f32 {
        let whole = x.len() - x.len() % S::LANES;
        let mut m = s.splat(f32::NEG_INFINITY);
        for v in x[..whole].chunks_exact(S::LANES) {
            m = s.max(m, s.load(v));
        }
        x[whole..].iter().fold(s.max_lane(m), |m, &v| m.max(v))
    }
}
