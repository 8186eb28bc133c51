//! `cvt`.

use super::super::float::{self as f, BF16, F16, Half, Rounding};
use super::*;

/// A value in the low bits of a register of 64 bits.
#[derive(Clone, Copy)]
struct Low<T>(T);

impl<T: Lane<Word = u32>> Lane for Low<T> {
    type Word = u64;
    #[inline(always)]
    fn get(word: u64) -> Low<T> {
        Low(T::get(word as u32))
    }
    #[inline(always)]
    fn put(self) -> u64 {
        self.0.put().into()
    }
}

/// As `with_int!`, for bytes too.
macro_rules! with_any_int {
    ($ty:expr, $t:ident => $e:expr) => {
        match $ty {
            Type::U8 | Type::B8 => {
                type $t = u8;
                $e
            }
            Type::S8 => {
                type $t = i8;
                $e
            }
            other => with_int!(other, $t => $e),
        }
    };
}

fn is_float(ty: Type) -> bool {
    matches!(ty, Type::F16 | Type::Bf16 | Type::F32 | Type::F64)
}

fn is_signed(ty: Type) -> bool {
    matches!(ty, Type::S8 | Type::S16 | Type::S32 | Type::S64)
}

/// Rounding to an integral value.
fn integral_rounding(b: &mut Build) -> Option<Rounding> {
    Some(match b.one_of(&["rni", "rzi", "rmi", "rpi"])? {
        "rni" => Rounding::Nearest,
        "rzi" => Rounding::Zero,
        "rmi" => Rounding::Down,
        _ => Rounding::Up,
    })
}

pub fn compile(b: &mut Build, name: &str) -> Compiled {
    if name != "cvt" {
        return Ok(None);
    }
    let [to, from] = b.types()[..] else { return Err("two types expected".into()) };
    match (to, from) {
        (Type::F16x2, Type::F32) => pair::<F16>(b),
        (Type::Bf16x2, Type::F32) => pair::<BF16>(b),
        (Type::Tf32, Type::F32) => {
            let rounding = b.rounding().ok_or("a rounding expected")?;
            b.map1(move |x: f32| f::to_tf32(x, rounding))
        }
        _ if is_float(to) && is_float(from) => float_to_float(b, to, from),
        _ if is_float(to) => int_to_float(b, to, from),
        _ if is_float(from) => float_to_int(b, to, from),
        _ => int_to_int(b, to, from),
    }
}

/// Two f32s to two halves of a register: the first one is the upper half.
fn pair<T: Half + 'static>(b: &mut Build) -> Compiled {
    let rounding = b.rounding().ok_or("a rounding expected")?;
    let clamp = if b.take("relu") { f::relu } else { |x| x };
    match rounding {
        Rounding::Nearest => b.map2(move |high: f32, low: f32| f::pack(T::narrow(clamp(low)), T::narrow(clamp(high)))),
        _ => b.map2(move |high: f32, low: f32| {
            f::pack(T::round(clamp(low).into(), rounding), T::round(clamp(high).into(), rounding))
        }),
    }
}

#[expect(clippy::unnecessary_cast)] // of u64, one of the types
fn int_to_int(b: &mut Build, to: Type, from: Type) -> Compiled {
    let operand = b.operand(1)?;
    let in_long = from.width() == Width::Word && b.place(operand, Width::Word)?.0 == Width::Long;
    if b.take("sat") {
        let bits = 8 * to.bytes() as u32;
        let (low, high) = if is_signed(to) { (-1 << (bits - 1), !(-1 << (bits - 1))) } else { (0, !(-1 << bits)) };
        return with_any_int!(from, A => extended(b, to, move |x: A| (x as i128).clamp(low, high) as u64));
    }
    // Signs matter of what is read alone; results of less than 32 bits are kept as their type says.
    match (from, in_long) {
        (Type::U8, true) => extended(b, to, |x: Low<u8>| x.0.into()),
        (Type::S8, true) => extended(b, to, |x: Low<i8>| i64::from(x.0) as u64),
        (Type::U16, true) => extended(b, to, |x: Low<u16>| x.0.into()),
        (Type::S16, true) => extended(b, to, |x: Low<i16>| i64::from(x.0) as u64),
        (Type::U32, true) => extended(b, to, |x: Low<u32>| x.0.into()),
        (Type::S32, true) => extended(b, to, |x: Low<i32>| i64::from(x.0) as u64),
        _ => with_any_int!(from, A => extended(b, to, |x: A| x as u64)),
    }
}

