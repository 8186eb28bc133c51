//! x·σ(u) and the like: the gates that networks use as activations.
//!
//! Operands are clamped where the result does not change any more, to within 1e-34: so no denominator becomes infinite or
//! subnormal, and neither exponential nor division has to look.

use super::tables::{self, Cubics};
use super::{exp2, poly};
use crate::backend::cpu::simd::Simd;

/// x / (1 + e^-u) for u in [-87, 87].
#[inline(always)]
fn weighed<S: Simd>(s: S, x: S::V, u: S::V) -> S::V {
    // As `exp`, of -u: n = -round(u / ln 2), g = u + n·ln 2, and a fit of e^-g.
    let n = s.round(s.mul(u, s.splat(-std::f32::consts::LOG2_E)));
    let g = s.fma(n, s.splat(-2.121_944_4e-4), s.fma(n, s.splat(0.693_359_4), u));
    let p = poly(s, g, [1.382_073_4e-3, -8.368_677e-3, 4.166_826_6e-2, -0.166_665_21, 0.499_999_94, -1.0, 1.0]);
    s.ratio(x, s.add(s.splat(1.0), s.scale2(p, n)))
}

/// σ(x) = 1 / (1 + e^-x), within 1.2 epsilon; below -87 it is 1.6e-38.
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    weighed(s, s.splat(1.0), s.max(s.splat(-87.0), s.min(s.splat(87.0), x)))
}

/// x·σ(x), within 1.5 epsilon; below -87 it is -1.4e-36.
#[inline(always)]
pub fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.max(s.splat(-87.0), x);
    weighed(s, x, s.min(s.splat(87.0), x))
}

/// x / (1 + 2^u) for u up to 126. Rounding u costs |u| epsilons where the result is small, which a factor makes good.
#[inline(always)]
fn weighed2<S: Simd>(s: S, x: S::V, u: S::V) -> S::V {
    s.ratio(x, s.add(s.splat(1.0), exp2(s, u)))
}

/// x·σ(1.702·x), within 1.2 epsilon of |x|.
#[inline(always)]
pub fn quick_gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.max(s.splat(-51.0), x);
    weighed2(s, x, s.mul(x, s.splat(-2.455_467)))
}

/// max(x, 0) + |x|·z(|x|) for a z in 32 pieces, the last of which is 0. What is small of the result is never a difference.
#[inline(always)]
fn bent<S: Simd>(s: S, x: S::V, z: &Cubics) -> S::V {
    let place = s.min_abs(s.mul(x, s.splat(32.0 / z.end)), s.splat(31.5));
    let f = s.fraction(place);
    let [c0, c1, c2, c3] = s.lookup(z.coefficients.each_ref(), place);
    let p = s.fma(s.fma(s.fma(c3, f, c2), f, c1), f, c0);
    s.fma(place, p, s.max(s.zero(), x))
}

/// x·(1 + erf(x/√2))/2, within 2.2 epsilon of |x|.
#[inline(always)]
pub fn gelu_erf<S: Simd>(s: S, x: S::V) -> S::V {
    if S::IS_ROOMY {
        return bent(s, x, &tables::NORMAL);
    }
    // x·(1/2 + z), where z = erf(x/√2)/2 = x·P(x²)/Q(x²) is the fraction of `erf` with its coefficients scaled. From 5.6 on
    // the fraction is above 1/2, at 5.85 by more than its rounding: there z is 1/2.
    let x = s.max(s.splat(-5.85), x);
    let c = s.min(s.splat(5.85), x);
    let t = s.mul(c, c);
    let p = poly(s, t, [2.238_337_9e-8, 6.290_717_5e-6, 1.682_952_1e-4, 4.673_552_2e-3, 3.386_134e-2, 0.398_942_3]);
    let q = poly(s, t, [1.182_241_4e-6, 7.316_914e-5, 1.881_867_2e-3, 2.863_973e-2, 0.251_544_12, 1.0]);
    let half = s.splat(0.5);
    let z = s.max(s.splat(-0.5), s.min(half, s.ratio(s.mul(c, p), q)));
    s.mul(x, s.add(half, z))
}

/// x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))/2, within 1.6 epsilon of |x|.
#[inline(always)]
pub fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    if S::IS_ROOMY {
        return bent(s, x, &tables::TANH);
    }
    // (1 + tanh v)/2 = σ(2v): the sum would cancel where x is negative. The constants are -2√(2/π)·log2 e and 0.044715 times it.
    let x = s.max(s.splat(-9.8), x);
    let u = s.fma(s.mul(x, x), s.splat(-0.102_943_24), s.splat(-2.302_208_2));
    weighed2(s, x, s.mul(x, u))
}
