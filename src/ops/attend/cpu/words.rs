//! What the register tiles of attention multiply: words of 32 bits that hold one f32, or two bf16.
//!
//! Words of bf16 are handled as f32 vectors that are only moved, never calculated with. Two values that make a word are
//! neighbours in the sum of a product: two columns of queries and keys, two keys of weights and values, two queries of slopes and
//! queries.

use super::{PANEL, widen};
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::simd::{Avx512, Bf16Dot, pack_pairs};
use crate::backend::cpu::simd::{Lane, Simd};
#[cfg(target_arch = "x86_64")]
use crate::dtype::DType;
#[cfg(target_arch = "x86_64")]
use half::bf16;

/// How operands of products are kept, and how they are multiplied.
pub trait Words<S: Simd>: Copy + Send + Sync {
    /// Values of a word: 1 or 2.
    const VALUES: usize;

    /// `c + a · b`, summed over the values of each lane's words.
    fn fma(self, s: S, a: S::V, b: S::V, c: S::V) -> S::V;

    /// The words of a row, whose last is filled up with 0.
    fn of_row<T: Lane>(self, s: S, row: &[T], to: &mut [f32]);

    /// For each of `LANES` columns the word of `VALUES` rows' values there.
    fn of_columns<T: Lane>(self, s: S, rows: [&[T]; 2]) -> S::V;

    /// For each lane the word of `VALUES` vectors.
    fn of_vectors(self, s: S, vectors: [S::V; 2]) -> S::V;

    /// Writes the words of neighbouring lanes: `LANES / VALUES` of them.
    fn store_row(self, s: S, row: S::V, to: &mut [f32]);
}

/// Words of one f32.
#[derive(Clone, Copy)]
pub struct Single;

impl<S: Simd> Words<S> for Single {
    const VALUES: usize = 1;

    #[inline(always)]
    fn fma(self, s: S, a: S::V, b: S::V, c: S::V) -> S::V {
        s.fma(a, b, c)
    }
    #[inline(always)]
    fn of_row<T: Lane>(self, s: S, row: &[T], to: &mut [f32]) {
        widen(s, row, 1.0, to);
    }
    #[inline(always)]
    fn of_columns<T: Lane>(self, s: S, rows: [&[T]; 2]) -> S::V {
        T::load(s, rows[0])
    }
    #[inline(always)]
    fn of_vectors(self, _: S, vectors: [S::V; 2]) -> S::V {
        vectors[0]
    }
    #[inline(always)]
    fn store_row(self, s: S, row: S::V, to: &mut [f32]) {
        s.store(row, to);
    }
}

/// Words of two bf16, the first in the lower half; what is not bf16 is rounded.
#[cfg(target_arch = "x86_64")]
impl Words<Avx512> for Bf16Dot {
    const VALUES: usize = 2;

    #[inline(always)]
    fn fma(self, _: Avx512, a: V, b: V, c: V) -> V {
        self.multiply_add(a, b, c)
    }
    #[inline(always)]
    fn of_row<T: Lane>(self, s: Avx512, row: &[T], to: &mut [f32]) {
        if T::DTYPE == DType::BF16 {
            pack_pairs(bytemuck::cast_slice(row), bytemuck::cast_slice_mut(to));
            return;
        }
        let to: &mut [bf16] = bytemuck::cast_slice_mut(to);
        for (row, to) in row.chunks(PANEL).zip(to.chunks_mut(PANEL)) {
            // Lanes beyond the row's end are 0, which fills its last word up.
            let mut rounded = [bf16::ZERO; PANEL];
            self.round(T::load_part(s, row), &mut rounded);
            to.copy_from_slice(&rounded[..to.len()]);
        }
    }
    #[inline(always)]
    fn of_columns<T: Lane>(self, s: Avx512, rows: [&[T]; 2]) -> V {
        match T::DTYPE {
            DType::BF16 => self.interleave(rows.map(|row| bytemuck::cast_slice(&row[..PANEL]))),
            _ => self.round_and_interleave(rows.map(|row| T::load(s, row))),
        }
    }
    #[inline(always)]
    fn of_vectors(self, _: Avx512, vectors: [V; 2]) -> V {
        self.round_and_interleave(vectors)
    }
    #[inline(always)]
    fn store_row(self, _: Avx512, row: V, to: &mut [f32]) {
        self.round(row, bytemuck::cast_slice_mut(to));
    }
}

#[cfg(target_arch = "x86_64")]
type V = <Avx512 as Simd>::V;
