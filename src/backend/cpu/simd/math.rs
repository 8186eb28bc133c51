//! Transcendental functions on vectors, shared by every op. Errors are the largest ones seen against f64 (see the
//! tests): relative, in units of f32's epsilon 2^-23 unless said otherwise. NaN gives NaN.

use super::Simd;

/// 2^x, within 1 epsilon; below -126.5 it is 0, above 127.5 it is infinite.
#[inline(always)]
pub fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    // 2^x = 2^n · 2^f with n = round(x) and f in [-1/2, 1/2]; the polynomial is a minimax fit of 2^f with relative
    // error 2e-9. The exponent fields of n = -127 and n = 128 are those of zero and of infinity.
    let x = s.max(s.splat(-127.0), s.min(s.splat(128.0), x));
    let n = s.round(x);
    let f = s.sub(x, n);
    let mut p = s.splat(1.534_581_2e-4);
    for c in [1.339_993_1e-3, 9.618_489e-3, 5.550_328_6e-2, 2.402_264_6e-1, 6.931_472e-1, 1.0] {
        p = s.fma(p, f, s.splat(c));
    }
    s.scale2(p, n)
}

#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut p = s.splat(coefficients[0]);
    for c in &coefficients[1..] {
        p = s.fma(p, x, s.splat(*c));
    }
    p
}

/// e^x, within 2 epsilon; 0 below -87.7, infinite above 88.3.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // e^x = 2^n · e^r with n = round(x·log2 e) and r = x - n·ln 2, ln 2 in two parts so that r is exact.
    let x = s.max(s.splat(-100.0), s.min(s.splat(100.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let n = s.max(s.splat(-127.0), s.min(s.splat(128.0), n));
    let r = s.fnma(n, s.splat(0.693_359_4), x);
    let r = s.fnma(n, s.splat(-2.121_944_4e-4), r);
    let fraction = exp2(s, s.mul(r, s.splat(std::f32::consts::LOG2_E)));
    s.scale2(fraction, n)
}

/// ln x, within 2 epsilon (absolute near 1); -∞ for 0 and subnormals, NaN for negative x.
#[inline(always)]
pub fn ln<S: Simd>(s: S, x: S::V) -> S::V {
    // ln x = e·ln 2 + 2·artanh(t) with x = m·2^e and t = (m - 1)/(m + 1), |t| < 0.172.
    let (m, e) = s.split2(x);
    let one = s.splat(1.0);
    let t = s.div(s.sub(m, one), s.add(m, one));
    let u = s.mul(t, t);
    let series = polynomial(s, u, [2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0]);
    let small = s.fma(s.mul(series, u), t, s.add(t, t));
    let y = s.fma(e, s.splat(0.693_359_4), s.fma(e, s.splat(-2.121_944_4e-4), small));
    let y = s.select_lt(s.splat(f32::MAX), x, x, y);
    let y = s.select_lt(x, s.splat(f32::MIN_POSITIVE), s.splat(f32::NEG_INFINITY), y);
    let y = s.select_lt(x, s.zero(), s.splat(f32::NAN), y);
    nan_of(s, x, y)
}

/// NaN where x is NaN, else y.
#[inline(always)]
fn nan_of<S: Simd>(s: S, x: S::V, y: S::V) -> S::V {
    // max hands on its second operand where either is NaN.
    let either = s.max(s.splat(f32::NEG_INFINITY), x);
    let zero = s.mul(s.max(s.splat(-1.0), s.min(s.splat(1.0), either)), s.zero());
    s.add(y, zero)
}

/// 1 / (1 + e^-x), within 3 epsilon above -87.
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.zero(), x))))
}

/// tanh x, within 3 epsilon.
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // Below 0.625 a minimax polynomial of (tanh x / x - 1)/x², relative error 4e-9; above, 1 - 2/(e^2x + 1).
    let a = s.abs(x);
    let u = s.mul(x, x);
    let p = polynomial(s, u, [-5.717_042e-3, 2.065_058_4e-2, -5.374_349_7e-2, 1.333_149_1e-1, -3.333_328_4e-1]);
    let small = s.fma(s.mul(p, u), x, x);
    let one = s.splat(1.0);
    let e = exp(s, s.add(a, a));
    let large = s.copysign(s.sub(one, s.div(s.splat(2.0), s.add(e, one))), x);
    nan_of(s, x, s.select_lt(a, s.splat(0.625), small, large))
}

