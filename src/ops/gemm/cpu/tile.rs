//! The f32 register tile: up to mr rows of lhs, one value at a time, against two vectors of an rhs panel.
//!
//! Registers: 2·mr accumulators, 2 for rhs, 1 for the broadcast: 31 of 32 with AVX-512 (mr = 14), 15 of 16 with AVX2 (mr = 6).
//! Per step of k it loads 2 vectors and mr scalars for 2·mr multiply-adds, so the two FMA ports stay the bottleneck.
//! Each number of rows has its own compiled tile: a loop over rows with a bound known only at run time would keep the
//! accumulators in memory.
//!
//! 16-bit rhs is widened a piece at a time, which all tiles of a block share.
#![allow(unsafe_code)] // the innermost loop reads through pointers whose ranges are asserted before it

use super::ahead::{Ahead, Stretch};
use super::blocked::{Lhs, NEAR, Sums, Tile};
use crate::backend::cpu::simd::{Isa, Lane, Simd, fetch_line, fetch_near, widen};
use crate::dtype::DType;
use crate::{simd_fn, with_rows};
use std::hint::black_box;
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
    type Value = f32;
    type Turn = ();
    const KR: usize = 1;
    const MR: usize = match S::ISA {
        Isa::Avx512 => 14,
        Isa::Avx2 => 6,
        Isa::Portable => 4,
    };

    fn simd(&self) -> S {
        self.0
    }

    fn begin(&self) {}

    fn pack_row(&self, row: &[L], out: &mut [f32]) {
        widen(self.0, row, out);
    }

    fn piece<'a>(&self, rhs: &'a [R], room: &'a mut [f32]) -> &'a [f32] {
        if R::DTYPE == DType::F32 {
            return bytemuck::cast_slice(rhs);
        }
        let room = &mut room[..rhs.len()];
        widen(self.0, rhs, room);
        room
    }

    fn multiply(&self, (): &mut (), rows: usize, lhs: Lhs<'_, f32>, rhs: &[f32], ahead: &mut Ahead, sums: Sums<'_>) {
        let s = self.0;
        match lhs {
            Lhs::Packed(lhs) => with_rows!(rows, ROWS => tile::<S, ROWS, true>(s, lhs, 1, rhs, ahead, sums)),
            Lhs::Rows(lhs, stride) => {
                with_rows!(rows, ROWS => tile::<S, ROWS, false>(s, lhs, stride, rhs, ahead, sums))
            }
        }
    }
}

/// From one step of packed lhs to the next.
const fn pitch<S: Simd>() -> usize {
    <F32Tile<S, f32, f32> as Tile>::PITCH
}

/// Bytes from the first of some rows, `stride` apart, to each, for a loop that needs no arithmetic to address them. From the stride
/// alone the compiler advances a pointer from row to row, and these additions are in the way of multiply-adds, with which they share
/// ports: with operands in L2 the loop takes 9 % longer (Xeon, family 6, model 167, Golden Cove or later; in C).
#[inline(always)]
fn offsets<const ROWS: usize>(stride: usize) -> [usize; ROWS] {
    // What these have in common the compiler must not see.
    let times = |n: usize| black_box(stride.wrapping_mul(n * size_of::<f32>()));
    let [one, three, five, seven] = [times(1), times(3), times(5), times(7)];
    let low = [0, one, one.wrapping_mul(2), three, one.wrapping_mul(4), five, three.wrapping_mul(2)];
    std::array::from_fn(|r| low[r % 7].wrapping_add(seven.wrapping_mul(r / 7)))
}

simd_fn! {
    /// Σ_p lhs[p, r] · rhs[p, :] for ROWS rows: of packed lhs, or of rows `stride` apart.
    fn tile[S; const ROWS: usize, const PACKED: bool](s, lhs: &[f32], stride: usize, rhs: &[f32], ahead: &mut Ahead, sums: Sums<'_>) {
        let (nr, steps) = (2 * S::LANES, ahead.steps);
        // From one row of lhs to the next, and from one step.
        let (row, step) = if PACKED { (1, pitch::<S>()) } else { (stride, 1) };
        assert!(steps == 0 || lhs.len() > (ROWS - 1) * row + (steps - 1) * step);
        let mut c: [[S::V; 2]; ROWS] = sums.begin(s);
        let rows: [usize; ROWS] = if PACKED { std::array::from_fn(|r| r * size_of::<f32>()) } else { offsets(stride) };
        let mut lhs = lhs.as_ptr();
        let mut rhs = &rhs[..steps * nr];
        for Stretch { at: mut line, by, steps } in ahead {
            let (part, rest) = rhs.split_at(steps * nr);
            rhs = rest;
            for (p, b) in part.chunks_exact(nr).enumerate() {
                fetch_line(line);
                line = line.wrapping_add(by);
                for line in (0..nr).step_by(16) {
                    fetch_near(b.as_ptr().wrapping_add(NEAR * nr + line).cast());
                }
                let b = [s.load(b), s.load(&b[S::LANES..])];
                let at = lhs.wrapping_add(p * step);
                for (r, c) in c.iter_mut().enumerate() {
                    // SAFETY: `at` is p < steps steps from the first, so this is inside of lhs by the assertion above.
                    let a = s.splat(unsafe { *at.wrapping_byte_add(rows[r]) });
                    c[0] = s.fma(a, b[0], c[0]);
                    c[1] = s.fma(a, b[1], c[1]);
                }
            }
            lhs = lhs.wrapping_add(steps * step);
        }
        sums.end(s, &c);
    }
}

#[cfg(test)]
mod tests {
    use super::offsets;

    #[test]
    fn rows_are_a_stride_apart() {
        let memory = [0.0f32; 14 * 33];
        for (r, bytes) in offsets::<14>(33).into_iter().enumerate() {
            assert_eq!(memory.as_ptr().wrapping_byte_add(bytes), memory[r * 33..].as_ptr());
        }
    }
}
