//! Eight lanes in plain Rust, which the compiler turns into whatever vectors the target's baseline has.

use super::{Isa, Simd};
use half::{bf16, f16};

/// Works everywhere.
#[derive(Clone, Copy, Debug)]
pub struct Portable(());

const N: usize = 8;
/// Adding and subtracting 1.5·2^23 rounds to an integer.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
fn map(a: [f32; N], f: impl Fn(f32) -> f32) -> [f32; N] {
    std::array::from_fn(|i| f(a[i]))
}

#[inline(always)]
fn zip(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    const ISA: Isa = Isa::Portable;
    const LANES: usize = N;
    type V = [f32; N];

    #[inline(always)]
    fn detect() -> Option<Self> {
        Some(Portable(()))
    }
    #[inline(always)]
    fn splat(self, x: f32) -> [f32; N] {
        [x; N]
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> [f32; N] {
        let x = &x[..N];
        std::array::from_fn(|i| x[i])
    }
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> [f32; N] {
        let mut v = [0.0; N];
        v[..x.len()].copy_from_slice(x);
        v
    }
    #[inline(always)]
    fn store(self, v: [f32; N], to: &mut [f32]) {
        to[..N].copy_from_slice(&v);
    }
    #[inline(always)]
    fn store_part(self, v: [f32; N], to: &mut [f32]) {
        to.copy_from_slice(&v[..to.len()]);
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16]) -> [f32; N] {
        let x = &x[..N];
        std::array::from_fn(|i| x[i].to_f32())
    }
    #[inline(always)]
    fn store_f16(self, v: [f32; N], to: &mut [f16]) {
        for (t, x) in to[..N].iter_mut().zip(v) {
            *t = f16::from_f32(x);
        }
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16]) -> [f32; N] {
        let x = &x[..N];
        std::array::from_fn(|i| f32::from_bits((x[i].to_bits() as u32) << 16))
    }
    #[inline(always)]
    fn load_bf16_pairs(self, x: &[bf16]) -> [[f32; N]; 2] {
        let x = &x[..2 * N];
        [0, 1].map(|odd| std::array::from_fn(|i| f32::from_bits((x[2 * i + odd].to_bits() as u32) << 16)))
    }
    #[inline(always)]
    fn store_bf16(self, v: [f32; N], to: &mut [bf16]) {
        for (t, x) in to[..N].iter_mut().zip(v) {
            *t = bf16::from_f32(x);
        }
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8]) -> [f32; N] {
        let x = &x[..N];
        std::array::from_fn(|i| x[i] as f32)
    }
    #[inline(always)]
    fn add(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn fnma(self, a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        std::array::from_fn(|i| c[i] - a[i] * b[i])
    }
    #[inline(always)]
    fn max(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self, a: [f32; N]) -> [f32; N] {
        map(a, f32::sqrt)
    }
    #[inline(always)]
    fn abs(self, a: [f32; N]) -> [f32; N] {
        map(a, f32::abs)
    }
    #[inline(always)]
    fn copysign(self, magnitude: [f32; N], sign: [f32; N]) -> [f32; N] {
        zip(magnitude, sign, f32::copysign)
    }
    #[inline(always)]
    fn round(self, a: [f32; N]) -> [f32; N] {
        map(a, |a| a + ROUND - ROUND)
    }
    #[inline(always)]
    fn scale2(self, p: [f32; N], n: [f32; N]) -> [f32; N] {
        // The low bits of n + 1.5·2^23 are n itself, and f32's exponent field is n + 127.
        zip(p, n, |p, n| p * f32::from_bits(((n + ROUND).to_bits().wrapping_add(127)) << 23))
    }
    #[inline(always)]
    fn split2(self, a: [f32; N]) -> ([f32; N], [f32; N]) {
        // 0x3f3504f3 is 1/√2: subtracting it makes the exponent field that of a/(1/√2), rounded down.
        let e = map(a, |a| ((a.to_bits().wrapping_sub(0x3f35_04f3) as i32) >> 23) as f32);
        let m = zip(a, e, |a, e| f32::from_bits(a.to_bits().wrapping_sub(((e as i32) << 23) as u32)));
        (m, e)
    }
    #[inline(always)]
    fn select_lt(self, a: [f32; N], b: [f32; N], yes: [f32; N], no: [f32; N]) -> [f32; N] {
        std::array::from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn swap_pairs(self, a: [f32; N]) -> [f32; N] {
        std::array::from_fn(|i| a[i ^ 1])
    }
    #[inline(always)]
    fn sum(self, a: [f32; N]) -> f32 {
        let b: [f32; 4] = std::array::from_fn(|i| a[i] + a[i + 4]);
        (b[0] + b[2]) + (b[1] + b[3])
    }
    #[inline(always)]
    fn max_lane(self, a: [f32; N]) -> f32 {
        a.into_iter().fold(a[0], |m, x| if m > x { m } else { x })
    }
}
