//! What the register tiles of attention multiply: words of 32 bits that hold one f32, or two bf16.
//!
//! Words of bf16 are handled as f32 vectors that are only moved, never calculated with. Two values that make a word are
//! neighbours in the sum of a product: two columns of queries and keys, two keys of weights and values.

use super::{PANEL, widen};
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::simd::{Avx512, Bf16Dot, pack_pairs};
use crate::backend::cpu::simd::{Lane, Simd, math};

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

    /// Weights of `VALUES` keys, one after the other in vectors, as words.
    fn of_weights(self, s: S, weights: [S::V; 2]) -> S::V;

    /// 2^x, as exactly as words can hold it.
    fn exp2(self, s: S, x: S::V) -> S::V;
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
    fn of_weights(self, _: S, weights: [S::V; 2]) -> S::V {
        weights[0]
    }
    #[inline(always)]
    fn exp2(self, s: S, x: S::V) -> S::V {
        math::exp2(s, x)
    }
}

/// Words of two bf16, the first in the lower half; operands are bf16.
#[cfg(target_arch = "x86_64")]
impl Words<Avx512> for Bf16Dot {
    const VALUES: usize = 2;

    #[inline(always)]
    fn fma(self, _: Avx512, a: V, b: V, c: V) -> V {
        self.multiply_add(a, b, c)
    }
    #[inline(always)]
    fn of_row<T: Lane>(self, _: Avx512, row: &[T], to: &mut [f32]) {
        pack_pairs(bytemuck::cast_slice(row), bytemuck::cast_slice_mut(to));
    }
    #[inline(always)]
    fn of_columns<T: Lane>(self, _: Avx512, rows: [&[T]; 2]) -> V {
        self.interleave(rows.map(|row| bytemuck::cast_slice(&row[..PANEL])))
    }
    #[inline(always)]
    fn of_weights(self, _: Avx512, weights: [V; 2]) -> V {
        self.round_and_interleave(weights)
    }
    #[inline(always)]
    fn exp2(self, s: Avx512, x: V) -> V {
        math::exp2_short(s, x)
    }
}

#[cfg(target_arch = "x86_64")]
type V = <Avx512 as Simd>::V;
