//! One harness over the catalog: operands, checks against the oracle, timing, and the peaks that times are held against.
//!
//! The command line's `check` and `bench`, the crate's kernel tests and `cargo bench` are thin callers of this module.

mod check;
mod operands;
mod peaks;
mod suite;
mod timing;

pub use check::{Expected, Verdict, check};
pub use operands::{Arrangement, Call, Operands, parse_call};
pub use peaks::{Bound, Peaks};
pub use suite::{Measured, Options, bench, matching};
pub use timing::{Stop, Timing, time};
