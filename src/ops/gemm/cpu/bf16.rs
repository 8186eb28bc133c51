//! The bf16 register tile: pairs of bf16 products by `vdpbf16ps` (AVX512_BF16), 14 x 32 with kr = 2.
//!
//! A step is two values of k: lhs as one 32-bit pair that is broadcast, as rows have them where they lie, rhs as 16 interleaved pairs
//! a vector. Twice the multiply-adds of f32 per instruction, same registers as the f32 tile. The instruction flushes subnormals and rounds
//! its own way, so sums differ from f32's in the last bits.
#![allow(unsafe_code)] // intrinsics, behind a check of the processor

use super::ahead::{Ahead, Stretch};
use super::blocked::{self, Lhs, NEAR, Sums, Tile};
use super::{Format, Gemm};
use crate::backend::cpu::simd::{Avx512, Isa, Simd, fetch_line, fetch_near, pack_pairs};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::with_rows;
use half::bf16;
use std::arch::x86_64::*;

pub(super) fn panels(gated: bool) -> Format {
    Format::Panels { nr: 32, kr: 2, gated }
}

pub(super) fn supports(op: &Gemm, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(Isa::Avx512)?;
    Unsupported::require("a processor with AVX512_BF16", caps.bf16_dot)?;
    Unsupported::require("bf16 on both sides", op.lhs == DType::BF16 && op.rhs == DType::BF16)?;
    let own = op.format == Format::Plain || op.format == panels(op.gated);
    Unsupported::require("rhs plain or in panels32x2", own)
}

pub(super) fn workspace(op: &Gemm, caps: &Caps) -> usize {
    blocked::workspace_bytes::<Bf16Tile>(op, panels(op.gated), caps)
}

pub(super) fn launch(_: &Kernel<Cpu, Gemm>, op: &Gemm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let tile = Bf16Tile(Avx512::detect().expect("supports() has checked it"));
    blocked::run(tile, op, panels(op.gated), l);
    Ok(())
}

/// Made only by `launch`, after `supports` has found AVX512_BF16.
struct Bf16Tile(Avx512);

impl Tile for Bf16Tile {
    type S = Avx512;
    type Source = bf16;
    type Step = u32;
    type Rhs = bf16;
    type Value = bf16;
    type Turn = ();
    const KR: usize = 2;
    const MR: usize = 14;

    fn simd(&self) -> Avx512 {
        self.0
    }

    fn begin(&self) {}

    fn pack_row(&self, row: &[bf16], out: &mut [u32]) {
        pack_pairs(row, out);
    }

    fn piece<'a>(&self, rhs: &'a [bf16], _: &'a mut [f32]) -> &'a [bf16] {
        rhs
    }

    fn multiply(&self, (): &mut (), rows: usize, lhs: Lhs<'_, u32>, rhs: &[bf16], ahead: &mut Ahead, sums: Sums<'_>) {
        let s = self.0;
        // SAFETY: the processor has the features, see `Bf16Tile`.
        with_rows!(rows, ROWS => unsafe {
            match lhs {
                Lhs::Packed(lhs) => tile::<ROWS, true>(s, lhs, 1, rhs, ahead, sums),
                Lhs::Rows(lhs, stride) => tile::<ROWS, false>(s, lhs, stride, rhs, ahead, sums),
            }
        })
    }
}

/// Σ_p lhs[p, r] · rhs[p, :] over pairs p for ROWS rows: of packed lhs, or of rows `stride` pairs apart.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn tile<const ROWS: usize, const PACKED: bool>(
    s: Avx512,
    lhs: &[u32],
    stride: usize,
    rhs: &[bf16],
    ahead: &mut Ahead,
    sums: Sums<'_>,
) {
    let steps = ahead.steps;
    // From one row of lhs to the next, and from one step.
    let (row, step) = if PACKED { (1, <Bf16Tile as Tile>::PITCH) } else { (stride, 1) };
    assert!(steps == 0 || lhs.len() > (ROWS - 1) * row + (steps - 1) * step && rhs.len() >= steps * 64);
    let mut c: [[__m512; 2]; ROWS] = sums.begin(s);
    // SAFETY: every access below lies inside the two ranges that were just asserted: rhs[p·64 .. p·64 + 64] and
    // lhs[r·row + p·step] for p < steps. Vectors are read unaligned.
    unsafe {
        let (mut a, mut b) = (lhs.as_ptr(), rhs.as_ptr().cast::<__m512i>());
        for Stretch { at: mut line, by, steps } in ahead {
            for _ in 0..steps {
                fetch_line(line);
                line = line.wrapping_add(by);
                fetch_near(b.wrapping_add(2 * NEAR).cast());
                fetch_near(b.wrapping_add(2 * NEAR + 1).cast());
                let b0: __m512bh = std::mem::transmute(_mm512_loadu_si512(b));
                let b1: __m512bh = std::mem::transmute(_mm512_loadu_si512(b.add(1)));
                for (r, c) in c.iter_mut().enumerate() {
                    let pair: __m512bh = std::mem::transmute(_mm512_set1_epi32(*a.add(r * row) as i32));
                    c[0] = _mm512_dpbf16_ps(c[0], pair, b0);
                    c[1] = _mm512_dpbf16_ps(c[1], pair, b1);
                }
                a = a.wrapping_add(step);
                b = b.add(2);
            }
        }
    }
    sums.end(s, &c);
}
