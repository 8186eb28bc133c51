//! Floating-point arithmetic as PTX defines it: every rounding mode, NaNs that are the canonical one, the approximations.
//!
//! Where one rounding is due and the exact result does not fit an f64, the f64 is rounded to odd (its last bit says that more
//! follows): rounding that on to at most 51 bits is as good as rounding the exact result, in every mode. Functions are small
//! and mostly free of branches, so that loops over the lanes of a warp become vector instructions.
//!
//! Results are the same on every machine except where `sin`, `cos`, `log2` of the host's library are within its last bit of
//! a tie in f64.

use std::num::FpCategory;

/// How a result is rounded to a floating-point type or to an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// `.rn`, `.rni`: to the nearest, ties to even.
    Nearest,
    /// `.rz`, `.rzi`: towards zero.
    Zero,
    /// `.rm`, `.rmi`: towards minus infinity.
    Down,
    /// `.rp`, `.rpi`: towards plus infinity.
    Up,
    /// `.rna`: to the nearest, ties away from zero.
    Away,
}
use Rounding::{Down, Nearest};

/// The NaN that f32 instructions give.
pub const NAN: u32 = 0x7fff_ffff;
/// The NaN that f16 and bf16 instructions give.
pub const NAN_HALF: u16 = 0x7fff;

/// The canonical NaN for any NaN.
#[inline(always)]
pub fn canonical(x: f32) -> f32 {
    if x.is_nan() { f32::from_bits(NAN) } else { x }
}

/// `.ftz`: zero of the same sign for a subnormal.
#[inline(always)]
pub fn flush(x: f32) -> f32 {
    let bits = x.to_bits();
    if bits & 0x7f80_0000 == 0 { f32::from_bits(bits & 0x8000_0000) } else { x }
}

/// `.sat`: clamped to [0, 1]; +0 for a NaN.
#[inline(always)]
pub fn saturate(x: f32) -> f32 {
    let above = if x > 0.0 { x } else { 0.0 };
    if above < 1.0 { above } else { 1.0 }
}

/// `.relu`: 0 for what is negative, the canonical NaN for a NaN.
#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if x > 0.0 {
        x
    } else if x.is_nan() {
        f32::from_bits(NAN)
    } else {
        0.0
    }
}

/// Rounds an f64 to a binary float of `MANTISSA` bits behind the point and `EXPONENT` bits: its bits, without those that
/// an encoding may have below. A NaN gives the sign 0 and ones everywhere.
#[inline(never)] // it is long, and every slow path ends in it
pub fn narrow<const MANTISSA: u32, const EXPONENT: u32>(x: f64, rounding: Rounding) -> u32 {
    let infinity = ((1u64 << EXPONENT) - 1) << MANTISSA;
    if x.is_nan() {
        return (infinity | ((1 << MANTISSA) - 1)) as u32;
    }
    let bits = x.to_bits();
    let negative = bits >> 63 != 0;
    let exponent = (bits >> 52 & 0x7ff) as i32 - 1023;
    // Subnormal f64s are far below half of every target's smallest number; a set low bit is all that matters of them.
    let significand = (bits & ((1 << 52) - 1)) | (u64::from(exponent != -1023) << 52);
    let smallest = 2 - (1 << (EXPONENT - 1));
    let drop = (52 - MANTISSA as i32 + (smallest - exponent).max(0)).min(63) as u32;
    let (kept, rest, half) = (significand >> drop, significand & ((1 << drop) - 1), 1u64 << (drop - 1));
    let up = match rounding {
        Rounding::Nearest => rest > half || (rest == half && kept & 1 == 1),
        Rounding::Zero => false,
        Rounding::Down => negative && rest != 0,
        Rounding::Up => !negative && rest != 0,
        Rounding::Away => rest >= half,
    };
    // The leading one of `kept` adds the last step to the exponent, as does a carry.
    let magnitude = ((((exponent - smallest).max(0)) as u64) << MANTISSA) + kept + u64::from(up);
    let magnitude = if magnitude < infinity {
        magnitude
    } else {
        let stays_finite = match rounding {
            Rounding::Nearest | Rounding::Away => false,
            Rounding::Zero => true,
            Rounding::Down => !negative,
            Rounding::Up => negative,
        };
        infinity - u64::from(stays_finite && !x.is_infinite())
    };
    (magnitude | (u64::from(negative) << (MANTISSA + EXPONENT))) as u32
}

