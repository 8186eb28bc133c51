//! Integer arithmetic, logic and bits.

use super::*;

/// As `with_int!`, for the types that are as wide as 32 or 64 bits without a sign.
macro_rules! with_bits {
    ($ty:expr, $t:ident => $e:expr) => {
        match $ty.bytes() {
            4 => {
                type $t = u32;
                $e
            }
            8 => {
                type $t = u64;
                $e
            }
            _ => Ok(None),
        }
    };
}

/// The upper half of a product.
macro_rules! high {
    ($t:ty, $x:expr, $y:expr) => {
        // The product of two u64 wraps, which leaves the bits that are taken as they are.
        (($x as i128).wrapping_mul($y as i128) >> <$t>::BITS) as $t
    };
}
pub fn compile(b: &mut Build, name: &str) -> Compiled {
    match name {
        "add" | "sub" | "addc" | "subc" | "mul" | "mad" | "madc" | "mul24" | "mad24" | "div" | "rem" | "abs"
        | "neg" | "min" | "max" | "sad" => arithmetic(b, name),
        "and" | "or" | "xor" | "not" | "cnot" | "lop3" | "shl" | "shr" | "shf" => logic(b, name),
        "popc" | "clz" | "bfind" | "brev" | "bfe" | "bfi" | "prmt" => bits(b, name),
        "dp4a" | "dp2a" => dot(b, name),
        _ => Ok(None),
    }
}

fn arithmetic(b: &mut Build, name: &str) -> Compiled {
    let [ty] = b.types()[..] else { return Ok(None) };
    if b.modifiers.contains(&"cc") || name.ends_with('c') && name != "mul24" {
        return carrying(b, name, ty);
    }
    let part = b.one_of(&["lo", "hi", "wide"]);
    match (name, part) {
        ("add", None) if b.take("sat") => b.map2(|x: i32, y: i32| x.saturating_add(y)),
        ("sub", None) if b.take("sat") => b.map2(|x: i32, y: i32| x.saturating_sub(y)),
        ("add", None) => with_int!(ty, T => b.map2(|x: T, y: T| x.wrapping_add(y))),
        ("sub", None) => with_int!(ty, T => b.map2(|x: T, y: T| x.wrapping_sub(y))),
        ("mul", Some("lo")) => with_int!(ty, T => b.map2(|x: T, y: T| x.wrapping_mul(y))),
        ("mad", Some("lo")) => with_int!(ty, T => b.map3(|x: T, y: T, z: T| x.wrapping_mul(y).wrapping_add(z))),
        ("mul", Some("hi")) => with_int!(ty, T => b.map2(|x: T, y: T| high!(T, x, y))),
        ("mad", Some("hi")) if b.take("sat") => b.map3(|x: i32, y: i32, z: i32| high!(i32, x, y).saturating_add(z)),
        ("mad", Some("hi")) => with_int!(ty, T => b.map3(|x: T, y: T, z: T| high!(T, x, y).wrapping_add(z))),
        ("mul", Some("wide")) => match ty {
            Type::U16 => b.map2(|x: u16, y: u16| u32::from(x) * u32::from(y)),
            Type::S16 => b.map2(|x: i16, y: i16| i32::from(x) * i32::from(y)),
            Type::U32 => b.map2(|x: u32, y: u32| u64::from(x) * u64::from(y)),
            Type::S32 => b.map2(|x: i32, y: i32| i64::from(x) * i64::from(y)),
            _ => Ok(None),
        },
        ("mad", Some("wide")) => match ty {
            Type::U16 => b.map3(|x: u16, y: u16, z: u32| (u32::from(x) * u32::from(y)).wrapping_add(z)),
            Type::S16 => b.map3(|x: i16, y: i16, z: i32| (i32::from(x) * i32::from(y)).wrapping_add(z)),
            Type::U32 => b.map3(|x: u32, y: u32, z: u64| (u64::from(x) * u64::from(y)).wrapping_add(z)),
            Type::S32 => b.map3(|x: i32, y: i32, z: i64| (i64::from(x) * i64::from(y)).wrapping_add(z)),
            _ => Ok(None),
        },
        ("mul24", Some("lo")) if ty == Type::U32 => b.map2(|x: u32, y: u32| low24(x).wrapping_mul(low24(y))),
        ("mul24", Some("lo")) => b.map2(|x: i32, y: i32| low24s(x).wrapping_mul(low24s(y))),
        ("mad24", Some("lo")) if ty == Type::U32 => {
            b.map3(|x: u32, y: u32, z: u32| low24(x).wrapping_mul(low24(y)).wrapping_add(z))
        }
        ("mad24", Some("lo")) => b.map3(|x: i32, y: i32, z: i32| low24s(x).wrapping_mul(low24s(y)).wrapping_add(z)),
        // What a division by zero gives is not specified; GPUs give all ones, and the dividend as the remainder.
        ("div", None) => with_int!(ty, T => b.map2(|x: T, y: T| if y == 0 { !0 } else { x.wrapping_div(y) })),
        ("rem", None) => with_int!(ty, T => b.map2(|x: T, y: T| if y == 0 { x } else { x.wrapping_rem(y) })),
        ("min", None) => with_int!(ty, T => b.map2(|x: T, y: T| x.min(y))),
        ("max", None) => with_int!(ty, T => b.map2(|x: T, y: T| x.max(y))),
        ("abs", None) => match ty {
            Type::S16 => b.map1(|x: i16| x.wrapping_abs()),
            Type::S32 => b.map1(|x: i32| x.wrapping_abs()),
            Type::S64 => b.map1(|x: i64| x.wrapping_abs()),
            _ => Ok(None),
        },
        ("neg", None) => with_int!(ty, T => b.map1(|x: T| x.wrapping_neg())),
        ("sad", None) => {
            with_int!(ty, T => b.map3(|x: T, y: T, z: T| z.wrapping_add(if x < y { y.wrapping_sub(x) } else { x.wrapping_sub(y) })))
        }
        _ => Ok(None),
    }
}

