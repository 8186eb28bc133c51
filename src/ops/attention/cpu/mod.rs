//! Attention on the CPU: two algorithms, each for three instruction sets.
//!
//! - `flash` ([`flash`]): blocks of queries against blocks of keys, for anything but a few queries. Bound: FMA. With bf16 operands
//!   it multiplies pairs of them where the processor does so faster than it multiplies f32. Bound: bf16 dot. Rows that are left
//!   over and would leave vectors empty are worked on by [`few`]. Where the processor multiplies matrices of bf16 (AMX), products
//!   are [`matrix`]'s.
//! - `split` ([`split`]): up to sixteen queries per key head, keys and values streamed once, split over threads by
//!   keys; for decoding. Bound: memory.

mod block;
mod few;
mod flash;
#[cfg(target_arch = "x86_64")]
mod matrix;
mod split;
mod weights;

use super::Attention;
use crate::backend::cpu::Cpu;
use crate::backend::{Kernel, Kernels};
use crate::isa_rows;
use crate::layout::Takes;

const TAKES: &[Takes] = &[Takes::Rows, Takes::Rows, Takes::Rows, Takes::Rows];

impl Kernels<Cpu> for Attention {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![
        ("attention_split", split::supports, split::launch)
            .takes(TAKES)
            .suits(split::suits)
            .workspace(split::workspace),
        #[cfg(all(target_arch = "x86_64", not(no_isa)))]
        Kernel::new("attention_flash_bf16__amx", matrix::supports, matrix::launch)
            .takes(TAKES)
            .workspace(matrix::workspace),
        #[cfg(all(target_arch = "x86_64", not(no_isa), test))]
        matrix::row(),
        #[cfg(all(target_arch = "x86_64", not(no_isa)))]
        Kernel::new("attention_flash_bf16__avx512bf16", flash::supports_bf16, flash::launch_bf16)
            .takes(TAKES)
            .suits(|_, caps| caps.bf16_dot_is_fast)
            .workspace(flash::workspace_bf16),
        ("attention_flash", flash::supports, flash::launch).takes(TAKES).workspace(flash::workspace),
    ];
}

/// The place of the bias among the operands; the other masks follow it.
const BIAS: usize = 3;

/// The natural logarithm of `l · 2^m`; `-inf` for nothing, where `l` is 0.
fn log_sum_exp(m: f32, l: f32) -> f32 {
    (f64::from(m) * std::f64::consts::LN_2 + f64::from(l).ln()) as f32
}
