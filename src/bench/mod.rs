//! One harness over the catalog: operands, checks against the oracle, timing, and the peaks that times are held against.
//!
//! The command line's `check` and `bench`, the crate's kernel tests and `cargo bench` are thin callers of this module.

mod catalog;
mod check;
mod compare;
mod gpu;
mod grad;
mod operands;
mod peaks;
mod peers;
mod report;
mod select;
mod suite;
pub mod table;
mod timing;

pub use catalog::catalog_table;
#[cfg(test)]
pub use check::check_kernel;
pub use check::{Checked, Expected, Verdict, check, check_rows};
pub use compare::{Best, Compared, Standing, compare, compared_table};
pub use gpu::gpu_calls;
pub use grad::{GradVerdict, check_grads};
pub use operands::{Arrangement, Call, Operands, parse_call, parse_calls};
pub use peaks::{Bound, Peaks, PoolCost, Products};
pub use report::{Line, Style, report};
pub use select::{Pattern, Preset, cases};
pub use suite::{Measured, Options, bench};
pub use timing::{Stop, Timing, peak_rss_bytes, reset_peak_rss, time};