fn low24(x: u32) -> u32 {
    x & 0xff_ffff
}

fn low24s(x: i32) -> i32 {
    x << 8 >> 8
}

/// Instructions that read (`addc`) or write (`.cc`) the carry flag; a borrow of `sub` is a carry that is not there, which
/// only the pair of `sub.cc` and `subc` sees.
fn carrying(b: &mut Build, name: &str, ty: Type) -> Compiled {
    let writes = b.take("cc");
    let reads = name.ends_with('c');
    let name = name.trim_end_matches('c');
    let high = b.one_of(&["lo", "hi"]) == Some("hi");
    with_bits!(ty, T => match name {
        "add" => carry(b, reads, writes, false, |x: T, y: T, _| (x, y)),
        "sub" => carry(b, reads, writes, true, |x: T, y: T, _| (x, y)),
        "mad" if high && matches!(ty, Type::S32 | Type::S64) => Err("`mad.hi.cc` of signed integers is not known".into()),
        "mad" if high => carry(b, reads, writes, false, |x: T, y: T, z: T| (((x as u128 * y as u128) >> T::BITS) as T, z)),
        "mad" => carry(b, reads, writes, false, |x: T, y: T, z: T| (x.wrapping_mul(y), z)),
        _ => Ok(None),
    })
}

/// `f` gives the two terms that are added, or subtracted, with the carry.
fn carry<T: Lane + Into<u128>>(
    b: &mut Build,
    reads: bool,
    writes: bool,
    subtract: bool,
    f: impl Fn(T, T, T) -> (T, T) + Send + Sync + 'static,
) -> Compiled {
    let (d, x, y) = (b.result::<T>()?, b.source::<T>(1)?, b.source::<T>(2)?);
    let z = if b.instruction.operands.len() > 3 { b.source::<T>(3)? } else { y };
    let bits = 8 * size_of::<T>();
    run(move |warp, _, mask| {
        let registers = &mut warp.registers;
        let carry_in = if reads { registers.carry } else { 0 };
        let mut out = [T::Word::default(); LANES];
        let mut carry_out = 0;
        for (lane, out) in out.iter_mut().enumerate() {
            let operand = |slot| T::get(registers.get(slot)[lane]);
            let (first, second) = f(operand(x), operand(y), operand(z));
            let (first, second): (u128, u128) = (first.into(), second.into());
            let carry = u128::from(carry_in >> lane & 1);
            let sum = if subtract { first.wrapping_sub(second).wrapping_sub(carry) } else { first + second + carry };
            *out = T::Word::from_bits(sum as u64);
            carry_out |= ((sum >> bits & 1) as u32) << lane;
        }
        registers.set(d, &out, mask);
        if writes {
            registers.carry = registers.carry & !mask | carry_out & mask;
        }
        Ok(())
    })
}

