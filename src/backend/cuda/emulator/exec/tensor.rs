//! Instructions of the tensor cores, and those that move their fragments.

use super::super::matrix::{self, Accumulator, Element, Mma};
use super::data::space;
use super::memory::Address;
use super::*;

pub fn compile(b: &mut Build, name: &str) -> Compiled {
    match name {
        "mma" => mma(b),
        "ldmatrix" => load(b),
        "stmatrix" => store(b),
        "movmatrix" => {
            aligned(b)?;
            if !(b.take("m8n8") && b.take("trans") && b.only_type()? == Type::B16) {
                return Ok(None);
            }
            let (d, a) = (b.result::<u32>()?, b.source::<u32>(1)?);
            run(move |warp, _, mask| {
                warp.converged(mask)?;
                let out = matrix::transpose(warp.registers.get(a));
                warp.registers.set(d, &out, mask);
                Ok(())
            })
        }
        _ => Ok(None),
    }
}

fn aligned(b: &mut Build) -> Result<(), String> {
    if b.take("sync") && b.take("aligned") { Ok(()) } else { Err("`.sync.aligned` expected".into()) }
}

/// The registers of a fragment that is read.
fn fragment(b: &mut Build, at: usize) -> Result<Vec<Slot<u32>>, String> {
    match b.operand(at)? {
        Operand::Vector(parts) => parts.iter().map(|p| b.read(p)).collect(),
        one => Ok(vec![b.read(one)?]),
    }
}

/// The registers of a fragment that is written.
fn fragment_target(b: &mut Build, at: usize) -> Result<Vec<Slot<u32>>, String> {
    match b.operand(at)? {
        Operand::Vector(parts) => parts.iter().map(|p| b.write(p)).collect(),
        one => Ok(vec![b.write(one)?]),
    }
}

/// `mma.sync.aligned.shape.row.col.d.a.b.c d, a, b, c`
fn mma(b: &mut Build) -> Compiled {
    aligned(b)?;
    if !(b.take("row") && b.take("col")) {
        return Err("`.row.col` expected".into());
    }
    let k = match b.one_of(&["m16n8k4", "m16n8k8", "m16n8k16", "m16n8k32"]) {
        Some(shape) => shape["m16n8k".len()..].parse().unwrap_or(0),
        None => return Err("unknown shape".into()),
    };
    let saturates = b.take("satfinite");
    let element = |ty| match ty {
        Type::F16 => Some(Element::F16),
        Type::Bf16 => Some(Element::BF16),
        Type::Tf32 => Some(Element::TF32),
        Type::S8 => Some(Element::S8),
        Type::U8 => Some(Element::U8),
        _ => None,
    };
    let known = match b.types()[..] {
        [d, lhs, rhs, c] if d == c => {
            let accumulator = match d {
                Type::F32 => Some(Accumulator::F32),
                Type::F16 => Some(Accumulator::F16),
                Type::S32 if saturates => Some(Accumulator::S32Saturated),
                Type::S32 => Some(Accumulator::S32),
                _ => None,
            };
            element(lhs).zip(element(rhs)).zip(accumulator).and_then(|((lhs, rhs), sum)| Mma::new(k, lhs, rhs, sum))
        }
        _ => None,
    };
    let mma = known.ok_or("unknown combination of shape and types")?;
    let d = fragment_target(b, 0)?;
    let (lhs, rhs, addend) = (fragment(b, 1)?, fragment(b, 2)?, fragment(b, 3)?);
    let lengths = [lhs.len(), rhs.len(), addend.len(), d.len()];
    let sums = mma.accumulator_registers();
    if lengths != [mma.lhs_registers(), mma.rhs_registers(), sums, sums] {
        return Err("fragments of other lengths expected".into());
    }
    run(move |warp, block, mask| {
        warp.converged(mask)?;
        let registers = &warp.registers;
        // Shorter fragments repeat their first register behind their end, which nobody reads.
        let get = |slots: &[Slot<u32>]| -> [&Lanes<u32>; 4] {
            std::array::from_fn(|at| registers.get(*slots.get(at).unwrap_or(&slots[0])))
        };
        let (a, b, c) = (get(&lhs), get(&rhs), get(&addend));
        let out = mma.multiply(&a[..lhs.len()], &b[..rhs.len()], &c[..addend.len()]);
        for (&d, out) in d.iter().zip(&out) {
            warp.registers.set(d, out, mask);
        }
        block.counts.mma_flops += mma.flops();
        Ok(())
    })
}

/// The number of matrices and whether they are transposed.
fn matrices(b: &mut Build) -> Result<(usize, bool), String> {
    aligned(b)?;
    let count = match b.one_of(&["x1", "x2", "x4"]) {
        Some("x1") => 1,
        Some("x2") => 2,
        Some("x4") => 4,
        _ => return Err("`.x1`, `.x2` or `.x4` expected".into()),
    };
    if !b.take("m8n8") || space(b) != Some(Space::Shared) || b.only_type()? != Type::B16 {
        return Err("`.m8n8`, `.shared` and `.b16` expected".into());
    }
    Ok((count, b.take("trans")))
}

/// The lanes whose addresses count.
fn addressing(count: usize) -> u32 {
    (u64::MAX >> (64 - 8 * count)) as u32
}

fn load(b: &mut Build) -> Compiled {
    let (count, transposed) = matrices(b)?;
    let d = fragment_target(b, 0)?;
    if d.len() != count {
        return Err(format!("{count} registers expected"));
    }
    let (address, _) = Address::new(b, 1)?;
    run(move |warp, block, mask| {
        warp.converged(mask)?;
        let (who, addresses) = (block.who(warp), address.shared(&warp.registers));
        let mut rows = [[0; LANES]; 4];
        block.counts.shared_loads.count(addressing(count), &addresses, 16);
        let done = block.shared.read_lanes(who, addressing(count), &addresses, 16, &mut rows);
        done.map_err(|(lane, fault)| Trap::at(lane, fault))?;
        let out = matrix::distribute(&rows, count, transposed);
        for (&d, out) in d.iter().zip(&out) {
            warp.registers.set(d, out, mask);
        }
        Ok(())
    })
}

fn store(b: &mut Build) -> Compiled {
    let (count, transposed) = matrices(b)?;
    let (address, _) = Address::new(b, 0)?;
    let source = fragment(b, 1)?;
    if source.len() != count {
        return Err(format!("{count} registers expected"));
    }
    run(move |warp, block, mask| {
        warp.converged(mask)?;
        let (who, addresses) = (block.who(warp), address.shared(&warp.registers));
        let get = |at: usize| warp.registers.get(*source.get(at).unwrap_or(&source[0]));
        let fragment: [&Lanes<u32>; 4] = std::array::from_fn(get);
        let rows = matrix::collect(&fragment[..count], transposed);
        block.counts.shared_stores.count(addressing(count), &addresses, 16);
        let done = block.shared.write_lanes(who, addressing(count), &addresses, 16, &rows);
        done.map_err(|(lane, fault)| Trap::at(lane, fault))
    })
}
