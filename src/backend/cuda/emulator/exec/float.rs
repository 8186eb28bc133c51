//! Floating-point arithmetic.

use super::super::float::{self as f, BF16, F16, Half, Rounding};
use super::*;
use Rounding::Nearest;

/// An f32 of an instruction with `.ftz`: subnormal operands and results are zero.
#[derive(Clone, Copy)]
struct Flushed(f32);

impl Lane for Flushed {
    type Word = u32;
    #[inline(always)]
    fn get(word: u32) -> Flushed {
        Flushed(f::flush(f32::from_bits(word)))
    }
    #[inline(always)]
    fn put(self) -> u32 {
        f::flush(self.0).to_bits()
    }
}

/// Operands and results of the rare instructions that clamp share a loop with and without `.ftz`.
fn flush_if(ftz: bool, x: f32) -> f32 {
    if ftz { f::flush(x) } else { x }
}

fn clamped(ftz: bool, x: f32) -> f32 {
    flush_if(ftz, f::saturate(x))
}

impl Build<'_> {
    /// The rounding of a floating-point result.
    pub fn rounding(&mut self) -> Option<Rounding> {
        Some(match self.one_of(&["rn", "rz", "rm", "rp", "rna"])? {
            "rn" => Nearest,
            "rz" => Rounding::Zero,
            "rm" => Rounding::Down,
            "rp" => Rounding::Up,
            _ => Rounding::Away,
        })
    }

    fn single1(&mut self, f: impl Fn(f32) -> f32 + Send + Sync + 'static) -> Compiled {
        match (self.take("ftz"), self.take("sat")) {
            (false, false) => self.map1(f),
            (true, false) => self.map1(move |x: Flushed| Flushed(f(x.0))),
            (ftz, true) => self.map1(move |x: f32| clamped(ftz, f(flush_if(ftz, x)))),
        }
    }

    fn single2(&mut self, f: impl Fn(f32, f32) -> f32 + Send + Sync + 'static) -> Compiled {
        match (self.take("ftz"), self.take("sat")) {
            (false, false) => self.map2(f),
            (true, false) => self.map2(move |x: Flushed, y: Flushed| Flushed(f(x.0, y.0))),
            (ftz, true) => self.map2(move |x: f32, y: f32| clamped(ftz, f(flush_if(ftz, x), flush_if(ftz, y)))),
        }
    }

    fn single3(&mut self, f: impl Fn(f32, f32, f32) -> f32 + Send + Sync + 'static) -> Compiled {
        match (self.take("ftz"), self.take("sat")) {
            (false, false) => self.map3(f),
            (true, false) => self.map3(move |x: Flushed, y: Flushed, z: Flushed| Flushed(f(x.0, y.0, z.0))),
            (ftz, true) => self.map3(move |x: f32, y: f32, z: f32| {
                clamped(ftz, f(flush_if(ftz, x), flush_if(ftz, y), flush_if(ftz, z)))
            }),
        }
    }
}

pub fn compile(b: &mut Build, name: &str) -> Compiled {
    match name {
        "testp" => return test(b),
        "copysign" => {
            return match b.only_type()? {
                // The sign is that of the first operand.
                Type::F32 => b.map2(|sign: f32, x: f32| x.copysign(sign)),
                Type::F64 => b.map2(|sign: f64, x: f64| x.copysign(sign)),
                _ => Ok(None),
            };
        }
        "add" | "sub" | "mul" | "fma" | "mad" | "div" | "sqrt" | "rcp" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos"
        | "tanh" | "min" | "max" | "abs" | "neg" => (),
        _ => return Ok(None),
    }
    match b.types()[..] {
        [Type::F32] => single(b, name),
        [Type::F64] => double(b, name),
        [Type::F16] => half::<F16>(b, name, false),
        [Type::F16x2] => half::<F16>(b, name, true),
        [Type::Bf16] => half::<BF16>(b, name, false),
        [Type::Bf16x2] => half::<BF16>(b, name, true),
        _ => Ok(None),
    }
}

fn single(b: &mut Build, name: &str) -> Compiled {
    let approximates = b.take("approx") | b.take("full");
    let rounding = b.rounding().unwrap_or(Nearest);
    match (name, rounding) {
        // The usual rounding has loops of its own.
        ("add", Nearest) => b.single2(|x, y| f::add(x, y, Nearest)),
        ("sub", Nearest) => b.single2(|x, y| f::add(x, -y, Nearest)),
        ("mul", Nearest) => b.single2(|x, y| f::mul(x, y, Nearest)),
        ("fma" | "mad", Nearest) => b.single3(|x, y, z| f::fma(x, y, z, Nearest)),
        ("add", r) => b.single2(move |x, y| f::add(x, y, r)),
        ("sub", r) => b.single2(move |x, y| f::add(x, -y, r)),
        ("mul", r) => b.single2(move |x, y| f::mul(x, y, r)),
        ("fma" | "mad", r) => b.single3(move |x, y, z| f::fma(x, y, z, r)),
        ("div", _) if approximates => b.single2(f::div_approx),
        ("div", r) => b.single2(move |x, y| f::div(x, y, r)),
        ("rcp", r) => b.single1(move |x| f::div(1.0, x, r)),
        ("sqrt", r) => b.single1(move |x| f::sqrt(x, r)),
        ("rsqrt", _) => b.single1(f::rsqrt),
        ("ex2", _) => b.single1(f::ex2),
        ("lg2", _) => b.single1(f::lg2),
        ("sin", _) => b.single1(f::sin),
        ("cos", _) => b.single1(f::cos),
        ("tanh", _) => b.single1(f::tanh),
        ("abs", _) => b.single1(f32::abs),
        ("neg", _) => b.single1(|x| -x),
        ("min" | "max", _) => {
            let order: fn(f32, f32) -> f32 = match (name, b.take("NaN")) {
                ("min", false) => return extreme(b, f::min),
                ("max", false) => return extreme(b, f::max),
                ("min", true) => f::min_nan,
                _ => f::max_nan,
            };
            extreme(b, order)
        }
        _ => Ok(None),
    }
}