fn logic(b: &mut Build, name: &str) -> Compiled {
    let ty = b.only_type()?;
    match name {
        "and" if ty == Type::Pred => predicates(b, |x, y| x & y),
        "or" if ty == Type::Pred => predicates(b, |x, y| x | y),
        "xor" if ty == Type::Pred => predicates(b, |x, y| x ^ y),
        "not" if ty == Type::Pred => {
            let (d, a) = (b.mask_target(b.operand(0)?)?, b.mask(1)?);
            run(move |warp, _, mask| {
                let value = !warp.registers.mask(a);
                warp.registers.set_mask(d, value, mask);
                Ok(())
            })
        }
        "and" => with_int!(ty, T => b.map2(|x: T, y: T| x & y)),
        "or" => with_int!(ty, T => b.map2(|x: T, y: T| x | y)),
        "xor" => with_int!(ty, T => b.map2(|x: T, y: T| x ^ y)),
        "not" => with_int!(ty, T => b.map1(|x: T| !x)),
        "cnot" => with_int!(ty, T => b.map1(|x: T| (x == 0) as T)),
        // Amounts beyond the width count as the width.
        "shl" => with_int!(ty, T => b.map2(|x: T, by: u32| x.checked_shl(by).unwrap_or(0))),
        "shr" => {
            with_int!(ty, T => b.map2(|x: T, by: u32| x.checked_shr(by).unwrap_or(if x < (0 as T) { !0 } else { 0 })))
        }
        "shf" => {
            let (left, wraps) = (b.take("l"), b.take("wrap"));
            if !left && !b.take("r") || !wraps && !b.take("clamp") {
                return Err("a direction and a mode expected".into());
            }
            b.map3(move |low: u32, high: u32, by: u32| {
                let by = if wraps { by & 31 } else { by.min(32) };
                let both = u64::from(high) << 32 | u64::from(low);
                if left { (both << by >> 32) as u32 } else { (both >> by) as u32 }
            })
        }
        "lop3" => {
            let Operand::Int(table) = *b.operand(4)? else { return Err("a table of 8 bits expected".into()) };
            b.map3(move |x: u32, y: u32, z: u32| {
                let mut out = 0;
                for row in 0..8 {
                    let pick = |bit: u32, v: u32| if row >> bit & 1 != 0 { v } else { !v };
                    out |= if table >> row & 1 != 0 { pick(2, x) & pick(1, y) & pick(0, z) } else { 0 };
                }
                out
            })
        }
        _ => Ok(None),
    }
}

fn predicates(b: &mut Build, f: impl Fn(u32, u32) -> u32 + Send + Sync + 'static) -> Compiled {
    let (d, x, y) = (b.mask_target(b.operand(0)?)?, b.mask(1)?, b.mask(2)?);
    run(move |warp, _, mask| {
        let value = f(warp.registers.mask(x), warp.registers.mask(y));
        warp.registers.set_mask(d, value, mask);
        Ok(())
    })
}

