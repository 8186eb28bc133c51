//! Moves, comparisons and selections.

use super::*;

pub fn compile(b: &mut Build, name: &str) -> Compiled {
    match name {
        "mov" => mov(b),
        "setp" => setp(b),
        "set" => set(b),
        "selp" => selp(b),
        "slct" => slct(b),
        "cvta" => cvta(b),
        "isspacep" => isspacep(b),
        _ => Ok(None),
    }
}

/// The mask of the lanes where a function of the lane holds.
#[inline(always)]
fn where_lanes(f: impl Fn(usize) -> bool) -> u32 {
    widest(|| {
        let mut holds = 0;
        for lane in 0..LANES {
            holds |= u32::from(f(lane)) << lane;
        }
        holds
    })
}

impl Build<'_> {
    /// `p = f(a)` for each lane.
    pub fn predicate1<A: Lane>(&mut self, f: impl Fn(A) -> bool + Send + Sync + 'static) -> Compiled {
        let (d, a) = (self.mask_target(self.operand(0)?)?, self.source::<A>(1)?);
        run(move |warp, _, mask| {
            let a = warp.registers.get(a);
            let holds = where_lanes(|lane| f(A::get(a[lane])));
            warp.registers.set_mask(d, holds, mask);
            Ok(())
        })
    }
}

fn mov(b: &mut Build) -> Compiled {
    let ty = b.only_type()?;
    match (b.operand(0)?, b.operand(1)?) {
        (_, Operand::Special(special)) if special.is_clock() => clock(b, *special),
        (Operand::Register(_), Operand::Vector(parts)) => pack(b, ty, parts),
        (Operand::Vector(parts), _) => unpack(b, ty, parts),
        (target, _) if ty == Type::Pred => {
            let (d, a) = (b.mask_target(target)?, b.mask(1)?);
            run(move |warp, _, mask| {
                let value = warp.registers.mask(a);
                warp.registers.set_mask(d, value, mask);
                Ok(())
            })
        }
        _ if ty.width() == Width::Long => b.map1(|x: u64| x),
        _ => b.map1(|x: u32| x),
    }
}

fn clock(b: &mut Build, special: Special) -> Compiled {
    let long = special.width() == Width::Long;
    let (word, wide) = if long { (None, Some(b.result::<u64>()?)) } else { (Some(b.result::<u32>()?), None) };
    run(move |warp, block, mask| {
        let now = match special {
            Special::GlobalTimer => block.nanoseconds(),
            Special::ClockHi => block.steps >> 32,
            _ => block.steps,
        };
        if let Some(d) = word {
            warp.registers.set(d, &[now as u32; LANES], mask);
        }
        if let Some(d) = wide {
            warp.registers.set(d, &[now; LANES], mask);
        }
        Ok(())
    })
}

/// `mov.b64 d, {a, b}`: the first part is the lowest.
fn pack(b: &mut Build, ty: Type, parts: &[Operand]) -> Compiled {
    let bits = 8 * ty.bytes() as u32 / parts.len().max(1) as u32;
    let parts = parts.iter().map(|p| b.read::<u32>(p)).collect::<Result<Vec<_>, _>>()?;
    if bits > 32 {
        return Err("parts of 32 bits at most expected".into());
    }
    let ones = u32::MAX >> (32 - bits);
    let joined = move |registers: &Registers| {
        let mut out = [0u64; LANES];
        for (at, &part) in parts.iter().enumerate() {
            let (part, shift) = (registers.get(part), at as u32 * bits);
            out = each_lane(|lane| out[lane] | u64::from(part[lane] & ones) << shift);
        }
        out
    };
    match ty.width() {
        Width::Long => {
            let d = b.result::<u64>()?;
            run(move |warp, _, mask| {
                let out = joined(&warp.registers);
                warp.registers.set(d, &out, mask);
                Ok(())
            })
        }
        _ => {
            let d = b.result::<u32>()?;
            run(move |warp, _, mask| {
                let out = joined(&warp.registers);
                let out = each_lane(|lane| out[lane] as u32);
                warp.registers.set(d, &out, mask);
                Ok(())
            })
        }
    }
}

