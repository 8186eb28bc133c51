//! The f32 register tile of the implicit products: up to mr rows of one side, a value at a time, against two vectors of the
//! other. The scheme of gemm's tile, with sums at any distance.
//!
//! Registers: 2·mr sums, 2 for the vectors, 1 for the broadcast: 31 of 32 with AVX-512 (14 rows), 15 of 16 with AVX2 (6).
#![allow(unsafe_code)] // the innermost loop reads through a pointer whose range is asserted before it

use crate::backend::cpu::simd::{Isa, Simd};
use crate::{simd_fn, with_rows};

/// Steps of the sum in a block.
pub const KC: usize = 256;
/// From one row of the left side to the next: 16 more, so that rows do not fall into the same sets of L1.
pub const LDA: usize = KC + 16;

/// The most rows of a tile of any instruction set.
pub const MAX_ROWS: usize = 14;

/// The most rows of a tile.
pub const fn max_rows<S: Simd>() -> usize {
    match S::ISA {
        Isa::Avx512 => MAX_ROWS,
        Isa::Avx2 => 6,
        Isa::Portable => 4,
    }
}

/// `acc[r, :] += Σ_p lhs[r, p] · rhs[p, :]` for p below `steps` (at most [`KC`]) and at most [`max_rows`] rows: rows of lhs lie
/// [`LDA`] apart, rows of rhs are two vectors, rows of acc lie `distance` apart.
pub fn multiply<S: Simd>(s: S, rows: usize, lhs: &[f32], rhs: &[f32], steps: usize, acc: &mut [f32], distance: usize) {
    if rows > 0 {
        with_rows!(rows, ROWS => tile::<S, ROWS>(s, lhs, rhs, steps, acc, distance));
    }
}

simd_fn! {
    fn tile[S; const ROWS: usize](s, lhs: &[f32], rhs: &[f32], steps: usize, acc: &mut [f32], distance: usize) {
        let nr = 2 * S::LANES;
        assert!(lhs.len() >= (ROWS - 1) * LDA + steps);
        let mut c = [[s.zero(); 2]; ROWS];
        for (r, c) in c.iter_mut().enumerate() {
            let acc = &acc[r * distance..][..nr];
            *c = [s.load(acc), s.load(&acc[S::LANES..])];
        }
        let mut at = lhs.as_ptr();
        for b in rhs[..steps * nr].chunks_exact(nr) {
            let b = [s.load(b), s.load(&b[S::LANES..])];
            for (r, c) in c.iter_mut().enumerate() {
                // SAFETY: `at` has advanced by fewer than `steps`, so this is lhs[r·LDA + p] with p < steps, inside the
                // slice by the assertion above.
                let a = s.splat(unsafe { *at.add(r * LDA) });
                c[0] = s.fma(a, b[0], c[0]);
                c[1] = s.fma(a, b[1], c[1]);
            }
            // SAFETY: at most one past the last step that is read.
            at = unsafe { at.add(1) };
        }
        for (r, c) in c.iter().enumerate() {
            let acc = &mut acc[r * distance..][..nr];
            s.store(c[0], acc);
            s.store(c[1], &mut acc[S::LANES..]);
        }
    }
}
