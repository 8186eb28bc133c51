//! What a kernel did wrong. Whoever executes the instruction adds the kernel, the line of PTX and the thread.

use std::fmt;

/// A memory space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Global,
    Shared,
    Local,
    Const,
    Param,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Space::Global => "global",
            Space::Shared => "shared",
            Space::Local => "local",
            Space::Const => "constant",
            Space::Param => "parameter",
        })
    }
}

/// A way to touch shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Atomic,
    /// A `cp.async`, from its issue to its wait.
    Copy,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Read => "read",
            Access::Write => "written",
            Access::Atomic => "updated atomically",
            Access::Copy => "copied to by cp.async",
        })
    }
}

/// An access that another warp made before: which one, and the line of PTX (0 where it was not noted).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    pub access: Access,
    pub warp: usize,
    pub line: u32,
}

impl fmt::Display for Earlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by warp {}", self.access, self.warp)?;
        if self.line > 0 { write!(f, " in line {}", self.line) } else { Ok(()) }
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `near` is the memory that the address misses by the least: its first address and its bytes.
    OutOfBounds { space: Space, address: u64, bytes: usize, near: Option<(u64, u64)> },
    /// An address that is no multiple of the access's bytes.
    Misaligned { space: Space, address: u64, bytes: usize },
    /// A read of shared memory that nobody wrote.
    NeverWritten { address: u32 },
    /// Two warps touch the same byte, at least one of them writes, and no barrier is between them.
    Race { address: u32, access: Access, earlier: Earlier },
    /// A byte that a `cp.async` is still copying to.
    NotWaitedFor { address: u32, access: Access, copy: Earlier },
    /// Two lanes of one store write different values to one address.
    Torn { address: u32 },
    /// Anything else, in words.
    Other(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::OutOfBounds { space, address, bytes, near } => {
                write!(f, "{bytes} bytes at {address:#x} are out of bounds of {space} memory")?;
                match *near {
                    None => Ok(()),
                    Some((start, size)) if *address < start => {
                        write!(f, ": {} bytes before the {size} bytes at {start:#x}", start - address)
                    }
                    Some((start, size)) => {
                        write!(f, ": at byte {} of the {size} bytes at {start:#x}", address - start)
                    }
                }
            }
            Fault::Misaligned { space, address, bytes } => {
                write!(f, "{space} address {address:#x} is not a multiple of the {bytes} bytes that are accessed")
            }
            Fault::NeverWritten { address } => {
                write!(f, "shared address {address:#x} is read and was never written in this block")
            }
            Fault::Race { address, access, earlier } => write!(
                f,
                "race: shared address {address:#x} is {access}, and was {earlier}, and no barrier orders the two"
            ),
            Fault::NotWaitedFor { address, access, copy } => {
                write!(f, "shared address {address:#x} is {access}, and was {copy}, which was not waited for")
            }
            Fault::Torn { address } => {
                write!(f, "two threads of one store write different values to shared address {address:#x}")
            }
            Fault::Other(why) => f.write_str(why),
        }
    }
}