fn bits(b: &mut Build, name: &str) -> Compiled {
    if name == "prmt" {
        return permute(b);
    }
    let ty = b.only_type()?;
    match name {
        "popc" => with_bits!(ty, T => b.map1(|x: T| x.count_ones())),
        "clz" => with_bits!(ty, T => b.map1(|x: T| x.leading_zeros())),
        "brev" => with_bits!(ty, T => b.map1(|x: T| x.reverse_bits())),
        "bfind" => {
            let shift = b.take("shiftamt");
            let signed = matches!(ty, Type::S32 | Type::S64);
            with_bits!(ty, T => b.map1(move |x: T| {
                let negative = signed && x >> (T::BITS - 1) != 0;
                let x = if negative { !x } else { x };
                match x {
                    0 => u32::MAX,
                    _ if shift => x.leading_zeros(),
                    _ => T::BITS - 1 - x.leading_zeros(),
                }
            }))
        }
        "bfe" => {
            let signed = matches!(ty, Type::S32 | Type::S64);
            with_bits!(ty, T => b.map3(move |x: T, start: u32, length: u32| {
                let (start, length) = (start & 0xff, length & 0xff);
                let sign = signed && length > 0 && x >> (start + length - 1).min(T::BITS - 1) & 1 != 0;
                let field = x.checked_shr(start).unwrap_or(0);
                let above = (!0 as T).checked_shl(length.min(T::BITS - start.min(T::BITS))).unwrap_or(0);
                if sign { field | above } else { field & !(!0 as T).checked_shl(length).unwrap_or(0) }
            }))
        }
        "bfi" => {
            // bfi d, field, base, start, length
            let (start, length) = (b.source::<u32>(3)?, b.source::<u32>(4)?);
            with_bits!(ty, T => {
                let (d, field, base) = (b.result::<T>()?, b.source::<T>(1)?, b.source::<T>(2)?);
                run(move |warp, _, mask| {
                    let registers = &warp.registers;
                    let (field, base) = (registers.get(field), registers.get(base));
                    let (start, length) = (registers.get(start), registers.get(length));
                    let mut out = [0 as T; LANES];
                    for lane in 0..LANES {
                        let (start, length) = (start[lane] & 0xff, length[lane] & 0xff);
                        let ones = !(!0 as T).checked_shl(length).unwrap_or(0);
                        let ones = ones.checked_shl(start).unwrap_or(0);
                        out[lane] = base[lane] & !ones | field[lane].checked_shl(start).unwrap_or(0) & ones;
                    }
                    warp.registers.set(d, &out, mask);
                    Ok(())
                })
            })
        }
        _ => Ok(None),
    }
}

fn permute(b: &mut Build) -> Compiled {
    if b.only_type()? != Type::B32 {
        return Ok(None);
    }
    if let Some(mode) = b.one_of(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]) {
        return b.map3(move |x: u32, y: u32, selector: u32| {
            let i = selector as usize & 3;
            let from = match mode {
                "f4e" => [i, i + 1, i + 2, i + 3],
                "b4e" => [i, (i + 7) & 7, (i + 6) & 7, (i + 5) & 7],
                "rc8" => [i; 4],
                "ecl" => [i, 1.max(i), 2.max(i), 3],
                "ecr" => [0, 1.min(i), 2.min(i), i],
                _ => [(i & 1) * 2, (i & 1) * 2 + 1, (i & 1) * 2, (i & 1) * 2 + 1],
            };
            let bytes = (u64::from(y) << 32 | u64::from(x)).to_le_bytes();
            u32::from_le_bytes(from.map(|at| bytes[at]))
        });
    }
    b.map3(|x: u32, y: u32, selector: u32| {
        let both = u64::from(y) << 32 | u64::from(x);
        let mut out = 0;
        for byte in 0..4 {
            let pick = selector >> (4 * byte);
            let value = (both >> (8 * (pick & 7))) as u8;
            // Bit 3 spreads the sign.
            let value = if pick & 8 != 0 { (value as i8 >> 7) as u8 } else { value };
            out |= u32::from(value) << (8 * byte);
        }
        out
    })
}

/// Sums of products of bytes (`dp4a`), or of two halves with two bytes (`dp2a`).
fn dot(b: &mut Build, name: &str) -> Compiled {
    let [first, second] = b.types()[..] else { return Err("two types expected".into()) };
    let (first, second) = (first == Type::S32, second == Type::S32);
    let byte = |signed: bool, x: u32, at: u32| {
        let byte = (x >> (8 * at)) as u8;
        if signed { i64::from(byte as i8) } else { i64::from(byte) }
    };
    if name == "dp4a" {
        return b.map3(move |x: u32, y: u32, sum: u32| {
            let products: i64 = (0..4).map(|at| byte(first, x, at) * byte(second, y, at)).sum();
            sum.wrapping_add(products as u32)
        });
    }
    let high = match b.one_of(&["lo", "hi"]) {
        Some(part) => 2 * (part == "hi") as u32,
        None => return Err("`.lo` or `.hi` expected".into()),
    };
    b.map3(move |x: u32, y: u32, sum: u32| {
        let half = |at: u32| {
            let half = (x >> (16 * at)) as u16;
            if first { i64::from(half as i16) } else { i64::from(half) }
        };
        let products: i64 = (0..2).map(|at| half(at) * byte(second, y, high + at)).sum();
        sum.wrapping_add(products as u32)
    })
}