/// Rounds to f32.
#[inline(always)]
pub fn to_f32(x: f64, rounding: Rounding) -> f32 {
    let near = canonical(x as f32);
    // Which way the nearest one may be wrong; `.rna` is not for f32.
    let wanted = match rounding {
        Nearest | Rounding::Away => return near,
        Down => -1.0,
        Rounding::Up => 1.0,
        Rounding::Zero => -1f64.copysign(near.into()),
    };
    let (bits, error) = (near.to_bits(), x - f64::from(near));
    let larger = (wanted < 0.0) == near.is_sign_negative();
    let neighbour = if larger { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f32::from_bits(if error * wanted > 0.0 { neighbour } else { bits })
}

/// Rounds to tf32, which is an f32 whose low 13 bits are 0.
#[inline]
pub fn to_tf32(x: f32, rounding: Rounding) -> u32 {
    if x.is_nan() { NAN } else { narrow::<10, 8>(x.into(), rounding) << 13 }
}

// --- One rounding ---

/// The neighbour with an odd last bit, of a result `near` that misses the exact one by something of the sign of `error`.
#[inline(always)]
fn to_odd(near: f64, error: f64) -> f64 {
    let bits = near.to_bits();
    // Not `error != 0`: that of infinities is a NaN.
    let inexact = error.abs() > 0.0;
    let smaller = (error < 0.0) == (near > 0.0);
    let neighbour = if smaller { bits.wrapping_sub(1) } else { bits.wrapping_add(1) };
    f64::from_bits(if inexact && bits & 1 == 0 { neighbour } else { bits })
}

/// a + b, rounded to odd (Knuth's exact error of a sum).
#[inline(always)]
fn add_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let b_part = sum - a;
    let error = (a - (sum - b_part)) + (b - b_part);
    to_odd(sum, error)
}

/// Rounds a sum of two terms, whose zero has a sign of its own: -0 when rounding down, unless both are +0.
#[inline(always)]
fn round_sum(a: f64, b: f64, rounding: Rounding) -> f32 {
    let sum = add_odd(a, b);
    if rounding == Down && sum == 0.0 && (a.is_sign_negative() || b.is_sign_negative()) {
        return -0.0;
    }
    to_f32(sum, rounding)
}

/// a + b.
#[inline]
pub fn add(a: f32, b: f32, rounding: Rounding) -> f32 {
    match rounding {
        Nearest => canonical(a + b),
        _ => round_sum(a.into(), b.into(), rounding),
    }
}

/// a · b.
#[inline]
pub fn mul(a: f32, b: f32, rounding: Rounding) -> f32 {
    match rounding {
        Nearest => canonical(a * b),
        // Exact: 48 bits, and exponents far from the ends of f64.
        _ => to_f32(f64::from(a) * f64::from(b), rounding),
    }
}

/// a · b + c with one rounding.
#[inline]
pub fn fma(a: f32, b: f32, c: f32, rounding: Rounding) -> f32 {
    match rounding {
        Nearest => canonical(a.mul_add(b, c)),
        _ => round_sum(f64::from(a) * f64::from(b), c.into(), rounding),
    }
}

/// a / b.
#[inline]
pub fn div(a: f32, b: f32, rounding: Rounding) -> f32 {
    if rounding == Nearest {
        return canonical(a / b);
    }
    let (a, b) = (f64::from(a), f64::from(b));
    let near = a / b;
    let rest = near.mul_add(-b, a);
    to_f32(to_odd(near, if b < 0.0 { -rest } else { rest }), rounding)
}

