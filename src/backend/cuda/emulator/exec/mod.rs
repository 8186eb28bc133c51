//! Instructions become closures, once, when a module is loaded: operands are places in the register files, and the operation
//! is chosen outside of the loop over the lanes.

#[macro_use]
mod types;

mod convert;
mod data;
mod float;
mod integer;
mod memory;
mod tensor;
mod warp;

use super::allocate::Touch;
use super::block::{Block, Warp};
use super::fault::Fault;
use super::ir::*;
use super::registers::*;
use super::simd::widest;
use std::collections::HashMap;

/// A fault, and the lane that it is about.
#[derive(Debug)]
pub struct Trap {
    pub lane: Option<usize>,
    pub fault: Fault,
}

impl Trap {
    /// A fault of a lane.
    #[cold]
    pub fn at(lane: usize, fault: Fault) -> Box<Trap> {
        Box::new(Trap { lane: Some(lane), fault })
    }

    /// A fault in words.
    #[cold]
    pub fn new(why: impl Into<String>) -> Box<Trap> {
        Box::new(Trap { lane: None, fault: Fault::Other(why.into()) })
    }
}

pub type Outcome = Result<(), Box<Trap>>;

/// An instruction that does not touch the flow of control: it runs for the lanes of the mask, at least one.
pub type Run = Box<dyn Fn(&mut Warp, &mut Block, u32) -> Outcome + Send + Sync>;

/// `None` where the instruction is somebody else's; an error says why it cannot be executed.
pub type Compiled = Result<Option<Run>, String>;

/// Addresses of the spaces inside of the generic one.
pub const SHARED_WINDOW: u64 = 1 << 40;
pub const LOCAL_WINDOW: u64 = 2 << 40;
pub const PARAM_WINDOW: u64 = 3 << 40;
pub const WINDOW_BYTES: u64 = 1 << 32;

/// Registers that hold the same for a whole launch or block, besides those of the functions.
#[derive(Default)]
pub struct Pool {
    pub words: u32,
    pub longs: u32,
    pub predicates: u32,
    pub constants: Vec<(u32, u32)>,
    pub long_constants: Vec<(u32, u64)>,
    pub specials: Vec<(u32, Special)>,
    known: HashMap<(Width, u64), u32>,
}

impl Pool {
    fn constant(&mut self, width: Width, bits: u64) -> u32 {
        if let Some(&slot) = self.known.get(&(width, bits)) {
            return slot;
        }
        let slot = self.fresh(width);
        match width {
            Width::Word => self.constants.push((slot, bits as u32)),
            Width::Long => self.long_constants.push((slot, bits)),
            // They begin as zero.
            Width::Predicate => (),
        }
        self.known.insert((width, bits), slot);
        slot
    }

    fn special(&mut self, special: Special) -> u32 {
        if let Some(known) = self.specials.iter().find(|s| s.1 == special) {
            return known.0;
        }
        let slot = self.fresh(Width::Word);
        self.specials.push((slot, special));
        slot
    }

    /// A register of its own.
    pub fn fresh(&mut self, width: Width) -> u32 {
        let count = match width {
            Width::Word => &mut self.words,
            Width::Long => &mut self.longs,
            Width::Predicate => &mut self.predicates,
        };
        *count += 1;
        *count - 1
    }
}

/// What is known while an instruction is compiled.
pub struct Build<'a> {
    pub pool: &'a mut Pool,
    /// The places of the function's registers.
    pub places: &'a [u32],
    pub function: &'a Function,
    /// Addresses of the module's and of the function's variables, each in its own space.
    pub module_variables: &'a [(Space, u64)],
    pub variables: &'a [(Space, u64)],
    pub instruction: &'a Instruction,
    /// What it does with registers, as far as it was asked for.
    pub touches: Vec<Touch>,
    /// Modifiers that nobody has asked for yet.
    pub modifiers: Vec<&'a str>,
}

/// Compiles an instruction that does not touch the flow of control.
pub fn compile(build: &mut Build) -> Result<Run, String> {
    type Part = fn(&mut Build, &str) -> Compiled;
    let parts: [Part; 7] = [
        integer::compile,
        float::compile,
        convert::compile,
        data::compile,
        memory::compile,
        warp::compile,
        tensor::compile,
    ];
    let name = build.instruction.name();
    let (modifiers, touches) = (build.modifiers.clone(), build.touches.len());
    for part in parts {
        if let Some(run) = part(build, name)? {
            build.finish()?;
            return Ok(run);
        }
        // A part that declines may have looked at the modifiers.
        build.modifiers.clone_from(&modifiers);
        build.touches.truncate(touches);
    }
    Err("unknown instruction".into())
}

