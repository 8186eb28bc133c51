//! The number types that references compute in: f64, the oracle, and f32, the plain computation that sets tolerances.

use crate::dtype::DType;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// A floating-point type with the functions that references need.
pub trait Real:
    Copy
    + PartialOrd
    + Default
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + Send
    + Sync
    + 'static
{
    fn of(x: f64) -> Self;
    fn to_f64(self) -> f64;
    /// Where a problem's definition rounds an intermediate value to a dtype, the plain computation rounds too; the
    /// oracle does not.
    fn rounded(self, dtype: DType) -> Self;
    /// As [`rounded`](Real::rounded), where values are rounded to integers times a factor that they share: the largest
    /// magnitude over 127·254.
    fn rounded_together(values: &mut [Self]);
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn sqrt(self) -> Self;
    fn tanh(self) -> Self;
    fn erf(self) -> Self;
    fn sin(self) -> Self;
    fn cos(self) -> Self;
    fn abs(self) -> Self;

    /// The larger; the other where one is NaN.
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

impl Real for f64 {
    fn of(x: f64) -> f64 {
        x
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn rounded(self, _: DType) -> f64 {
        self
    }
    fn rounded_together(_: &mut [f64]) {}
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    fn erf(self) -> f64 {
        erf(self)
    }
    fn sin(self) -> f64 {
        f64::sin(self)
    }
    fn cos(self) -> f64 {
        f64::cos(self)
    }
    fn abs(self) -> f64 {
        f64::abs(self)
    }
}

impl Real for f32 {
    fn of(x: f64) -> f32 {
        x as f32
    }
    fn to_f64(self) -> f64 {
        self as f64
    }
    fn rounded(self, dtype: DType) -> f32 {
        match dtype {
            DType::F16 => half::f16::from_f32(self).to_f32(),
            DType::BF16 => half::bf16::from_f32(self).to_f32(),
            _ => self,
        }
    }
    fn rounded_together(values: &mut [f32]) {
        let factor = values.iter().fold(0f32, |m, x| m.max(x.abs())) / (127.0 * 254.0);
        if factor > 0.0 {
            values.iter_mut().for_each(|x| *x = (*x / factor).round_ties_even() * factor);
        }
    }
    fn exp(self) -> f32 {
        f32::exp(self)
    }
    fn ln(self) -> f32 {
        f32::ln(self)
    }
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    fn tanh(self) -> f32 {
        f32::tanh(self)
    }
    fn erf(self) -> f32 {
        erf(self as f64) as f32
    }
    fn sin(self) -> f32 {
        f32::sin(self)
    }
    fn cos(self) -> f32 {
        f32::cos(self)
    }
    fn abs(self) -> f32 {
        f32::abs(self)
    }
}

/// The error function: its Maclaurin series up to 3, beyond that the continued fraction of erfc (Abramowitz and
/// Stegun 7.1.6 and 7.1.14). Absolute error under 1e-15.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    let two_over_root_pi = std::f64::consts::FRAC_2_SQRT_PI;
    if a < 3.0 {
        // erf x = 2/√π · e^(-x²) · Σ 2^n x^(2n+1) / (1·3·…·(2n+1)): all terms positive.
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term > sum * 1e-17 {
            n += 1.0;
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
        }
        return (two_over_root_pi * (-a * a).exp() * sum).copysign(x);
    }
    let mut tail = 0.0;
    for n in (1..=60).rev() {
        tail = n as f64 / 2.0 / (a + tail);
    }
    let erfc = (-a * a).exp() * two_over_root_pi / 2.0 / (a + tail);
    (1.0 - erfc).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::erf;

    #[test]
    fn erf_agrees_with_published_values() {
        // Abramowitz and Stegun, table 7.1.
        for (x, want) in [
            (0.0, 0.0),
            (0.1, 0.1124629160),
            (0.5, 0.5204998778),
            (1.0, 0.8427007929),
            (2.0, 0.9953222650),
            (3.5, 0.9999992569),
            (6.0, 1.0),
        ] {
            assert!((erf(x) - want).abs() < 2e-9, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
    }
}
