//! x·σ(u) and the like: the gates that networks use as activations.

use super::{erf, exp};
use crate::backend::cpu::simd::Simd;

/// σ(x) = 1 / (1 + e^-x), within 1.2 epsilon; below -88.72 it is 0.
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.zero(), x))))
}

/// x·σ(u). Where x is very negative σ is 0, and x is kept from being infinite there, whose product would be NaN.
#[inline(always)]
fn gate<S: Simd>(s: S, x: S::V, u: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(s.max(s.splat(-1e30), x), s.add(one, exp(s, s.sub(s.zero(), u))))
}

/// x·σ(x), within 1.3 epsilon.
#[inline(always)]
pub fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    gate(s, x, x)
}

/// x·σ(1.702·x), within 1 epsilon of |x|.
#[inline(always)]
pub fn quick_gelu<S: Simd>(s: S, x: S::V) -> S::V {
    gate(s, x, s.mul(x, s.splat(1.702)))
}

/// x·(1 + erf(x/√2))/2, within 2.1 epsilon of |x|.
#[inline(always)]
pub fn gelu_erf<S: Simd>(s: S, x: S::V) -> S::V {
    let e = erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    let half = s.mul(s.max(s.splat(-1e30), x), s.splat(0.5));
    s.fma(half, e, half)
}

/// x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))/2, within 1.1 epsilon of |x|.
#[inline(always)]
pub fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // (1 + tanh v)/2 = σ(2v): the sum would cancel where x is negative. The constants are 2√(2/π) and 0.044715 times it.
    let u = s.fma(s.mul(x, x), s.splat(0.071_354_814), s.splat(1.595_769));
    gate(s, x, s.mul(x, u))
}