impl<'a> Build<'a> {
    /// The instruction's guard.
    pub fn guard(&mut self) -> Option<Mask> {
        let (register, negated) = self.instruction.guard?;
        self.touches.push(Touch::Read(register));
        Some(Mask { index: self.places[register as usize], flip: if negated { FULL } else { 0 } })
    }

    /// What the instruction does with registers, reads before writes. What it writes under a guard stays what it was in
    /// other lanes, as if it were read.
    pub fn touched(mut self) -> Vec<Touch> {
        let writes = self.touches.iter().filter_map(|touch| match touch {
            Touch::Write(register) if self.instruction.guard.is_some() => Some(Touch::Read(*register)),
            _ => None,
        });
        let kept: Vec<Touch> = writes.collect();
        self.touches.extend(kept);
        self.touches.sort();
        self.touches
    }

    /// Whether the instruction has a modifier.
    pub fn take(&mut self, modifier: &str) -> bool {
        match self.modifiers.iter().position(|m| *m == modifier) {
            Some(at) => {
                self.modifiers.remove(at);
                true
            }
            None => false,
        }
    }

    /// Which one of several modifiers the instruction has.
    pub fn one_of<'n>(&mut self, names: &[&'n str]) -> Option<&'n str> {
        names.iter().copied().find(|name| self.take(name))
    }

    /// Drops modifiers that change nothing here.
    pub fn ignore(&mut self, modifiers: &[&str]) {
        self.modifiers.retain(|m| !modifiers.contains(m));
    }

    /// The types among the modifiers, in order.
    pub fn types(&mut self) -> Vec<Type> {
        let types = self.modifiers.iter().filter_map(|m| Type::parse(m)).collect();
        self.modifiers.retain(|m| Type::parse(m).is_none());
        types
    }

    /// The only type.
    pub fn only_type(&mut self) -> Result<Type, String> {
        match self.types()[..] {
            [ty] => Ok(ty),
            _ => Err("one type expected".into()),
        }
    }

    /// An error if the instruction has a modifier that nobody has asked for.
    pub fn finish(&self) -> Result<(), String> {
        match self.modifiers.first() {
            Some(modifier) => Err(format!("unknown modifier `.{modifier}`")),
            None => Ok(()),
        }
    }

    pub fn operand(&self, at: usize) -> Result<&'a Operand, String> {
        self.instruction.operands.get(at).ok_or_else(|| format!("operand {} is missing", at + 1))
    }

    /// The address of a variable in its space.
    pub fn symbol(&self, symbol: Symbol) -> (Space, u64) {
        match symbol {
            Symbol::Module(index) => self.module_variables[index],
            Symbol::Function(index) => self.variables[index],
        }
    }

    /// The place of an operand that is read, and how it is kept; constants are as wide as `wanted`.
    pub fn place(&mut self, operand: &Operand, wanted: Width) -> Result<(Width, u32), String> {
        let bits = match operand {
            Operand::Register(register) => {
                self.touches.push(Touch::Read(*register));
                return Ok((self.function.registers[*register as usize], self.places[*register as usize]));
            }
            Operand::Special(special) if !special.is_clock() => return Ok((Width::Word, self.pool.special(*special))),
            Operand::Int(value) => *value,
            Operand::F32(bits) => (*bits).into(),
            Operand::F64(bits) if wanted == Width::Word => (f64::from_bits(*bits) as f32).to_bits().into(),
            Operand::F64(bits) => *bits,
            Operand::Symbol(symbol, offset) => self.symbol(*symbol).1.wrapping_add_signed(*offset),
            other => return Err(format!("{other:?} is no operand to read")),
        };
        Ok((wanted, self.pool.constant(wanted, bits)))
    }

    /// An operand that is read.
    pub fn read<T: Lane>(&mut self, operand: &Operand) -> Result<Slot<T>, String> {
        match self.place(operand, T::Word::WIDTH)? {
            (width, slot) if width == T::Word::WIDTH => Ok(Slot::new(slot)),
            (width, _) => Err(format!("a {width:?} register where {:?} is expected", T::Word::WIDTH)),
        }
    }

    /// An operand that is written, and how it is kept; `_` is as wide as `wanted`.
    pub fn target(&mut self, operand: &Operand, wanted: Width) -> Result<(Width, u32), String> {
        match operand {
            Operand::Register(register) => {
                self.touches.push(Touch::Write(*register));
                Ok((self.function.registers[*register as usize], self.places[*register as usize]))
            }
            Operand::Sink => Ok((wanted, self.pool.fresh(wanted))),
            other => Err(format!("{other:?} is no operand to write")),
        }
    }

    /// An operand that is written.
    pub fn write<T: Lane>(&mut self, operand: &Operand) -> Result<Slot<T>, String> {
        match self.target(operand, T::Word::WIDTH)? {
            (width, slot) if width == T::Word::WIDTH => Ok(Slot::new(slot)),
            (width, _) => Err(format!("a {width:?} register where {:?} is expected", T::Word::WIDTH)),
        }
    }

    /// Operand `at`, read.
    pub fn source<T: Lane>(&mut self, at: usize) -> Result<Slot<T>, String> {
        let operand = self.operand(at)?;
        self.read(operand)
    }

    /// Operand 0, written.
    pub fn result<T: Lane>(&mut self) -> Result<Slot<T>, String> {
        let operand = self.operand(0)?;
        self.write(operand)
    }

    /// A predicate that is read.
    pub fn mask(&mut self, at: usize) -> Result<Mask, String> {
        let (register, flip) = match self.operand(at)? {
            Operand::Register(register) => (*register, 0),
            Operand::Not(register) => (*register, FULL),
            // A predicate that nobody writes, or its negation.
            Operand::Int(value) => {
                let flip = if *value & 1 != 0 { FULL } else { 0 };
                return Ok(Mask { index: self.pool.constant(Width::Predicate, 0), flip });
            }
            other => return Err(format!("{other:?} is no predicate")),
        };
        if self.function.registers[register as usize] != Width::Predicate {
            return Err("a predicate expected".into());
        }
        self.touches.push(Touch::Read(register));
        Ok(Mask { index: self.places[register as usize], flip })
    }

    /// A predicate that is written.
    pub fn mask_target(&mut self, operand: &Operand) -> Result<u32, String> {
        match self.target(operand, Width::Predicate)? {
            (Width::Predicate, slot) => Ok(slot),
            _ => Err("a predicate expected".into()),
        }
    }

    /// `d = f(a)` for each lane.
    pub fn map1<A: Lane, D: Lane>(&mut self, f: impl Fn(A) -> D + Send + Sync + 'static) -> Compiled {
        let (d, a) = (self.result::<D>()?, self.source::<A>(1)?);
        run(move |warp, _, mask| {
            let a = warp.registers.get(a);
            let out = each_lane(|lane| f(A::get(a[lane])).put());
            warp.registers.set(d, &out, mask);
            Ok(())
        })
    }

    /// `d = f(a, b)` for each lane.
    pub fn map2<A: Lane, B: Lane, D: Lane>(&mut self, f: impl Fn(A, B) -> D + Send + Sync + 'static) -> Compiled {
        let (d, a, b) = (self.result::<D>()?, self.source::<A>(1)?, self.source::<B>(2)?);
        run(move |warp, _, mask| {
            let (a, b) = (warp.registers.get(a), warp.registers.get(b));
            let out = each_lane(|lane| f(A::get(a[lane]), B::get(b[lane])).put());
            warp.registers.set(d, &out, mask);
            Ok(())
        })
    }

    /// `d = f(a, b, c)` for each lane.
    pub fn map3<A: Lane, B: Lane, C: Lane, D: Lane>(
        &mut self,
        f: impl Fn(A, B, C) -> D + Send + Sync + 'static,
    ) -> Compiled {
        let (d, a) = (self.result::<D>()?, self.source::<A>(1)?);
        let (b, c) = (self.source::<B>(2)?, self.source::<C>(3)?);
        run(move |warp, _, mask| {
            let registers = &warp.registers;
            let (a, b, c) = (registers.get(a), registers.get(b), registers.get(c));
            let out = each_lane(|lane| f(A::get(a[lane]), B::get(b[lane]), C::get(c[lane])).put());
            warp.registers.set(d, &out, mask);
            Ok(())
        })
    }
}

/// The values of a function of the lane.
#[inline(always)]
pub fn each_lane<W: Word>(f: impl Fn(usize) -> W) -> Lanes<W> {
    widest(|| {
        let mut out = [W::default(); LANES];
        out.iter_mut().enumerate().for_each(|(lane, out)| *out = f(lane));
        out
    })
}

/// Wraps a closure up.
pub fn run(f: impl Fn(&mut Warp, &mut Block, u32) -> Outcome + Send + Sync + 'static) -> Compiled {
    Ok(Some(Box::new(f)))
}

/// An instruction that has no effect here.
pub fn nothing() -> Compiled {
    run(|_, _, _| Ok(()))
}
