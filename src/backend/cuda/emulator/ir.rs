//! A module of PTX after parsing: names are resolved, nothing is checked for meaning yet.

use std::fmt;

/// The types of PTX that kernels of this project use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
}

impl Type {
    /// The type that a modifier names, without its dot.
    pub fn parse(name: &str) -> Option<Type> {
        use Type::*;
        Some(match name {
            "pred" => Pred,
            "b8" => B8,
            "b16" => B16,
            "b32" => B32,
            "b64" => B64,
            "u8" => U8,
            "u16" => U16,
            "u32" => U32,
            "u64" => U64,
            "s8" => S8,
            "s16" => S16,
            "s32" => S32,
            "s64" => S64,
            "f16" => F16,
            "f16x2" => F16x2,
            "bf16" => Bf16,
            "bf16x2" => Bf16x2,
            "tf32" => Tf32,
            "f32" => F32,
            "f64" => F64,
            _ => return None,
        })
    }

    /// Bytes in memory.
    pub fn bytes(self) -> usize {
        use Type::*;
        match self {
            Pred | B8 | U8 | S8 => 1,
            B16 | U16 | S16 | F16 | Bf16 => 2,
            B32 | U32 | S32 | F32 | F16x2 | Bf16x2 | Tf32 => 4,
            B64 | U64 | S64 | F64 => 8,
        }
    }

    /// What a register of the type is kept in.
    pub fn width(self) -> Width {
        match self {
            Type::Pred => Width::Predicate,
            _ if self.bytes() == 8 => Width::Long,
            _ => Width::Word,
        }
    }
}

/// How a register is kept: one bit, 32 bits (8 and 16 bits too) or 64 bits for each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    Predicate,
    Word,
    Long,
}

/// A register of a function: an index into [`Function::registers`].
pub type Register = u32;

/// Registers that the machine fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    GridId,
    LanemaskEq,
    LanemaskLe,
    LanemaskLt,
    LanemaskGe,
    LanemaskGt,
    DynamicSmemSize,
    TotalSmemSize,
    Clock,
    ClockHi,
    Clock64,
    GlobalTimer,
}

impl Special {
    pub fn parse(name: &str) -> Option<Special> {
        use Special::*;
        let axis = |prefix: &str| match name.strip_prefix(prefix)? {
            ".x" => Some(0),
            ".y" => Some(1),
            ".z" => Some(2),
            _ => None,
        };
        if let Some(a) = axis("%tid") {
            return Some(Tid(a));
        } else if let Some(a) = axis("%ntid") {
            return Some(Ntid(a));
        } else if let Some(a) = axis("%ctaid") {
            return Some(Ctaid(a));
        } else if let Some(a) = axis("%nctaid") {
            return Some(Nctaid(a));
        }
        Some(match name {
            "%laneid" => LaneId,
            "%warpid" => WarpId,
            "%nwarpid" => NWarpId,
            "%smid" => SmId,
            "%nsmid" => NSmId,
            "%gridid" => GridId,
            "%lanemask_eq" => LanemaskEq,
            "%lanemask_le" => LanemaskLe,
            "%lanemask_lt" => LanemaskLt,
            "%lanemask_ge" => LanemaskGe,
            "%lanemask_gt" => LanemaskGt,
            "%dynamic_smem_size" => DynamicSmemSize,
            "%total_smem_size" => TotalSmemSize,
            "%clock" => Clock,
            "%clock_hi" => ClockHi,
            "%clock64" => Clock64,
            "%globaltimer" => GlobalTimer,
            _ => return None,
        })
    }

    /// Whether each reading gives another value.
    pub fn is_clock(self) -> bool {
        use Special::*;
        matches!(self, Clock | ClockHi | Clock64 | GlobalTimer)
    }

    pub fn width(self) -> Width {
        match self {
            Special::Clock64 | Special::GlobalTimer => Width::Long,
            _ => Width::Word,
        }
    }
}

/// A named piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Symbol {
    /// An index into [`Module::variables`].
    Module(usize),
    /// An index into [`Function::variables`].
    Function(usize),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    Register(Register),
    /// `!p`
    Not(Register),
    Special(Special),
    /// Two's complement.
    Int(u64),
    F32(u32),
    F64(u64),
    Symbol(Symbol, i64),
    /// The name of a function.
    Callee(String),
    /// `{a, b}`; also the lists of a call.
    Vector(Vec<Operand>),
    /// `[base + offset]`
    Address(Box<Operand>, i64),
    /// `d|p`
    Pair(Box<Operand>, Box<Operand>),
    /// An index into [`Function::code`].
    Label(usize),
    /// An index into [`Function::tables`].
    Table(usize),
    /// `_`
    Sink,
}

/// An instruction: opcode and modifiers as they were split at the dots.
#[derive(Clone, Debug)]
pub struct Instruction {
    pub line: u32,
    /// The predicate that lanes need, and whether it is negated.
    pub guard: Option<(Register, bool)>,
    pub opcode: Vec<String>,
    pub operands: Vec<Operand>,
}

impl Instruction {
    /// The first part of the opcode.
    pub fn name(&self) -> &str {
        &self.opcode[0]
    }

    /// The function that it calls, if it calls one.
    pub fn callee(&self) -> Option<&str> {
        let name = self.operands.iter().find_map(|o| match o {
            Operand::Callee(name) => Some(name.as_str()),
            _ => None,
        });
        name.filter(|_| self.name() == "call")
    }
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.opcode.join("."))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    Generic,
    Global,
    Const,
    Shared,
    Local,
    Param,
}

impl Space {
    pub fn parse(name: &str) -> Option<Space> {
        Some(match name {
            "global" => Space::Global,
            "const" => Space::Const,
            "shared" | "shared::cta" => Space::Shared,
            "local" => Space::Local,
            "param" | "param::entry" | "param::func" => Space::Param,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug)]
pub struct Variable {
    pub name: String,
    pub space: Space,
    pub align: usize,
    /// 0 for an array without a size: dynamic shared memory.
    pub bytes: usize,
    /// Initial bytes; shorter than `bytes` where the rest is zero.
    pub init: Vec<u8>,
    /// Places in `init` that hold the address of another variable of the module, plus a constant.
    pub pointers: Vec<(usize, usize, i64)>,
}

#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    pub is_entry: bool,
    /// Threads of a block at most, where it says so.
    pub max_threads: Option<u32>,
    pub registers: Vec<Width>,
    /// Results first, then parameters, then what the body declares.
    pub variables: Vec<Variable>,
    pub results: usize,
    pub params: usize,
    pub code: Vec<Instruction>,
    /// The lists of `.branchtargets`.
    pub tables: Vec<Vec<usize>>,
}

#[derive(Clone, Debug, Default)]
pub struct Module {
    pub variables: Vec<Variable>,
    pub functions: Vec<Function>,
}

/// `value` rounded up to a multiple of `align`.
pub fn align_up(value: usize, align: usize) -> usize {
    value.next_multiple_of(align.max(1))
}