/// A minimum or maximum, of magnitudes with the product of the signs where it says `.xorsign.abs`.
fn extreme(b: &mut Build, order: impl Fn(f32, f32) -> f32 + Send + Sync + 'static) -> Compiled {
    if b.take("xorsign") {
        b.take("abs");
        return b.single2(move |x, y| f::xorsign(x, y, order(x.abs(), y.abs())));
    }
    b.single2(order)
}

fn double(b: &mut Build, name: &str) -> Compiled {
    // The approximations of f64 are coarse and rare; the exact results are within them.
    b.ignore(&["approx", "ftz"]);
    if b.rounding().unwrap_or(Nearest) != Nearest {
        return Err("f64 is rounded to nearest only".into());
    }
    match name {
        "add" => b.map2(|x: f64, y: f64| x + y),
        "sub" => b.map2(|x: f64, y: f64| x - y),
        "mul" => b.map2(|x: f64, y: f64| x * y),
        "fma" | "mad" => b.map3(|x: f64, y: f64, z: f64| x.mul_add(y, z)),
        "div" => b.map2(|x: f64, y: f64| x / y),
        "sqrt" => b.map1(|x: f64| x.sqrt()),
        "rcp" => b.map1(|x: f64| 1.0 / x),
        "rsqrt" => b.map1(|x: f64| 1.0 / x.sqrt()),
        "min" => b.map2(f::min64),
        "max" => b.map2(f::max64),
        "abs" => b.map1(|x: f64| x.abs()),
        "neg" => b.map1(|x: f64| -x),
        _ => Ok(None),
    }
}

/// `f16` and `bf16`, one or two in a register.
fn half<T: Half + 'static>(b: &mut Build, name: &str, pair: bool) -> Compiled {
    b.rounding();
    b.ignore(&["approx", "ftz"]);
    let (nan, relu, sat) = (b.take("NaN"), b.take("relu"), b.take("sat"));
    let clamp = move |x: u16| match (relu, sat) {
        (false, false) => x,
        (true, _) => f::half1::<T>(x, f::relu),
        (_, true) => f::half1::<T>(x, f::saturate),
    };
    match name {
        "add" => half2(b, pair, move |x, y| clamp(f::add_half::<T>(x, y))),
        "sub" => half2(b, pair, move |x, y| clamp(f::add_half::<T>(x, y ^ 0x8000))),
        "mul" => half2(b, pair, move |x, y| clamp(f::mul_half::<T>(x, y))),
        "fma" if pair => {
            b.map3(move |x: u32, y: u32, z: u32| f::zip3(x, y, z, |x, y, z| clamp(f::fma_half::<T>(x, y, z))))
        }
        "fma" => b.map3(move |x: u16, y: u16, z: u16| clamp(f::fma_half::<T>(x, y, z))),
        "min" if nan => half2(b, pair, |x, y| f::half2::<T>(x, y, f::min_nan)),
        "max" if nan => half2(b, pair, |x, y| f::half2::<T>(x, y, f::max_nan)),
        "min" => half2(b, pair, |x, y| f::half2::<T>(x, y, f::min)),
        "max" => half2(b, pair, |x, y| f::half2::<T>(x, y, f::max)),
        "abs" => half1(b, pair, |x| x & 0x7fff),
        "neg" => half1(b, pair, |x| x ^ 0x8000),
        "ex2" => half1(b, pair, |x| f::half1::<T>(x, f::ex2)),
        "tanh" => half1(b, pair, |x| f::half1::<T>(x, f::tanh_exact)),
        _ => Ok(None),
    }
}

fn half1(b: &mut Build, pair: bool, f: impl Fn(u16) -> u16 + Send + Sync + 'static) -> Compiled {
    if pair { b.map1(move |x: u32| f::map2(x, &f)) } else { b.map1(f) }
}

fn half2(b: &mut Build, pair: bool, f: impl Fn(u16, u16) -> u16 + Send + Sync + 'static) -> Compiled {
    if pair { b.map2(move |x: u32, y: u32| f::zip2(x, y, &f)) } else { b.map2(f) }
}

fn test(b: &mut Build) -> Compiled {
    use f::Property::*;
    let property = match b.one_of(&["finite", "infinite", "number", "notanumber", "normal", "subnormal"]) {
        Some("finite") => Finite,
        Some("infinite") => Infinite,
        Some("number") => Number,
        Some("notanumber") => NotANumber,
        Some("normal") => Normal,
        Some("subnormal") => Subnormal,
        _ => return Err("a property to test expected".into()),
    };
    match b.only_type()? {
        Type::F32 => b.predicate1(move |x: f32| f::has(x.classify(), property)),
        Type::F64 => b.predicate1(move |x: f64| f::has(x.classify(), property)),
        _ => Ok(None),
    }
}