/// The square root.
#[inline]
pub fn sqrt(x: f32, rounding: Rounding) -> f32 {
    if rounding == Nearest {
        return canonical(x.sqrt());
    }
    let x = f64::from(x);
    let near = x.sqrt();
    to_f32(to_odd(near, near.mul_add(-near, x)), rounding)
}

macro_rules! order {
    ($t:ty, $bits:ty, $nan:expr, $min:ident, $max:ident, $min_nan:ident, $max_nan:ident, $xorsign:ident) => {
        /// The smaller one: -0 is below +0, a NaN gives the other operand.
        #[inline(always)]
        pub fn $min(a: $t, b: $t) -> $t {
            let zeros = <$t>::from_bits(a.to_bits() | b.to_bits());
            let smaller = if a < b { a } else { b };
            pick(a, b, if a == b { zeros } else { smaller }, <$t>::from_bits($nan))
        }

        /// The larger one: +0 is above -0, a NaN gives the other operand.
        #[inline(always)]
        pub fn $max(a: $t, b: $t) -> $t {
            let zeros = <$t>::from_bits(a.to_bits() & b.to_bits());
            let larger = if a > b { a } else { b };
            pick(a, b, if a == b { zeros } else { larger }, <$t>::from_bits($nan))
        }

        /// `.NaN`: the smaller one, or the canonical NaN if one of them is a NaN.
        #[inline(always)]
        pub fn $min_nan(a: $t, b: $t) -> $t {
            if a.is_nan() || b.is_nan() { <$t>::from_bits($nan) } else { $min(a, b) }
        }

        /// `.NaN`: the larger one, or the canonical NaN if one of them is a NaN.
        #[inline(always)]
        pub fn $max_nan(a: $t, b: $t) -> $t {
            if a.is_nan() || b.is_nan() { <$t>::from_bits($nan) } else { $max(a, b) }
        }

        /// `.xorsign`: a magnitude with the product of two signs.
        #[inline(always)]
        pub fn $xorsign(a: $t, b: $t, magnitude: $t) -> $t {
            let sign = (a.to_bits() ^ b.to_bits()) & (-0.0 as $t).to_bits();
            <$t>::from_bits(magnitude.to_bits() | sign)
        }
    };
}
order!(f32, u32, NAN, min, max, min_nan, max_nan, xorsign);
order!(f64, u64, 0x7fff_ffff_ffff_ffff, min64, max64, min_nan64, max_nan64, xorsign64);

/// What min and max give: `chosen`, unless one or both are NaN.
#[inline(always)]
fn pick<T: PartialEq + Copy>(a: T, b: T, chosen: T, nan: T) -> T {
    // Only a NaN differs from itself.
    #[expect(clippy::eq_op)]
    match (a != a, b != b) {
        (false, false) => chosen,
        (true, false) => b,
        (false, true) => a,
        (true, true) => nan,
    }
}

// --- f16 and bf16 ---

/// A 16-bit float.
pub trait Half {
    /// Exact.
    fn widen(bits: u16) -> f32;
    /// Rounded to nearest even, NaN to the canonical one.
    fn narrow(x: f32) -> u16;
    /// Rounded once.
    fn round(x: f64, rounding: Rounding) -> u16;
}

/// IEEE half precision.
pub enum F16 {}

/// The upper half of an f32.
pub enum BF16 {}

