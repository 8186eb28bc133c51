//! Transcendental functions on vectors, shared by every op.
//!
//! Errors are the largest ones seen against f64 over the grids of the tests, on all instruction sets: relative, in units
//! of f32's epsilon 2^-23 unless said otherwise. NaN gives NaN. Coefficients are minimax fits (linear least squares,
//! reweighted until the error is level; of the lowest power first, rounded to f32 and the rest fitted again).

mod gates;
mod slopes;
mod tables;
#[cfg(test)]
mod tests;
mod trig;

pub use gates::{gelu_erf, gelu_tanh, quick_gelu, sigmoid, silu};
pub use slopes::{gelu_erf_slope, gelu_tanh_slope, quick_gelu_slope, silu_slope};
pub use trig::{cos, sin, sin_cos};

use super::Simd;

/// Horner's scheme; coefficients from the highest power down.
#[inline(always)]
fn poly<S: Simd, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut p = s.splat(coefficients[0]);
    for c in &coefficients[1..] {
        p = s.fma(p, x, s.splat(*c));
    }
    p
}

/// 2^x, within 1.5 epsilon; below -126 it is 0, from 128 on infinite.
#[inline(always)]
pub fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    let p = if S::IS_ROOMY {
        // 2^x = 2^⌊x⌋ · 2^(j/32) · (1 + f·P(f)) with f in [0, 1/32], where P is a minimax fit with relative error 7e-8.
        let (f, part) = (s.fraction32(x), s.lookup32(&tables::EXP2, x));
        s.fma(s.mul(part, f), poly(s, f, [0.242_651_76, 0.693_123_76]), part)
    } else {
        // 2^x = 2^⌊x⌋ · 2^f with f in [0, 1], and a minimax fit with relative error 2e-9.
        let f = s.fraction(x);
        poly(s, f, [2.156_597_2e-4, 1.248_229e-3, 9.673_775e-3, 5.548_618_4e-2, 2.402_290_8e-1, 6.931_470_6e-1, 1.0])
    };
    s.scale_floor(p, x)
}

/// 2^x for what is rounded to bf16, within 7.5e-5; below -126 it is 0, from 128 on infinite.
#[inline(always)]
pub fn exp2_of_bf16<S: Simd>(s: S, x: S::V) -> S::V {
    // 2^x = 2^⌊x⌋ · 2^f with f in [0, 1], and a minimax fit: two instructions fewer than the other.
    let p = poly(s, s.fraction(x), [0.078_024_566, 0.226_067_2, 0.695_833_44, 0.999_925_26]);
    s.scale_floor(p, x)
}

/// e^x, within 0.8 epsilon; below -86.9 it is 0, above 88.72 infinite.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // n = round(x / ln 2); x - n·ln 2 is taken in two steps (the first constant has ten bits, so its product is exact);
    // a minimax fit of e^f with relative error 3e-9. Scaling by 2^(n-1) and then by 2 keeps the values between 2^127.5
    // and 2^128.
    let x = s.max(s.splat(-87.33), s.min(s.splat(89.4), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let f = s.fnma(n, s.splat(-2.121_944_4e-4), s.fnma(n, s.splat(0.693_359_4), x));
    let p = poly(s, f, [1.382_073_4e-3, 8.368_677e-3, 4.166_826_6e-2, 0.166_665_21, 0.499_999_94, 1.0, 1.0]);
    s.mul(s.scale2(p, s.sub(n, s.splat(1.0))), s.splat(2.0))
}

/// The natural logarithm, within 0.7 epsilon, subnormal numbers included; -infinity at 0, NaN below.
#[inline(always)]
pub fn ln<S: Simd>(s: S, x: S::V) -> S::V {
    // ln x = e·ln 2 + ln(1 + f), with ln(1 + f) = f - f²/2 + f³·P(f) on [1/√2 - 1, √2 - 1]: relative error 6e-9.
    let tiny = s.splat(f32::MIN_POSITIVE);
    let (m, e) = s.split2(s.select_lt(x, tiny, s.mul(x, s.splat(8_388_608.0)), x));
    let e = s.select_lt(x, tiny, s.sub(e, s.splat(23.0)), e);
    let f = s.sub(m, s.splat(1.0));
    let p = poly(
        s,
        f,
        [
            -7.636_439e-2,
            0.127_622_17,
            -0.131_596_1,
            0.142_015_8,
            -0.166_234_09,
            0.200_012_42,
            -0.250_008_2,
            0.333_333_3,
        ],
    );
    let ff = s.mul(f, f);
    let low = s.fma(e, s.splat(-2.121_944_4e-4), s.mul(s.mul(ff, f), p));
    let low = s.fnma(ff, s.splat(0.5), low);
    let y = s.fma(e, s.splat(0.693_359_4), s.add(f, low));
    let zero = s.zero();
    let y = s.select_lt(zero, x, y, s.select_lt(x, zero, s.splat(f32::NAN), s.splat(f32::NEG_INFINITY)));
    // Infinity and NaN are what they were.
    s.select_lt(x, s.splat(f32::INFINITY), y, x)
}

/// The hyperbolic tangent, within 2.8 epsilon; never beyond ±1.
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // |x|·P(x²)/Q(x²) with relative error 2e-8 up to 9.02, from where on the nearest f32 is 1.
    let (a, one) = (s.abs(x), s.splat(1.0));
    let t = s.mul(a, a);
    let p = poly(s, t, [1.331_881_1e-8, 2.058_328_8e-5, 3.494_022_6e-3, 0.133_797_08, 1.0]);
    let q = poly(s, t, [7.761_911e-7, 3.283_073_2e-4, 2.587_103e-2, 0.467_130_24, 1.0]);
    let y = s.min(one, s.ratio(s.mul(a, p), q));
    s.copysign(s.select_lt(s.splat(9.02), a, one, y), x)
}

/// The error function, within 3.6 epsilon; never beyond ±1.
#[inline(always)]
pub fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    // |x|·P(x²)/Q(x²) with relative error 2e-8 up to 3.93, from where on the nearest f32 is 1.
    let (a, one) = (s.abs(x), s.splat(1.0));
    let t = s.mul(a, a);
    let p = poly(
        s,
        t,
        [2.025_912_2e-6, 2.846_853_7e-4, 3.808_086e-3, 5.287_521e-2, 0.191_548_65, std::f32::consts::FRAC_2_SQRT_PI],
    );
    let q = poly(s, t, [3.783_172_4e-5, 1.170_706_2e-3, 1.505_493_7e-2, 0.114_558_92, 0.503_088_24, 1.0]);
    let y = s.min(one, s.ratio(s.mul(a, p), q));
    s.copysign(s.select_lt(s.splat(3.93), a, one, y), x)
}

/// The larger; NaN where either is NaN.
#[inline(always)]
pub fn maximum<S: Simd>(s: S, a: S::V, b: S::V) -> S::V {
    // `max` hands on a NaN in `b` only; where `a` is not below infinity, the sum is infinity or NaN as wanted.
    let m = s.max(a, b);
    s.select_lt(a, s.splat(f32::INFINITY), m, s.add(a, m))
}

/// The smaller; NaN where either is NaN.
#[inline(always)]
pub fn minimum<S: Simd>(s: S, a: S::V, b: S::V) -> S::V {
    let m = s.min(a, b);
    s.select_lt(s.splat(f32::NEG_INFINITY), a, m, s.add(a, m))
}
