//! The f32 register tile: up to mr rows of lhs, one value at a time, against two vectors of an rhs panel.
//!
//! Registers: 2·mr accumulators, 2 for rhs, 1 for the broadcast: 31 of 32 with AVX-512 (mr = 14), 15 of 16 with AVX2 (mr = 6).
//! Per step of k it loads 2 vectors and mr scalars for 2·mr multiply-adds, so the two FMA ports stay the bottleneck.
//! Each number of rows has its own compiled tile: a loop over rows with a bound known only at run time would keep the
//! accumulators in memory.
//!
//! 16-bit rhs is widened as it is loaded (2 instructions a vector).
#![allow(unsafe_code)] // the innermost loop reads through pointers whose ranges are asserted before it

use super::blocked::{LDA, Tile};
use crate::backend::cpu::simd::{Isa, Lane, Simd};
use crate::simd_fn;
use std::marker::PhantomData;

/// f32 arithmetic on lhs and rhs of any float.
pub(super) struct F32Tile<S, L, R>(S, PhantomData<(L, R)>);

impl<S: Simd, L, R> F32Tile<S, L, R> {
    pub fn new(s: S) -> Self {
        F32Tile(s, PhantomData)
    }
}

impl<S: Simd, L: Lane, R: Lane> Tile for F32Tile<S, L, R> {
    type S = S;
    type Source = L;
    type Step = f32;
    type Rhs = R;
    const KR: usize = 1;
    const MR: usize = match S::ISA {
        Isa::Avx512 => 14,
        Isa::Avx2 => 6,
        Isa::Portable => 4,
    };

    fn simd(&self) -> S {
        self.0
    }

    fn pack_row(&self, row: &[L], out: &mut [f32]) {
        widen(self.0, row, out);
    }

    fn multiply(&self, rows: usize, lhs: &[f32], rhs: &[R], steps: usize, acc: &mut [f32]) {
        let s = self.0;
        match rows {
            1 => tile::<S, R, 1>(s, lhs, rhs, steps, acc),
            2 => tile::<S, R, 2>(s, lhs, rhs, steps, acc),
            3 => tile::<S, R, 3>(s, lhs, rhs, steps, acc),
            4 => tile::<S, R, 4>(s, lhs, rhs, steps, acc),
            5 => tile::<S, R, 5>(s, lhs, rhs, steps, acc),
            6 => tile::<S, R, 6>(s, lhs, rhs, steps, acc),
            7 => tile::<S, R, 7>(s, lhs, rhs, steps, acc),
            8 => tile::<S, R, 8>(s, lhs, rhs, steps, acc),
            9 => tile::<S, R, 9>(s, lhs, rhs, steps, acc),
            10 => tile::<S, R, 10>(s, lhs, rhs, steps, acc),
            11 => tile::<S, R, 11>(s, lhs, rhs, steps, acc),
            12 => tile::<S, R, 12>(s, lhs, rhs, steps, acc),
            13 => tile::<S, R, 13>(s, lhs, rhs, steps, acc),
            _ => tile::<S, R, 14>(s, lhs, rhs, steps, acc),
        }
    }
}

simd_fn! {
    /// acc[r, :] += Σ_p lhs[r, p] · rhs[p, :] for ROWS rows; lhs rows lie LDA apart, acc rows nr.
    fn tile[S, R: Lane; const ROWS: usize](s, lhs: &[f32], rhs: &[R], steps: usize, acc: &mut [f32]) {
        let nr = 2 * S::LANES;
        assert!(lhs.len() >= (ROWS - 1) * LDA + steps && acc.len() >= ROWS * nr);
        let mut c = [[s.zero(); 2]; ROWS];
        for (c, acc) in c.iter_mut().zip(acc.chunks_exact(nr)) {
            *c = [s.load(acc), s.load(&acc[S::LANES..])];
        }
        let mut at = lhs.as_ptr();
        for b in rhs[..steps * nr].chunks_exact(nr) {
            let b = [R::load(s, b), R::load(s, &b[S::LANES..])];
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
        for (c, acc) in c.iter().zip(acc.chunks_exact_mut(nr)) {
            s.store(c[0], acc);
            s.store(c[1], &mut acc[S::LANES..]);
        }
    }
}

simd_fn! {
    /// A row in f32.
    pub(super) fn widen[S, L: Lane](s, row: &[L], out: &mut [f32]) {
        let whole = row.len() - row.len() % S::LANES;
        for (x, out) in row[..whole].chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
            s.store(L::load(s, x), out);
        }
        let (x, out) = (&row[whole..], &mut out[whole..row.len()]);
        s.store_part(L::load_part(s, x), out);
    }
}