/// The low bits of a value that `f` extends to 64.
fn extended<A: Lane>(b: &mut Build, to: Type, f: impl Fn(A) -> u64 + Send + Sync + 'static) -> Compiled {
    match to {
        Type::U8 | Type::B8 => b.map1(move |x| f(x) as u8),
        Type::S8 => b.map1(move |x| f(x) as i8),
        Type::U16 | Type::S16 | Type::B16 => b.map1(move |x| f(x) as u16),
        Type::U32 | Type::S32 | Type::B32 => b.map1(move |x| f(x) as u32),
        Type::U64 | Type::S64 | Type::B64 => b.map1(f),
        _ => Ok(None),
    }
}

fn int_to_float(b: &mut Build, to: Type, from: Type) -> Compiled {
    let rounding = b.rounding().ok_or("a rounding expected")?;
    b.take("ftz");
    let sat = b.take("sat");
    match (to, from, rounding) {
        (Type::F32, Type::S32, Rounding::Nearest) if !sat => b.map1(|x: i32| x as f32),
        (Type::F32, Type::U32, Rounding::Nearest) if !sat => b.map1(|x: u32| x as f32),
        (Type::F64, ..) => with_any_int!(from, A => b.map1(|x: A| x as f64)),
        _ => with_any_int!(from, A => round(b, to, rounding, sat, |x: A| f::from_integer(x as i128))),
    }
}

/// `d = f(a)`, rounded to a floating-point type.
fn round<A: Lane>(
    b: &mut Build,
    to: Type,
    rounding: Rounding,
    sat: bool,
    f: impl Fn(A) -> f64 + Send + Sync + 'static,
) -> Compiled {
    // A value that is clamped before it is rounded is clamped.
    let f = move |x| match f(x) {
        x if sat && x.is_nan() => 0.0,
        x if sat => x.clamp(0.0, 1.0),
        x => x,
    };
    match to {
        Type::F16 => b.map1(move |x: A| F16::round(f(x), rounding)),
        Type::Bf16 => b.map1(move |x: A| BF16::round(f(x), rounding)),
        Type::F32 => b.map1(move |x: A| f::to_f32(f(x), rounding)),
        Type::F64 => b.map1(move |x: A| f(x)),
        _ => Ok(None),
    }
}

#[expect(clippy::useless_conversion)] // of f64, one of the types
fn float_to_int(b: &mut Build, to: Type, from: Type) -> Compiled {
    let rounding = integral_rounding(b).ok_or("a rounding to integers expected")?;
    // A subnormal is rounded to what zero is, but for the modes away from zero.
    let ftz = b.take("ftz");
    b.take("sat");
    if (to, from, rounding) == (Type::S32, Type::F32, Rounding::Zero) {
        return b.map1(|x: f32| x as i32);
    }
    let (bits, signed) = (8 * to.bytes() as u32, is_signed(to));
    let wide = to.bytes() == 8 || from == Type::F64;
    with_float!(from, A => {
        let convert = move |x: A| {
            let x = f64::from(x);
            let x = if ftz && x.abs() < f64::from(f32::MIN_POSITIVE) { 0.0 * x } else { x };
            f::to_integer(x, rounding, bits, signed, wide)
        };
        if to.bytes() == 8 { b.map1(convert) } else { b.map1(move |x: A| convert(x) as u32) }
    })
}

#[expect(clippy::useless_conversion)] // of f64, one of the types
fn float_to_float(b: &mut Build, to: Type, from: Type) -> Compiled {
    let (integral, rounding) = (integral_rounding(b), b.rounding());
    let (ftz, sat, relu) = (b.take("ftz"), b.take("sat"), b.take("relu"));
    let plain = !sat && !relu && integral.is_none();
    let nearest = rounding.unwrap_or(Rounding::Nearest) == Rounding::Nearest;
    match (to, from) {
        (Type::F32, Type::F16) if plain => return b.map1(|x: u16| F16::widen(x)),
        (Type::F32, Type::Bf16) if plain => return b.map1(|x: u16| BF16::widen(x)),
        (Type::F16, Type::F32) if plain && nearest => return b.map1(|x: f32| F16::narrow(x)),
        (Type::Bf16, Type::F32) if plain && nearest => return b.map1(|x: f32| BF16::narrow(x)),
        _ => (),
    }
    let flush = move |ty: Type, x: f64| {
        let tiny = ftz && ty == Type::F32 && x.abs() < f64::from(f32::MIN_POSITIVE);
        if tiny { 0.0f64.copysign(x) } else { x }
    };
    with_float!(from, A => round(b, to, rounding.unwrap_or(Rounding::Nearest), sat, move |x: A| {
        let x = flush(from, f64::from(x));
        let x = match integral {
            Some(rounding) => f::integral(x, rounding),
            None => x,
        };
        flush(to, if relu && x < 0.0 { 0.0 } else { x })
    }))
}
