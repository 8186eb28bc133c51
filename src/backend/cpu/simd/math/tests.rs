//! Every function on every instruction set, over dense grids against f64.

use crate::backend::cpu::simd::*;
use crate::simd_fn;

#[derive(Clone, Copy, Debug, PartialEq)]
enum F {
    Exp2,
    Exp2OfBf16,
    Exp,
    Ln,
    Tanh,
    Erf,
    Sigmoid,
    Silu,
    QuickGelu,
    GeluErf,
    GeluTanh,
    SiluSlope,
    QuickGeluSlope,
    GeluErfSlope,
    GeluTanhSlope,
    Sin,
    Cos,
}
use F::*;

simd_fn! {
    fn map[S](s, f: F, x: &[f32], y: &mut [f32]) {
        for (x, y) in x.chunks(S::LANES).zip(y.chunks_mut(S::LANES)) {
            let v = s.load_part(x);
            let v = match f {
                Exp2 => math::exp2(s, v),
                Exp2OfBf16 => math::exp2_of_bf16(s, v),
                Exp => math::exp(s, v),
                Ln => math::ln(s, v),
                Tanh => math::tanh(s, v),
                Erf => math::erf(s, v),
                Sigmoid => math::sigmoid(s, v),
                Silu => math::silu(s, v),
                QuickGelu => math::quick_gelu(s, v),
                GeluErf => math::gelu_erf(s, v),
                GeluTanh => math::gelu_tanh(s, v),
                SiluSlope => math::silu_slope(s, v),
                QuickGeluSlope => math::quick_gelu_slope(s, v),
                GeluErfSlope => math::gelu_erf_slope(s, v),
                GeluTanhSlope => math::gelu_tanh_slope(s, v),
                Sin => math::sin(s, v),
                Cos => math::cos(s, v),
            };
            s.store_part(v, y);
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// d/dx x·σ(u).
fn slope(x: f64, u: f64, du: f64) -> f64 {
    sigmoid(u) + x * sigmoid(u) * sigmoid(-u) * du
}

fn exact(f: F, x: f64) -> f64 {
    use crate::ops::Real;
    let a = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    match f {
        Exp2 | Exp2OfBf16 => x.exp2(),
        Exp => f64::exp(x),
        Ln => f64::ln(x),
        Tanh => f64::tanh(x),
        Erf => Real::erf(x),
        Sigmoid => sigmoid(x),
        Silu => x * sigmoid(x),
        QuickGelu => x * sigmoid(1.702 * x),
        GeluErf => 0.5 * x * (1.0 + Real::erf(x * 0.5f64.sqrt())),
        GeluTanh => x * sigmoid(a * (x + 0.044715 * x * x * x)),
        SiluSlope => slope(x, x, 1.0),
        QuickGeluSlope => slope(x, 1.702 * x, 1.702),
        GeluErfSlope => {
            0.5 * (1.0 + Real::erf(x * 0.5f64.sqrt())) + x * f64::exp(-0.5 * x * x) / std::f64::consts::TAU.sqrt()
        }
        GeluTanhSlope => slope(x, a * (x + 0.044715 * x * x * x), a * (1.0 + 3.0 * 0.044715 * x * x)),
        Sin => f64::sin(x),
        Cos => f64::cos(x),
    }
}

/// Evenly spaced values, and values of every magnitude from 1e-30 to the ends.
fn grid(low: f32, high: f32) -> Vec<f32> {
    let n = 300_000;
    let even = (0..=n).map(|i| low + (high - low) * (i as f32 / n as f32));
    let magnitudes = (0..20_000).map(|i| 10f32.powf(-30.0 + 36.0 * i as f32 / 20_000.0));
    even.chain(magnitudes.flat_map(|x| [x, -x])).filter(|x| (low..=high).contains(x)).collect()
}

/// What an error is a part of.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Value,
    X,
    One,
}

/// The largest error in units of 2^-23, and where.
fn worst<S: Simd>(s: S, f: F, xs: &[f32], of: Of) -> (f64, f32) {
    let mut ys = vec![0.0; xs.len()];
    map(s, f, xs, &mut ys);
    let mut worst = (0.0, 0.0);
    for (&x, &y) in xs.iter().zip(&ys) {
        let want = exact(f, x as f64);
        let scale = match of {
            Of::Value => want.abs(),
            Of::X => x.abs() as f64,
            Of::One => 1.0,
        };
        let error = (y as f64 - want).abs() / scale.max(1e-37) / f32::EPSILON as f64;
        if error > worst.0 || error.is_nan() {
            worst = (error, x);
        }
    }
    worst
}

fn accuracy<S: Simd>(s: S) {
    let mut found = Vec::new();
    for (f, low, high, of, bound) in [
        (Exp2, -126.0, 127.4, Of::Value, 1.5),
        (Exp2OfBf16, -125.9, 127.4, Of::Value, 630.0),
        (Exp, -86.9, 88.72, Of::Value, 0.8),
        (Ln, 0.0, 1e6, Of::Value, 0.7),
        (Ln, 0.4, 2.1, Of::Value, 0.7),
        (Tanh, -12.0, 12.0, Of::Value, 2.8),
        (Tanh, -1.0, 1.0, Of::Value, 2.8),
        (Erf, -5.0, 5.0, Of::Value, 3.6),
        (Erf, -1.0, 1.0, Of::Value, 3.6),
        (Sigmoid, -86.0, 86.0, Of::Value, 1.2),
        (Sigmoid, -8.0, 8.0, Of::Value, 1.2),
        (Silu, -80.0, 80.0, Of::Value, 1.5),
        (Silu, -8.0, 8.0, Of::Value, 1.5),
        (QuickGelu, -60.0, 60.0, Of::X, 1.2),
        (QuickGelu, -6.0, 6.0, Of::X, 1.2),
        (GeluErf, -60.0, 60.0, Of::X, 2.2),
        (GeluErf, -6.0, 6.0, Of::X, 2.2),
        (GeluTanh, -60.0, 60.0, Of::X, 1.6),
        (GeluTanh, -6.0, 6.0, Of::X, 1.6),
        (SiluSlope, -200.0, 200.0, Of::One, 2.0),
        (QuickGeluSlope, -200.0, 200.0, Of::One, 2.0),
        (GeluErfSlope, -20.0, 20.0, Of::One, 3.0),
        (GeluTanhSlope, -20.0, 20.0, Of::One, 4.0),
        (Sin, -7.0, 7.0, Of::Value, 1.4),
        (Sin, -1e5, 1e5, Of::Value, 1.4),
        (Sin, -1e9, 1e9, Of::Value, 1.4),
        (Cos, -7.0, 7.0, Of::Value, 3.2),
        (Cos, -1e5, 1e5, Of::Value, 3.2),
        (Cos, -1e9, 1e9, Of::Value, 3.2),
    ] {
        let xs: Vec<f32> = grid(low, high).into_iter().filter(|&x| f != Ln || x > 0.0).collect();
        let (error, at) = worst(s, f, &xs, of);
        if error.is_nan() || error > bound {
            found.push(format!("{:?} {f:?}: {error} at {at}", S::ISA));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

fn ends<S: Simd>(s: S) {
    let inf = f32::INFINITY;
    let get = |f: F, x: f32| {
        let mut y = [0.0];
        map(s, f, &[x], &mut y);
        y[0]
    };
    let slopes = [SiluSlope, QuickGeluSlope, GeluErfSlope, GeluTanhSlope];
    for f in [Exp2, Exp2OfBf16, Exp, Ln, Tanh, Erf, Sigmoid, Silu, QuickGelu, GeluErf, GeluTanh, Sin, Cos]
        .into_iter()
        .chain(slopes)
    {
        assert!(get(f, f32::NAN).is_nan());
    }
    // Gates end within 1e-32 of 0.
    let end = |f: F, x: f32| Some(get(f, x)).filter(|y| y.abs() > 1e-32).unwrap_or(0.0);
    for f in slopes {
        assert_eq!([-inf, -1e30, 1e30, inf].map(|x| end(f, x)), [0.0, 0.0, 1.0, 1.0], "{f:?}");
    }
    for (f, low, high) in [
        (Exp2, 0.0, inf),
        (Exp2OfBf16, 0.0, inf),
        (Exp, 0.0, inf),
        (Tanh, -1.0, 1.0),
        (Erf, -1.0, 1.0),
        (Sigmoid, 0.0, 1.0),
        (Silu, 0.0, inf),
        (QuickGelu, 0.0, inf),
        (GeluErf, 0.0, inf),
        (GeluTanh, 0.0, inf),
    ] {
        assert_eq!((end(f, -inf), end(f, inf)), (low, high), "{f:?}");
        let large = if high == inf && !matches!(f, Exp | Exp2 | Exp2OfBf16) { 1e30 } else { high };
        assert_eq!((end(f, -1e30), end(f, 1e30)), (low, large), "{f:?}");
    }
    assert!(get(Sin, inf).is_nan() && get(Cos, -inf).is_nan());
    assert_eq!((get(Ln, 0.0), get(Ln, inf), get(Ln, 1.0)), (-inf, inf, 0.0));
    assert!(get(Ln, -1.0).is_nan() && get(Ln, -inf).is_nan());
    let smallest = f32::from_bits(1);
    assert!((get(Ln, smallest) - (smallest as f64).ln() as f32).abs() < 2e-5);
    for x in grid(-15.0, 15.0) {
        assert!(get(Tanh, x).abs() <= 1.0 && get(Erf, x).abs() <= 1.0, "{x}");
    }
}

/// Calls a function with every instruction set, and with either way to divide.
macro_rules! on_each {
    ($f:ident) => {{
        Portable::detect().into_iter().for_each($f);
        #[cfg(target_arch = "x86_64")]
        {
            Avx2::detect().into_iter().for_each($f);
            Avx512::detect()
                .into_iter()
                .for_each(|s| [false, true].map(|d| s.with_division(d)).into_iter().for_each($f));
        }
    }};
}

#[test]
fn functions_are_as_accurate_as_documented() {
    on_each!(accuracy);
}

#[test]
fn functions_end_where_they_should() {
    on_each!(ends);
}