/// For z: (erf z for |z| < 1, erfc |z| for |z| ≥ 1); each lane's other value means nothing.
#[inline(always)]
fn erf_parts<S: Simd>(s: S, z: S::V) -> (S::V, S::V) {
    // erf z / z as a minimax polynomial in z², relative error 1.2e-9; -log2 erfc as one in z on [1, 4], error 1.7e-8.
    let (a, u) = (s.min(s.splat(4.0), s.abs(z)), s.mul(z, z));
    let small = [
        7.853_879e-5,
        -8.010_2e-4,
        5.188_328_7e-3,
        -2.685_381_3e-2,
        1.128_358_5e-1,
        -3.761_262_6e-1,
        std::f32::consts::FRAC_2_SQRT_PI,
    ];
    let large = [
        -2.309_088_8e-6,
        6.537_33e-5,
        -8.516_826e-4,
        6.821_623e-3,
        -3.798_571_6e-2,
        1.585_722_6e-1,
        9.117_956e-1,
        1.630_422_7,
        -4.211_39e-4,
    ];
    let q = polynomial(s, a, large);
    (s.mul(z, polynomial(s, u, small)), exp2(s, s.sub(s.zero(), q)))
}

/// erf x, within 3 epsilon.
#[inline(always)]
pub fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    let (small, tail) = erf_parts(s, x);
    let one = s.splat(1.0);
    nan_of(s, x, s.select_lt(s.abs(x), one, small, s.copysign(s.sub(one, tail), x)))
}

/// x/2 · (1 + erf(x/√2)), within 1e-7 · max(|x|, 1) absolutely.
#[inline(always)]
pub fn gelu_erf<S: Simd>(s: S, x: S::V) -> S::V {
    // For z ≤ -1 the sum 1 + erf z is erfc |z| itself, without cancellation.
    let z = s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2));
    let (small, tail) = erf_parts(s, z);
    let (one, two) = (s.splat(1.0), s.splat(2.0));
    let far = s.select_lt(z, s.zero(), tail, s.sub(two, tail));
    let sum = s.select_lt(s.abs(z), one, s.add(one, small), far);
    s.mul(s.mul(x, s.splat(0.5)), sum)
}

/// x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³))) = x · σ(2·√(2/π)·(x + 0.044715·x³)).
#[inline(always)]
pub fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    let cubic = s.fma(s.mul(s.mul(x, x), x), s.splat(0.044_715), x);
    s.mul(x, sigmoid(s, s.mul(cubic, s.splat(1.595_769))))
}

/// x · σ(1.702·x).
#[inline(always)]
pub fn quick_gelu<S: Simd>(s: S, x: S::V) -> S::V {
    s.mul(x, sigmoid(s, s.mul(x, s.splat(1.702))))
}

/// x · σ(x).
#[inline(always)]
pub fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    s.mul(x, sigmoid(s, x))
}