impl Half for F16 {
    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        // Exponent and mantissa in place, with the bias of f32. A subnormal number gets an exponent as well, whose value is
        // taken off again: subnormal f32s would be slow.
        let magnitude = u32::from(bits & 0x7fff) << 13;
        let subnormal = f32::from_bits(magnitude + (113 << 23)) - f32::from_bits(113 << 23);
        let finite = if magnitude < 1 << 23 { subnormal.to_bits() } else { magnitude + (112 << 23) };
        let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
        f32::from_bits(finite | special | (u32::from(bits & 0x8000) << 16))
    }

    #[inline(always)]
    fn narrow(x: f32) -> u16 {
        let (sign, bits) = (x.to_bits() >> 16 & 0x8000, x.to_bits() & 0x7fff_ffff);
        let normal = bits.wrapping_sub((112 << 23) - 0xfff).wrapping_add(bits >> 13 & 1) >> 13;
        // The spacing of f32 from 1/2 on is that of subnormal f16s.
        let subnormal = (f32::from_bits(bits) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let finite = if bits < 113 << 23 { subnormal } else { normal };
        let magnitude = if bits >= (127 + 16) << 23 { 0x7c00 } else { finite };
        if bits > 0x7f80_0000 { NAN_HALF } else { (sign | magnitude) as u16 }
    }

    #[inline]
    fn round(x: f64, rounding: Rounding) -> u16 {
        if x.is_nan() { NAN_HALF } else { narrow::<10, 5>(x, rounding) as u16 }
    }
}

impl Half for BF16 {
    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> u16 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        if x.is_nan() { NAN_HALF } else { rounded as u16 }
    }

    #[inline]
    fn round(x: f64, rounding: Rounding) -> u16 {
        if x.is_nan() { NAN_HALF } else { narrow::<7, 8>(x, rounding) as u16 }
    }
}

/// Two halves in a register: the first one in the low bits.
#[inline(always)]
pub fn pack(low: u16, high: u16) -> u32 {
    u32::from(low) | u32::from(high) << 16
}

/// Applies a function to both halves of a register.
#[inline(always)]
pub fn map2(a: u32, f: impl Fn(u16) -> u16) -> u32 {
    pack(f(a as u16), f((a >> 16) as u16))
}

/// Applies a function to the halves of two registers.
#[inline(always)]
pub fn zip2(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
    pack(f(a as u16, b as u16), f((a >> 16) as u16, (b >> 16) as u16))
}