/// `mov.b64 {a, b}, d`.
fn unpack(b: &mut Build, ty: Type, parts: &[Operand]) -> Compiled {
    let bits = 8 * ty.bytes() as u32 / parts.len().max(1) as u32;
    let parts = parts.iter().map(|p| b.write::<u32>(p)).collect::<Result<Vec<_>, _>>()?;
    if bits > 32 {
        return Err("parts of 32 bits at most expected".into());
    }
    let ones = u32::MAX >> (32 - bits);
    let (word, long) = match ty.width() {
        Width::Long => (None, Some(b.source::<u64>(1)?)),
        _ => (Some(b.source::<u32>(1)?), None),
    };
    run(move |warp, _, mask| {
        let mut value = [0; LANES];
        match (word, long) {
            (Some(word), _) => {
                let word = warp.registers.get(word);
                value = each_lane(|lane| word[lane].into());
            }
            (_, Some(long)) => value = *warp.registers.get(long),
            _ => (),
        }
        for (at, &part) in parts.iter().enumerate() {
            let out = each_lane(|lane| (value[lane] >> (at as u32 * bits)) as u32 & ones);
            warp.registers.set(part, &out, mask);
        }
        Ok(())
    })
}

/// The lanes where a comparison holds.
type Comparison = Box<dyn Fn(&Registers) -> u32 + Send + Sync>;

const COMPARISONS: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan",
];

fn comparison(b: &mut Build, ty: Type) -> Result<Comparison, String> {
    let name = b.one_of(&COMPARISONS).ok_or("a comparison expected")?;
    // Subnormal operands that count as zero differ from others in comparisons of subnormals alone.
    b.take("ftz");
    let others = || Err("this type is not compared".into());
    with_int!(ty, T => ordered::<T>(b, name), else with_float!(ty, T => ordered::<T>(b, name), else others()))
}

/// Five comparisons are all of them, with operands the other way round, and negated where they hold for NaNs as well.
#[expect(clippy::eq_op, clippy::double_comparisons)]
fn ordered<T: Lane + PartialOrd>(b: &mut Build, name: &str) -> Result<Comparison, String> {
    let (swap, negate) = match name {
        "gt" | "hi" | "ge" | "hs" => (true, false),
        "ltu" | "leu" => (true, true),
        "equ" | "neu" | "gtu" | "geu" | "nan" => (false, true),
        _ => (false, false),
    };
    match name {
        "eq" | "neu" => compared(b, swap, negate, |x: T, y: T| x == y),
        "ne" | "equ" => compared(b, swap, negate, |x: T, y: T| x < y || x > y),
        "lt" | "lo" | "gt" | "hi" | "leu" | "geu" => compared(b, swap, negate, |x: T, y: T| x < y),
        "num" | "nan" => compared(b, swap, negate, |x: T, y: T| x == x && y == y),
        _ => compared(b, swap, negate, |x: T, y: T| x <= y),
    }
}

fn compared<T: Lane>(
    b: &mut Build,
    swap: bool,
    negate: bool,
    f: impl Fn(T, T) -> bool + Send + Sync + 'static,
) -> Result<Comparison, String> {
    let (x, y) = (b.source::<T>(1)?, b.source::<T>(2)?);
    let (x, y) = if swap { (y, x) } else { (x, y) };
    let flip = if negate { FULL } else { 0 };
    Ok(Box::new(move |registers| {
        let (x, y) = (registers.get(x), registers.get(y));
        where_lanes(|lane| f(T::get(x[lane]), T::get(y[lane]))) ^ flip
    }))
}

type Combine = fn(u32, u32) -> u32;

/// How the result of a comparison is combined with a predicate.
fn combination(b: &mut Build) -> Result<(Combine, Option<Mask>), String> {
    let f: Combine = match b.one_of(&["and", "or", "xor"]) {
        None => return Ok((|holds, _| holds, None)),
        Some("and") => |holds, with| holds & with,
        Some("or") => |holds, with| holds | with,
        _ => |holds, with| holds ^ with,
    };
    Ok((f, Some(b.mask(3)?)))
}

fn setp(b: &mut Build) -> Compiled {
    let ty = b.only_type()?;
    let (combine, with) = combination(b)?;
    let (p, q) = match b.operand(0)? {
        Operand::Pair(p, q) => (b.mask_target(p)?, Some(b.mask_target(q)?)),
        p => (b.mask_target(p)?, None),
    };
    let compare = comparison(b, ty)?;
    run(move |warp, _, mask| {
        let registers = &mut warp.registers;
        let holds = compare(registers);
        let with = with.map_or(0, |w| registers.mask(w));
        registers.set_mask(p, combine(holds, with), mask);
        if let Some(q) = q {
            registers.set_mask(q, combine(!holds, with), mask);
        }
        Ok(())
    })
}

