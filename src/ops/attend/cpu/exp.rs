//! The exponential function of attention's weights.
//!
//! There are as many of them as scores, so they count next to 2 · head_dim products. AVX-512 has two instructions that do
//! most of the work: out of L1, with the subtraction, the sum and the store around it, 6.8 cycles a vector instead of the 11.8
//! of the general function (8.6 with the exponent added as an integer), against 64 of products with head_dim 64.
#![allow(unsafe_code)] // for the instructions that the vector trait does not have

use crate::backend::cpu::simd::{Isa, Simd, math};

/// 2^x for x < 127, within 1.3 epsilon; below -127 it is 0 or subnormal.
#[inline(always)]
pub fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    if S::ISA == Isa::Avx512 { scaled(s, x) } else { math::exp2(s, x) }
}

#[cfg(not(target_arch = "x86_64"))]
fn scaled<S: Simd>(_: S, x: S::V) -> S::V {
    x
}

/// With AVX-512: 2^x = 2^n · 2^f with f = x - n in [-1/2, 1/2]; the polynomial is a minimax fit with relative error 9.3e-8.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn scaled<S: Simd>(_: S, x: S::V) -> S::V {
    use std::arch::x86_64::*;
    assert!(S::ISA == Isa::Avx512 && size_of::<S::V>() == size_of::<__m512>());
    // SAFETY: a value of such an `S` exists only where the processor has AVX-512 F and DQ, and its vector is `__m512`.
    unsafe {
        let x: __m512 = std::mem::transmute_copy(&x);
        let f = _mm512_reduce_ps::<0>(x);
        let mut p = _mm512_set1_ps(1.326_953_5e-3);
        for c in [9.671_292e-3, 5.550_711e-2, 0.240_222_47, 0.693_147, 1.0] {
            p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
        }
        let y = _mm512_scalef_ps(p, _mm512_sub_ps(x, f));
        std::mem::transmute_copy(&y)
    }
}