/// Applies a function to the halves of three registers.
#[inline(always)]
pub fn zip3(a: u32, b: u32, c: u32, f: impl Fn(u16, u16, u16) -> u16) -> u32 {
    pack(f(a as u16, b as u16, c as u16), f((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16))
}

/// A half of an f32 function of one, for functions whose result fits a half or is an approximation anyhow.
#[inline(always)]
pub fn half1<T: Half>(a: u16, f: impl Fn(f32) -> f32) -> u16 {
    T::narrow(f(T::widen(a)))
}

/// As [`half1`], of two.
#[inline(always)]
pub fn half2<T: Half>(a: u16, b: u16, f: impl Fn(f32, f32) -> f32) -> u16 {
    T::narrow(f(T::widen(a), T::widen(b)))
}

/// Rounds to a half once, by way of an f32 rounded to odd.
#[inline(always)]
fn nearest_half<T: Half>(x: f64) -> u16 {
    let near = x as f32;
    let error = x - f64::from(near);
    let inexact = error.abs() > 0.0;
    let (bits, smaller) = (near.to_bits(), (error < 0.0) != near.is_sign_negative());
    let neighbour = if smaller { bits.wrapping_sub(1) } else { bits.wrapping_add(1) };
    T::narrow(f32::from_bits(if inexact && bits & 1 == 0 { neighbour } else { bits }))
}

/// a + b. (The f64's own rounding does no harm: it has more than twice the bits, and tiny sums are exact.)
#[inline(always)]
pub fn add_half<T: Half>(a: u16, b: u16) -> u16 {
    nearest_half::<T>(f64::from(T::widen(a)) + f64::from(T::widen(b)))
}

/// a · b, which is exact in f64.
#[inline(always)]
pub fn mul_half<T: Half>(a: u16, b: u16) -> u16 {
    nearest_half::<T>(f64::from(T::widen(a)) * f64::from(T::widen(b)))
}

/// a · b + c with one rounding.
#[inline(always)]
pub fn fma_half<T: Half>(a: u16, b: u16, c: u16) -> u16 {
    nearest_half::<T>(add_odd(f64::from(T::widen(a)) * f64::from(T::widen(b)), T::widen(c).into()))
}

// --- Integers ---

/// The nearest integral value by the mode's rule.
#[inline]
pub fn integral(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => x.round_ties_even(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
        Rounding::Away => x.round(),
    }
}

/// A float as an integer of `bits` bits, clamped to its range and sign-extended. A NaN gives 0, or the top bit alone
/// where source or result are of 64 bits (`wide`).
#[inline]
pub fn to_integer(x: f64, rounding: Rounding, bits: u32, signed: bool, wide: bool) -> u64 {
    let x = integral(x, rounding);
    if x.is_nan() && wide {
        return if signed { (i64::MIN >> (64 - bits)) as u64 } else { 1 << (bits - 1) };
    }
    // Casts clamp, and make 0 of a NaN.
    if signed {
        let limit = i64::MAX >> (64 - bits);
        (x as i64).clamp(-limit - 1, limit) as u64
    } else {
        (x as u64).min(u64::MAX >> (64 - bits))
    }
}

/// An integer, rounded to odd: exact below 2^53, and good for rounding on to f32 or less.
#[inline]
pub fn from_integer(x: i128) -> f64 {
    let near = x as f64;
    let error = x - near as i128;
    to_odd(near, error.signum() as f64)
}

// --- Approximations ---

/// `ex2.approx`: 2^x, here right to the last bit but for near ties (the hardware is within 2 of it).
#[inline]
pub fn ex2(x: f32) -> f32 {
    // 2^x = 2^whole · e^(ln 2 · rest), |rest| <= 1/2: eleven terms leave an error of 1e-14.
    let x = f64::from(x);
    let near = if x > 200.0 { 200.0 } else { x };
    let near = if near < -200.0 { -200.0 } else { near };
    // The sum's low bits are the integer, without a call for rounding.
    const SHIFT: f64 = 6755399441055744.0; // 1.5 · 2^52
    let shifted = near + SHIFT;
    let rest = (near - (shifted - SHIFT)) * std::f64::consts::LN_2;
    const TERMS: [f64; 12] = [
        1.0 / 39916800.0,
        1.0 / 3628800.0,
        1.0 / 362880.0,
        1.0 / 40320.0,
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let mut sum = TERMS[0];
    for term in &TERMS[1..] {
        sum = sum * rest + term;
    }
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    canonical(if x.is_nan() { f32::NAN } else { (sum * power) as f32 })
}

/// `lg2.approx`: the logarithm to base 2.
#[inline]
pub fn lg2(x: f32) -> f32 {
    canonical(f64::from(x).log2() as f32)
}

/// `rsqrt.approx`: 1 / sqrt(x).
#[inline]
pub fn rsqrt(x: f32) -> f32 {
    canonical((1.0 / f64::from(x).sqrt()) as f32)
}

/// `div.approx`: a / b, where a `b` of 2^126 and more in magnitude gives 0, or NaN below an infinite `a`.
#[inline]
pub fn div_approx(a: f32, b: f32) -> f32 {
    let large = b.abs() > f32::from_bits((127 + 126) << 23) && b.is_finite();
    canonical(if large { a * 0.0f32.copysign(b) } else { a / b })
}

/// An angle in turns, rounded as the hardware does it: its error grows with the angle, as on the hardware.
#[inline]
fn turns(x: f32) -> f64 {
    let turns = f64::from(mul(x, std::f32::consts::FRAC_1_PI / 2.0, Rounding::Zero));
    turns - turns.round_ties_even()
}

/// `sin.approx`.
#[inline]
pub fn sin(x: f32) -> f32 {
    canonical((turns(x) * std::f64::consts::TAU).sin() as f32)
}

/// `cos.approx`.
#[inline]
pub fn cos(x: f32) -> f32 {
    canonical((turns(x) * std::f64::consts::TAU).cos() as f32)
}

/// `tanh.approx.f32`, to the 11 bits that PTX promises and no more, so that a kernel which needs more fails here as well.
#[inline]
pub fn tanh(x: f32) -> f32 {
    let bits = tanh_exact(x).to_bits();
    canonical(if x.is_nan() { f32::NAN } else { f32::from_bits((bits + 0xfff + (bits >> 13 & 1)) & !0x1fff) })
}

/// The hyperbolic tangent; rounded to a half it is `tanh.approx` of halves.
#[inline]
pub fn tanh_exact(x: f32) -> f32 {
    canonical(f64::from(x).tanh() as f32)
}

/// What `testp` tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// Whether a value of a category has a property. (Zero counts as normal.)
#[inline]
pub fn has(category: FpCategory, property: Property) -> bool {
    match property {
        Property::Finite => !matches!(category, FpCategory::Nan | FpCategory::Infinite),
        Property::Infinite => category == FpCategory::Infinite,
        Property::Number => category != FpCategory::Nan,
        Property::NotANumber => category == FpCategory::Nan,
        Property::Normal => matches!(category, FpCategory::Normal | FpCategory::Zero),
        Property::Subnormal => category == FpCategory::Subnormal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    /// Bits that look random.
    fn random(state: &mut u64) -> u32 {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*state >> 32) as u32
    }

    const SPECIAL: [f32; 14] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.1,
        65504.0,
        65519.9,
        65520.0,
        f32::MAX,
        f32::MIN_POSITIVE,
        1e-45,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];

    /// Special values and many others.
    fn values() -> impl Iterator<Item = f32> {
        let mut state = 1;
        SPECIAL.into_iter().chain((0..20_000).map(move |i| {
            let bits = random(&mut state);
            // Half of them where f16 lives.
            f32::from_bits(if i % 2 == 0 { bits } else { bits & 0x8fff_ffff | 0x3000_0000 })
        }))
    }

    fn same(a: f32, b: f32) -> bool {
        a.to_bits() == b.to_bits() || (a.to_bits() == NAN && b.is_nan())
    }

    #[test]
    fn halves_are_converted_as_everybody_does() {
        for bits in 0..=u16::MAX {
            let (a, b) = (F16::widen(bits), f16::from_bits(bits).to_f32());
            assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{bits:x}");
            if !a.is_nan() {
                assert_eq!((F16::narrow(a), F16::round(a.into(), Nearest)), (bits, bits));
                assert_eq!((BF16::narrow(BF16::widen(bits)), BF16::widen(bits).is_nan()), (bits, false));
            }
        }
        for x in values() {
            let want = if x.is_nan() { NAN_HALF } else { f16::from_f32(x).to_bits() };
            assert_eq!((F16::narrow(x), F16::round(x.into(), Nearest)), (want, want), "{x:e}");
            let want = if x.is_nan() { NAN_HALF } else { bf16::from_f32(x).to_bits() };
            assert_eq!((BF16::narrow(x), BF16::round(x.into(), Nearest)), (want, want), "{x:e}");
            assert!(same(to_f32(x.into(), Rounding::Zero), x));
        }
    }

    #[test]
    fn directed_rounding_encloses_the_exact_value() {
        for x in values().filter(|x| x.is_finite()) {
            // Something between two f32.
            let x = f64::from(x) * (1.0 + 1e-9);
            let [down, up, zero, near] =
                [Down, Rounding::Up, Rounding::Zero, Nearest].map(|rounding| to_f32(x, rounding));
            assert!(f64::from(down) <= x && x <= f64::from(up), "{x:e}");
            assert!(down == up || down.next_up() == up, "{x:e}");
            assert_eq!(zero.to_bits(), if x > 0.0 { down } else { up }.to_bits(), "{x:e}");
            assert!(same(near, x as f32) && same(f32::from_bits(narrow::<23, 8>(x, Nearest)), near));
            let (down, up) = (F16::widen(F16::round(x, Down)), F16::widen(F16::round(x, Rounding::Up)));
            assert!(f64::from(down) <= x && x <= f64::from(up), "{x:e}");
        }
        assert_eq!(to_f32(1e300, Rounding::Zero), f32::MAX);
        assert_eq!(to_f32(-1e300, Rounding::Up), -f32::MAX);
        assert_eq!(to_f32(-1e300, Down), f32::NEG_INFINITY);
        assert_eq!(to_tf32(1.0 + 1.0 / 2048.0, Rounding::Away), (1.0f32 + 1.0 / 1024.0).to_bits());
        assert_eq!(to_tf32(1.0 + 1.0 / 2048.0, Nearest), 1f32.to_bits());
        assert_eq!(to_tf32(f32::NAN, Rounding::Away), NAN);
    }

    #[test]
    fn arithmetic_is_rounded_once() {
        let all: Vec<f32> = values().collect();
        for window in all.windows(3) {
            let [a, b, c] = window.try_into().unwrap();
            assert!(same(fma(a, b, c, Nearest), a.mul_add(b, c)), "{a:e} {b:e} {c:e}");
            let near = a * b;
            assert!(same(mul(a, b, Nearest), near));
            let scale = c.abs();
            // A quotient and a root lie between their roundings down and up.
            for (down, up) in [
                (div(a, b, Down), div(a, b, Rounding::Up)),
                (sqrt(scale, Down), sqrt(scale, Rounding::Up)),
                (fma(a, b, c, Down), fma(a, b, c, Rounding::Up)),
                (add(a, c, Down), add(a, c, Rounding::Up)),
            ] {
                assert!(down.is_nan() || down == up || down.next_up() == up, "{a:e} {b:e} {c:e}: {down:e} {up:e}");
            }
        }
        assert_eq!(add(1.0, -1.0, Down).to_bits(), (-0.0f32).to_bits());
        assert_eq!(add(1.0, -1.0, Rounding::Up).to_bits(), 0);
        assert_eq!(add(1.0, 1e-30, Rounding::Up), 1.0f32.next_up());
        assert_eq!(add(1.0, -1e-30, Rounding::Zero), 1.0f32.next_down());
    }

    #[test]
    fn arithmetic_of_halves_is_rounded_once() {
        let mut state = 3;
        for _ in 0..20_000 {
            let [a, b, c] = [(); 3].map(|()| random(&mut state) as u16);
            let (x, y, z) = (f16::from_bits(a), f16::from_bits(b), f16::from_bits(c));
            if x.is_finite() && y.is_finite() && z.is_finite() {
                // f16 products are multiples of 2^-48 below 2^32: exact integers.
                let int = |x: f16| (x.to_f64() * 16777216.0) as i128;
                let exact = int(x) * int(y) + (int(z) << 24);
                let want = F16::round(from_integer(exact) * (-48f64).exp2(), Nearest);
                let got = fma_half::<F16>(a, b, c);
                assert!(got == want || (got | want) & 0x7fff == 0, "{x} {y} {z}");
                assert_eq!(add_half::<F16>(a, b), (x + y).to_bits());
            }
        }
        let one = BF16::narrow(1.0);
        // 1 + 2^-8 is a tie, and a little more is above it.
        let (half_step, tiny) = (BF16::narrow(0.00390625), BF16::narrow(1e-30));
        assert_eq!(fma_half::<BF16>(one, one, half_step), one);
        assert_eq!(fma_half::<BF16>(half_step, BF16::narrow(1.0078125), one), one + 1);
        assert_eq!(fma_half::<BF16>(tiny, tiny, one), one);
        assert_eq!(mul_half::<BF16>(BF16::narrow(f32::INFINITY), 0), NAN_HALF);
    }

    #[test]
    fn order_of_nans_and_zeros() {
        let nan = f32::NAN;
        assert_eq!((min(nan, 1.0), max(1.0, nan)), (1.0, 1.0));
        assert_eq!((min(nan, nan).to_bits(), max_nan(1.0, nan).to_bits()), (NAN, NAN));
        assert_eq!((min(0.0, -0.0).to_bits(), max(-0.0, 0.0).to_bits()), (0x8000_0000, 0));
        assert_eq!((min(2.0, -3.0), max(2.0, -3.0)), (-3.0, 2.0));
        assert_eq!(xorsign(-2.0, 3.0, min(2.0, 3.0)), -2.0);
        assert_eq!((saturate(nan).to_bits(), saturate(-0.0).to_bits(), saturate(7.0)), (0, 0, 1.0));
        assert_eq!((relu(-1.0), relu(nan).to_bits()), (0.0, NAN));
        assert_eq!(flush(-1e-40).to_bits(), 0x8000_0000);
    }

    #[test]
    fn integers_are_clamped() {
        let to = |x, bits, signed| to_integer(x, Rounding::Zero, bits, signed, false);
        assert_eq!((to(-1.5, 32, true) as i64, to(-1.5, 32, false)), (-1, 0));
        assert_eq!((to(1e10, 32, true), to(1e10, 32, false)), (i32::MAX as u64, u32::MAX as u64));
        assert_eq!((to(300.0, 8, false), to(-300.0, 8, true) as i64), (255, -128));
        assert_eq!((to(f64::NAN, 32, true), to_integer(f64::NAN, Nearest, 64, false, true)), (0, 1 << 63));
        assert_eq!(to_integer(2.5, Nearest, 32, true, false), 2);
        assert_eq!(to_integer(-2.5, Down, 32, true, false) as i64, -3);
        for x in [0, 1, (1 << 53) + 1, (1i128 << 62) + (1 << 38) + 1, u64::MAX.into(), -(1i128 << 60) - 3] {
            let x = x + (1 << 30);
            assert_eq!(to_f32(from_integer(x), Nearest), x as f32);
            assert!(f64::from(to_f32(from_integer(x), Down)) <= x as f64);
        }
    }

    #[test]
    fn approximations() {
        for x in values() {
            if x.abs() < 127.0 {
                let want = f64::from(x).exp2();
                assert!((f64::from(ex2(x)) - want).abs() <= want * 6.1e-8 + 1e-45, "{x}");
                let near = f64::from(x).sin();
                assert!((f64::from(sin(x)) - near).abs() < 2e-7 * f64::from(x.abs()) + 1e-7, "{x}");
            }
            let want = f64::from(x).tanh();
            assert!(x.is_nan() || (f64::from(tanh(x)) - want).abs() <= want.abs() * 0.00049 + 1e-40, "{x}");
        }
        assert_eq!(
            (ex2(f32::NEG_INFINITY), ex2(f32::INFINITY), ex2(-150.5), ex2(10.0)),
            (0.0, f32::INFINITY, 0.0, 1024.0)
        );
        assert_eq!((ex2(f32::NAN).to_bits(), lg2(-1.0).to_bits(), sin(f32::INFINITY).to_bits()), (NAN, NAN, NAN));
        assert_eq!((lg2(8.0), lg2(0.0), rsqrt(4.0), rsqrt(0.0)), (3.0, f32::NEG_INFINITY, 0.5, f32::INFINITY));
        assert_eq!((div_approx(1.0, 2.0), div_approx(-1.0, 1.5e38)), (0.5, -0.0));
        assert!(div_approx(f32::INFINITY, 1.5e38).is_nan());
        assert!(has(0f32.classify(), Property::Normal) && has(1e-40f32.classify(), Property::Subnormal));
    }
}
