//! Sine and cosine.

use crate::backend::cpu::simd::{MAX_LANES, Simd};

/// Up to here the product of a multiple of π/2 (16 bits) and a part of π/2 (8 bits) is exact.
const LIMIT: f32 = 1e5;

/// π/2 in parts of 8, 8, 8 and 24 bits.
const HALF_PI: [f32; 4] = [1.570_312_5, 4.825_592e-4, 1.266_598_7e-6, 9.920_936e-10];

/// (-1)^n · sin(x - m·π/2).
#[inline(always)]
fn reduced<S: Simd>(s: S, x: S::V, m: S::V, n: S::V) -> S::V {
    let mut r = x;
    for part in HALF_PI {
        r = s.fnma(m, s.splat(part), r);
    }
    // sin r = r + r³·P(r²) on [-π/2, π/2]: relative error 6e-9.
    let t = s.mul(r, r);
    let p = super::poly(s, t, [2.606_081_8e-6, -1.980_977_4e-4, 8.333_069e-3, -0.166_666_6]);
    let y = s.fma(s.mul(r, t), p, r);
    // n - 2·round(n/2) is 0 for even n, ±1 for odd.
    let odd = s.abs(s.fnma(s.round(s.mul(n, s.splat(0.5))), s.splat(2.0), n));
    s.mul(y, s.fnma(odd, s.splat(2.0), s.splat(1.0)))
}

/// Lanes beyond `LIMIT` are computed one by one.
#[inline(always)]
fn mend<S: Simd>(s: S, x: S::V, y: S::V, scalar: fn(f32) -> f32) -> S::V {
    let beyond = s.sum(s.select_lt(s.splat(LIMIT), s.abs(x), s.splat(1.0), s.zero()));
    if beyond == 0.0 { y } else { one_by_one(s, x, y, scalar) }
}

#[cold]
fn one_by_one<S: Simd>(s: S, x: S::V, y: S::V, scalar: fn(f32) -> f32) -> S::V {
    let (mut xs, mut ys) = ([0f32; MAX_LANES], [0f32; MAX_LANES]);
    s.store(x, &mut xs);
    s.store(y, &mut ys);
    for (x, y) in xs.iter().zip(&mut ys) {
        if x.abs() > LIMIT {
            *y = scalar(*x);
        }
    }
    s.load(&ys)
}

/// The sine, within 1.4 epsilon, near its zeros too; of an infinity, NaN.
#[inline(always)]
pub fn sin<S: Simd>(s: S, x: S::V) -> S::V {
    let n = s.round(s.mul(x, s.splat(std::f32::consts::FRAC_1_PI)));
    mend(s, x, reduced(s, x, s.add(n, n), n), f32::sin)
}

/// The cosine, within 3.2 epsilon, near its zeros too; of an infinity, NaN.
#[inline(always)]
pub fn cos<S: Simd>(s: S, x: S::V) -> S::V {
    // cos x = (-1)^(k + 1) · sin(x - (k + 1/2)·π).
    let k = s.round(s.fma(x, s.splat(std::f32::consts::FRAC_1_PI), s.splat(-0.5)));
    let one = s.splat(1.0);
    mend(s, x, reduced(s, x, s.fma(k, s.splat(2.0), one), s.add(k, one)), f32::cos)
}

/// Both, each as exact as alone.
#[inline(always)]
pub fn sin_cos<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    (sin(s, x), cos(s, x))
}
