//! Derivatives of the gates. Where |x| is beyond the limits σ is 0 or 1 (to within 1e-35), and x is kept at them: products
//! of infinity and zero would be NaN.

use super::{erf, exp, sigmoid};
use crate::backend::cpu::simd::Simd;

/// x, or the limit ±`limit` that it is beyond; NaN stays.
#[inline(always)]
fn within<S: Simd>(s: S, x: S::V, limit: f32) -> S::V {
    s.min(s.splat(limit), s.max(s.splat(-limit), x))
}

/// d/dx x·σ(u) = σ + x·σ·(1 - σ)·u', for σ = σ(u).
#[inline(always)]
fn slope<S: Simd>(s: S, x: S::V, u: S::V, du: S::V) -> S::V {
    let open = sigmoid(s, u);
    // σ(-u), not 1 - σ(u): that would lose the digits that a large x multiplies.
    let curve = s.mul(open, sigmoid(s, s.sub(s.zero(), u)));
    s.fma(s.mul(x, curve), du, open)
}

/// The derivative of x·σ(x), within 2 epsilon of 1.
#[inline(always)]
pub fn silu_slope<S: Simd>(s: S, x: S::V) -> S::V {
    let x = within(s, x, 100.0);
    slope(s, x, x, s.splat(1.0))
}

/// The derivative of x·σ(1.702·x), within 2 epsilon of 1.
#[inline(always)]
pub fn quick_gelu_slope<S: Simd>(s: S, x: S::V) -> S::V {
    let (x, factor) = (within(s, x, 100.0), s.splat(1.702));
    slope(s, x, s.mul(x, factor), factor)
}

/// The derivative of x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))/2, within 4 epsilon of 1.
#[inline(always)]
pub fn gelu_tanh_slope<S: Simd>(s: S, x: S::V) -> S::V {
    // As in `gelu_tanh`: σ(u) with u = a·x + b·x³, so u' = a + 3b·x².
    let x = within(s, x, 100.0);
    let (xx, a) = (s.mul(x, x), s.splat(1.595_769));
    let u = s.mul(x, s.fma(xx, s.splat(0.071_354_814), a));
    slope(s, x, u, s.fma(xx, s.splat(0.214_064_44), a))
}

/// The derivative of x·(1 + erf(x/√2))/2, within 3 epsilon of 1.
#[inline(always)]
pub fn gelu_erf_slope<S: Simd>(s: S, x: S::V) -> S::V {
    // Φ(x) + x·φ(x), the normal distribution and its density.
    let x = within(s, x, 100.0);
    let half = s.splat(0.5);
    let below = s.fma(half, erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), half);
    let density = s.mul(exp(s, s.mul(s.mul(x, x), s.splat(-0.5))), s.splat(0.398_942_3));
    s.fma(x, density, below)
}