/// (sin x, cos x), within 1e-7 absolutely for |x| up to 10^5; less exact beyond.
#[inline(always)]
pub fn sin_cos<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    // x = n·π/2 + r with |r| ≤ π/4, π/2 in three parts (Cody and Waite), then minimax polynomials in r², and the
    // quadrant n mod 4.
    let n = s.round(s.mul(x, s.splat(std::f32::consts::FRAC_2_PI)));
    let r = s.fnma(n, s.splat(1.570_312_5), x);
    let r = s.fnma(n, s.splat(4.837_513e-4), r);
    let r = s.fnma(n, s.splat(7.549_79e-8), r);
    let u = s.mul(r, r);
    let p = polynomial(s, u, [-1.951_729_8e-4, 8.332_178e-3, -1.666_665_5e-1]);
    let sine = s.fma(s.mul(p, u), r, r);
    let p = polynomial(s, u, [2.443_845e-5, -1.388_736_8e-3, 4.166_664_6e-2]);
    let cosine = s.fma(s.mul(p, u), u, s.fnma(u, s.splat(0.5), s.splat(1.0)));
    let quarter = s.round(s.fma(n, s.splat(0.25), s.splat(-0.375)));
    let quadrant = s.fnma(quarter, s.splat(4.0), n);
    let minus = |v| s.sub(s.zero(), v);
    // Quadrants 0 to 3: sin is s, c, -s, -c and cos is c, -s, -c, s.
    let pick = |q: S::V, of: [S::V; 4]| {
        let low = s.select_lt(q, s.splat(0.5), of[0], of[1]);
        let high = s.select_lt(q, s.splat(2.5), of[2], of[3]);
        s.select_lt(q, s.splat(1.5), low, high)
    };
    (
        pick(quadrant, [sine, cosine, minus(sine), minus(cosine)]),
        pick(quadrant, [cosine, minus(sine), minus(cosine), sine]),
    )
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;
    use crate::ops::Real;

    /// The largest error over a grid, relative to max(|f|, floor).
    fn worst<S: Simd>(range: [f32; 2], floor: f64, f: impl Fn(S, S::V) -> S::V, want: impl Fn(f64) -> f64) -> f64 {
        let Some(s) = S::detect() else { return 0.0 };
        let mut out = vec![0f32; S::LANES];
        let count = 40_001;
        (0..count)
            .map(|i| {
                let x = range[0] + (range[1] - range[0]) * i as f32 / (count - 1) as f32;
                s.store(f(s, s.splat(x)), &mut out);
                let want = want(x as f64);
                (out[0] as f64 - want).abs() / want.abs().max(floor)
            })
            .fold(0.0, f64::max)
    }

    fn check<S: Simd>() {
        let tiny = 1e-37;
        let within = |name: &str, have: f64, want: f64| assert!(have < want, "{name} on {}: {have:e}", S::ISA.name());
        within("exp2", worst::<S>([-126.0, 127.0], tiny, exp2, f64::exp2), 1.3e-7);
        within("exp", worst::<S>([-87.0, 88.0], tiny, exp, f64::exp), 2.5e-7);
        within("ln", worst::<S>([1e-3, 9.0], 0.5, ln, f64::ln), 2.5e-7);
        within("tanh", worst::<S>([-10.0, 10.0], tiny, tanh, f64::tanh), 4e-7);
        within("erf", worst::<S>([-5.0, 5.0], tiny, erf, Real::erf), 4e-7);
        within("sigmoid", worst::<S>([-80.0, 80.0], tiny, sigmoid, |x| 1.0 / (1.0 + (-x).exp())), 4e-7);
        let gelu = |x: f64| x / 2.0 * (1.0 + Real::erf(x * std::f64::consts::FRAC_1_SQRT_2));
        within("gelu", worst::<S>([-7.0, 7.0], 1.0, gelu_erf, gelu), 3e-7);
        within("sin", worst::<S>([-1000.0, 1000.0], 1.0, |s, x| sin_cos(s, x).0, f64::sin), 2.5e-7);
        within("cos", worst::<S>([-1000.0, 1000.0], 1.0, |s, x| sin_cos(s, x).1, f64::cos), 2.5e-7);
        let Some(s) = S::detect() else { return };
        let one = |f: &dyn Fn(S::V) -> S::V, x: f32| {
            let mut out = vec![0f32; S::LANES];
            s.store(f(s.splat(x)), &mut out);
            out[0]
        };
        let functions: [&dyn Fn(S::V) -> S::V; 7] = [
            &|x| exp2(s, x),
            &|x| exp(s, x),
            &|x| ln(s, x),
            &|x| tanh(s, x),
            &|x| erf(s, x),
            &|x| gelu_erf(s, x),
            &|x| sin_cos(s, x).0,
        ];
        for f in functions {
            assert!(one(f, f32::NAN).is_nan());
        }
        assert_eq!(one(functions[0], f32::NEG_INFINITY), 0.0);
        assert_eq!(one(functions[1], f32::INFINITY), f32::INFINITY);
        assert_eq!(one(functions[1], f32::NEG_INFINITY), 0.0);
        assert_eq!(one(functions[2], 0.0), f32::NEG_INFINITY);
        assert_eq!(one(functions[2], f32::INFINITY), f32::INFINITY);
        assert!(one(functions[2], -1.0).is_nan());
        assert_eq!(one(functions[3], f32::NEG_INFINITY), -1.0);
        assert_eq!(one(functions[4], f32::INFINITY), 1.0);
    }

    #[test]
    fn functions_are_as_exact_as_they_say() {
        check::<Portable>();
        #[cfg(target_arch = "x86_64")]
        {
            check::<Avx2>();
            check::<Avx512>();
        }
    }
}
