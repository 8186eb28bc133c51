//! Several vectors as one: a function written for one vector, called with these, works on `K` at a time.
//!
//! A polynomial is a chain of products that wait for each other, and a processor looks only so far ahead (about 100
//! instructions that wait) for something else to do: three or four vectors' worth. Written side by side, chains fill the
//! units by themselves.

#![allow(clippy::needless_range_loop)] // numbers of vectors are also places in slices

use super::{Isa, Simd};
use half::{bf16, f16};

/// `K` vectors of `S`, in whole: parts of a vector and elements of bytes are for `S`.
#[derive(Clone, Copy, Debug)]
pub struct Wide<S, const K: usize>(pub S);

/// `K` times an expression of the vector's number. (A closure might not be inlined, and then lack the instruction set.)
macro_rules! each {
    ($s:ident, |$i:ident| $e:expr) => {{
        let mut all = [$s.0.zero(); K];
        for $i in 0..K {
            all[$i] = $e;
        }
        all
    }};
}

macro_rules! lift {
    ($($name:ident($($a:ident),+);)+) => {$(
        #[inline(always)]
        fn $name(self $(, $a: Self::V)+) -> Self::V {
            each!(self, |i| self.0.$name($($a[i]),+))
        }
    )+};
}

impl<S: Simd, const K: usize> Simd for Wide<S, K> {
    const ISA: Isa = S::ISA;
    const LANES: usize = K * S::LANES;
    type V = [S::V; K];

    fn detect() -> Option<Self> {
        S::detect().map(Wide)
    }
    #[inline(always)]
    fn exact(self) -> Self {
        Wide(self.0.exact())
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [self.0.splat(x); K]
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::V {
        let x = &x[..Self::LANES];
        each!(self, |i| self.0.load(&x[i * S::LANES..]))
    }
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> Self::V {
        each!(self, |i| self.0.load_part(&x[(i * S::LANES).min(x.len())..((i + 1) * S::LANES).min(x.len())]))
    }
    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32]) {
        let to = &mut to[..Self::LANES];
        for i in 0..K {
            self.0.store(v[i], &mut to[i * S::LANES..]);
        }
    }
    #[inline(always)]
    fn stream(self, v: Self::V, to: &mut [f32]) {
        let to = &mut to[..Self::LANES];
        for i in 0..K {
            self.0.stream(v[i], &mut to[i * S::LANES..]);
        }
    }
    #[inline(always)]
    fn store_part(self, v: Self::V, to: &mut [f32]) {
        let len = to.len();
        for i in 0..K {
            self.0.store_part(v[i], &mut to[(i * S::LANES).min(len)..((i + 1) * S::LANES).min(len)]);
        }
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16]) -> Self::V {
        let x = &x[..Self::LANES];
        each!(self, |i| self.0.load_f16(&x[i * S::LANES..]))
    }
    #[inline(always)]
    fn store_f16(self, v: Self::V, to: &mut [f16]) {
        let to = &mut to[..Self::LANES];
        for i in 0..K {
            self.0.store_f16(v[i], &mut to[i * S::LANES..]);
        }
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16]) -> Self::V {
        let x = &x[..Self::LANES];
        each!(self, |i| self.0.load_bf16(&x[i * S::LANES..]))
    }
    #[inline(always)]
    fn load_bf16_pairs(self, x: &[bf16]) -> [Self::V; 2] {
        let x = &x[..2 * Self::LANES];
        let mut halves = [[self.0.zero(); K]; 2];
        for i in 0..K {
            [halves[0][i], halves[1][i]] = self.0.load_bf16_pairs(&x[2 * i * S::LANES..]);
        }
        halves
    }
    #[inline(always)]
    fn store_bf16(self, v: Self::V, to: &mut [bf16]) {
        let to = &mut to[..Self::LANES];
        for i in (0..K).step_by(2) {
            let to = &mut to[i * S::LANES..];
            match i + 1 < K {
                true => self.0.store_two_bf16([v[i], v[i + 1]], to),
                false => self.0.store_bf16(v[i], to),
            }
        }
    }
    #[inline(always)]
    fn stream_bf16(self, v: Self::V, to: &mut [bf16]) {
        let to = &mut to[..Self::LANES];
        for i in (0..K).step_by(2) {
            let to = &mut to[i * S::LANES..];
            match i + 1 < K {
                true => self.0.stream_two_bf16([v[i], v[i + 1]], to),
                false => self.0.stream_bf16(v[i], to),
            }
        }
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8]) -> Self::V {
        let x = &x[..Self::LANES];
        each!(self, |i| self.0.load_u8(&x[i * S::LANES..]))
    }
    lift! {
        add(a, b);
        sub(a, b);
        mul(a, b);
        div(a, b);
        ratio(a, b);
        fma(a, b, c);
        fnma(a, b, c);
        max(a, b);
        min(a, b);
        sqrt(a);
        abs(a);
        min_abs(a, b);
        copysign(magnitude, sign);
        round(a);
        fraction(a);
        fraction32(a);
        scale2(p, n);
        scale_floor(p, a);
        select_lt(a, b, yes, no);
        swap_pairs(a);
    }
    #[inline(always)]
    fn lookup<const N: usize>(self, tables: [&[f32; 32]; N], a: Self::V) -> [Self::V; N] {
        let mut values = [a; N];
        for i in 0..K {
            let found = self.0.lookup(tables, a[i]);
            for t in 0..N {
                values[t][i] = found[t];
            }
        }
        values
    }
    #[inline(always)]
    fn lookup32(self, table: &[f32; 32], a: Self::V) -> Self::V {
        each!(self, |i| self.0.lookup32(table, a[i]))
    }
    #[inline(always)]
    fn split2(self, a: Self::V) -> (Self::V, Self::V) {
        let (mut m, mut e) = (a, a);
        for i in 0..K {
            (m[i], e[i]) = self.0.split2(a[i]);
        }
        (m, e)
    }
    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        let mut all = a[0];
        for a in &a[1..] {
            all = self.0.add(all, *a);
        }
        self.0.sum(all)
    }
    #[inline(always)]
    fn max_lane(self, a: Self::V) -> f32 {
        let mut all = a[0];
        for a in &a[1..] {
            all = self.0.max(all, *a);
        }
        self.0.max_lane(all)
    }
}