/// As `setp`, with a result of all ones, or 1.0.
fn set(b: &mut Build) -> Compiled {
    let [to, from] = b.types()[..] else { return Err("two types expected".into()) };
    let (combine, with) = combination(b)?;
    let (d, compare) = (b.result::<u32>()?, comparison(b, from)?);
    let yes = match to {
        Type::F32 => 1f32.to_bits(),
        Type::U32 | Type::S32 => u32::MAX,
        Type::U16 | Type::S16 => u32::from(u16::MAX),
        _ => return Ok(None),
    };
    run(move |warp, _, mask| {
        let registers = &mut warp.registers;
        let with = with.map_or(0, |w| registers.mask(w));
        let holds = combine(compare(registers), with);
        let out = each_lane(|lane| if holds >> lane & 1 != 0 { yes } else { 0 });
        registers.set(d, &out, mask);
        Ok(())
    })
}

fn selp(b: &mut Build) -> Compiled {
    let ty = b.only_type()?;
    let with = b.mask(3)?;
    if ty.width() == Width::Long { select::<u64>(b, with) } else { select::<u32>(b, with) }
}

fn select<T: Lane<Word = T> + Word>(b: &mut Build, with: Mask) -> Compiled {
    let (d, x, y) = (b.result::<T>()?, b.source::<T>(1)?, b.source::<T>(2)?);
    run(move |warp, _, mask| {
        let registers = &mut warp.registers;
        let (with, x, y) = (registers.mask(with), registers.get(x), registers.get(y));
        let out = each_lane(|lane| if with >> lane & 1 != 0 { x[lane] } else { y[lane] });
        registers.set(d, &out, mask);
        Ok(())
    })
}

/// `d = c >= 0 ? a : b`
fn slct(b: &mut Build) -> Compiled {
    let [ty, by] = b.types()[..] else { return Err("two types expected".into()) };
    b.take("ftz");
    match (ty.width(), by) {
        (Width::Word, Type::S32) => b.map3(|x: u32, y: u32, c: i32| if c >= 0 { x } else { y }),
        (Width::Word, Type::F32) => b.map3(|x: u32, y: u32, c: f32| if c >= 0.0 { x } else { y }),
        (Width::Long, Type::S32) => b.map3(|x: u64, y: u64, c: i32| if c >= 0 { x } else { y }),
        (Width::Long, Type::F32) => b.map3(|x: u64, y: u64, c: f32| if c >= 0.0 { x } else { y }),
        _ => Ok(None),
    }
}

/// Where a space begins inside of the generic one.
fn window(space: Space) -> u64 {
    match space {
        Space::Shared => SHARED_WINDOW,
        Space::Local => LOCAL_WINDOW,
        Space::Param => PARAM_WINDOW,
        Space::Global | Space::Const | Space::Generic => 0,
    }
}

/// The space among the modifiers.
pub fn space(b: &mut Build) -> Option<Space> {
    let at = b.modifiers.iter().position(|m| Space::parse(m).is_some())?;
    Space::parse(b.modifiers.remove(at))
}

fn cvta(b: &mut Build) -> Compiled {
    let to = b.take("to");
    let mut base = window(space(b).ok_or("a space expected")?);
    // Parameters of a function, unlike those of a kernel, are in local memory.
    if base == PARAM_WINDOW && !b.function.is_entry {
        base = LOCAL_WINDOW;
    }
    if b.only_type()?.width() != Width::Long {
        return Ok(None);
    }
    if to { b.map1(move |x: u64| x.wrapping_sub(base)) } else { b.map1(move |x: u64| x.wrapping_add(base)) }
}

fn isspacep(b: &mut Build) -> Compiled {
    let inside = |base: u64| move |x: u64| x & !(WINDOW_BYTES - 1) == base;
    match space(b).ok_or("a space expected")? {
        Space::Shared => b.predicate1(inside(SHARED_WINDOW)),
        Space::Local => b.predicate1(inside(LOCAL_WINDOW)),
        Space::Param => b.predicate1(inside(PARAM_WINDOW)),
        // Constants lie in global memory here, and a kernel that asks has a pointer that may be either.
        Space::Global => b.predicate1(|x: u64| x >= PARAM_WINDOW + WINDOW_BYTES),
        Space::Const | Space::Generic => Err("constant memory is not told from global memory".into()),
    }
}
