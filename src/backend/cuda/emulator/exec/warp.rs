//! Instructions in which the lanes of a warp exchange values, and `trap`.

use super::super::fault::Fault;
use super::*;

pub fn compile(b: &mut Build, name: &str) -> Compiled {
    match name {
        "shfl" => shuffle(b),
        "vote" => vote(b),
        "match" => matching(b),
        "redux" => reduce(b),
        "elect" => elect(b),
        "activemask" => {
            b.only_type()?;
            let d = b.result::<u32>()?;
            run(move |warp, _, mask| {
                warp.registers.set(d, &[mask; LANES], mask);
                Ok(())
            })
        }
        "bar" | "barrier" => {
            if !(b.take("warp") && b.take("sync")) {
                return Ok(None);
            }
            let members = b.source::<u32>(0)?;
            run(move |warp, _, mask| warp.members(members, mask).map(drop))
        }
        "trap" | "brkpt" => run(|_, _, mask| {
            Err(Trap::at(mask.trailing_zeros() as usize, Fault::Other("the kernel gives up: trap".into())))
        }),
        _ => Ok(None),
    }
}

/// `shfl.sync.mode.b32 d|p, a, b, c, members`
fn shuffle(b: &mut Build) -> Compiled {
    if !b.take("sync") || b.only_type()? != Type::B32 {
        return Err("`.sync` and `.b32` expected".into());
    }
    let mode = b.one_of(&["up", "down", "bfly", "idx"]).ok_or("a mode expected")?;
    let (d, p) = match b.operand(0)? {
        Operand::Pair(d, p) => (b.write::<u32>(d)?, Some(b.mask_target(p)?)),
        d => (b.write::<u32>(d)?, None),
    };
    let (value, by) = (b.source::<u32>(1)?, b.source::<u32>(2)?);
    let (clamp, members) = (b.source::<u32>(3)?, b.source::<u32>(4)?);
    // Each mode has a loop of its own.
    match mode {
        "up" => shuffled::<true>(d, p, value, by, clamp, members, |lane, by, _| lane - by),
        "down" => shuffled::<false>(d, p, value, by, clamp, members, |lane, by, _| lane + by),
        "bfly" => shuffled::<false>(d, p, value, by, clamp, members, |lane, by, _| lane ^ by),
        _ => shuffled::<false>(d, p, value, by, clamp, members, |lane, by, segments| lane & segments | by & !segments),
    }
}

/// `source` gives the lane to read from; `UP` compares it with the lowest lane of the segment, not with the highest.
fn shuffled<const UP: bool>(
    d: Slot<u32>,
    p: Option<u32>,
    value: Slot<u32>,
    by: Slot<u32>,
    clamp: Slot<u32>,
    members: Slot<u32>,
    source: impl Fn(i32, i32, i32) -> i32 + Send + Sync + 'static,
) -> Compiled {
    run(move |warp, _, mask| {
        let all = warp.members(members, mask)?;
        let registers = &warp.registers;
        let (values, by, clamp) = (registers.get(value), registers.get(by), registers.get(clamp));
        let (mut out, mut inside) = (*values, 0);
        let mut stray = 0;
        for lane in 0..LANES {
            let segments = (clamp[lane] >> 8 & 31) as i32;
            let (lane_id, c) = (lane as i32, (clamp[lane] & 31) as i32);
            let end = lane_id & segments | c & !segments;
            let from = source(lane_id, (by[lane] & 31) as i32, segments);
            let is_inside = if UP { from >= end } else { from <= end };
            if is_inside {
                inside |= 1 << lane;
                let from = (from & 31) as usize;
                out[lane] = values[from];
                stray |= u32::from(all >> from & 1 == 0) << lane;
            }
        }
        if stray & mask != 0 {
            let lane = (stray & mask).trailing_zeros() as usize;
            return Err(Trap::at(
                lane,
                Fault::Other(format!("it reads from a lane that the member mask {all:#010x} lacks")),
            ));
        }
        warp.registers.set(d, &out, mask);
        if let Some(p) = p {
            warp.registers.set_mask(p, inside, mask);
        }
        Ok(())
    })
}

fn vote(b: &mut Build) -> Compiled {
    if !b.take("sync") {
        return Err("`.sync` expected".into());
    }
    let mode = b.one_of(&["all", "any", "uni", "ballot"]).ok_or("a mode expected")?;
    b.only_type()?;
    let (predicate, members) = (b.mask(1)?, b.source::<u32>(2)?);
    if mode == "ballot" {
        let d = b.result::<u32>()?;
        return run(move |warp, _, mask| {
            warp.members(members, mask)?;
            let votes = warp.registers.mask(predicate) & mask;
            warp.registers.set(d, &[votes; LANES], mask);
            Ok(())
        });
    }
    let d = b.mask_target(b.operand(0)?)?;
    run(move |warp, _, mask| {
        warp.members(members, mask)?;
        let votes = warp.registers.mask(predicate) & mask;
        let holds = match mode {
            "all" => votes == mask,
            "any" => votes != 0,
            _ => votes == mask || votes == 0,
        };
        warp.registers.set_mask(d, if holds { FULL } else { 0 }, mask);
        Ok(())
    })
}

/// `match.any` gives the lanes with the same value; `match.all` all lanes, or none where values differ.
fn matching(b: &mut Build) -> Compiled {
    if !b.take("sync") {
        return Err("`.sync` expected".into());
    }
    let all = match b.one_of(&["any", "all"]) {
        Some(mode) => mode == "all",
        None => return Err("a mode expected".into()),
    };
    let ty = b.only_type()?;
    let (d, p) = match b.operand(0)? {
        Operand::Pair(d, p) => (b.write::<u32>(d)?, Some(b.mask_target(p)?)),
        d => (b.write::<u32>(d)?, None),
    };
    let members = b.source::<u32>(2)?;
    let (word, long) = match ty.width() {
        Width::Long => (None, Some(b.source::<u64>(1)?)),
        _ => (Some(b.source::<u32>(1)?), None),
    };
    run(move |warp, _, mask| {
        warp.members(members, mask)?;
        let registers = &mut warp.registers;
        let values = match (word, long) {
            (Some(word), _) => registers.get(word).map(u64::from),
            (_, Some(long)) => *registers.get(long),
            _ => [0; LANES],
        };
        let mut out = [0; LANES];
        for lane in lanes(mask) {
            let same = lanes(mask).filter(|&other| values[other] == values[lane]);
            let same = same.fold(0, |same, lane| same | 1 << lane);
            out[lane] = if all && same != mask { 0 } else { same };
        }
        registers.set(d, &out, mask);
        if let Some(p) = p {
            let holds = if out[mask.trailing_zeros() as usize] == mask { FULL } else { 0 };
            registers.set_mask(p, holds, mask);
        }
        Ok(())
    })
}

fn reduce(b: &mut Build) -> Compiled {
    if !b.take("sync") {
        return Err("`.sync` expected".into());
    }
    let name = b.one_of(&["add", "min", "max", "and", "or", "xor"]).ok_or("an operation expected")?;
    let f: fn(u32, u32) -> u32 = match (name, b.only_type()?) {
        ("add", Type::U32 | Type::S32) => u32::wrapping_add,
        ("min", Type::U32) => u32::min,
        ("max", Type::U32) => u32::max,
        ("min", Type::S32) => |x, y| (x as i32).min(y as i32) as u32,
        ("max", Type::S32) => |x, y| (x as i32).max(y as i32) as u32,
        ("and", Type::B32) => |x, y| x & y,
        ("or", Type::B32) => |x, y| x | y,
        ("xor", Type::B32) => |x, y| x ^ y,
        _ => return Err("no such reduction".into()),
    };
    let (d, value, members) = (b.result::<u32>()?, b.source::<u32>(1)?, b.source::<u32>(2)?);
    run(move |warp, _, mask| {
        warp.members(members, mask)?;
        let values = warp.registers.get(value);
        let sum = lanes(mask).map(|lane| values[lane]).reduce(f).unwrap_or(0);
        warp.registers.set(d, &[sum; LANES], mask);
        Ok(())
    })
}

/// `elect.sync d|p, members`: the lowest lane is the leader.
fn elect(b: &mut Build) -> Compiled {
    if !b.take("sync") {
        return Err("`.sync` expected".into());
    }
    let Operand::Pair(d, p) = b.operand(0)? else { return Err("`d|p` expected".into()) };
    let (d, p, members) = (b.write::<u32>(d)?, b.mask_target(p)?, b.source::<u32>(1)?);
    run(move |warp, _, mask| {
        let leader = warp.members(members, mask)?.trailing_zeros();
        warp.registers.set(d, &[leader; LANES], mask);
        warp.registers.set_mask(p, 1 << leader, mask);
        Ok(())
    })
}
