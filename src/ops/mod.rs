//! Operations. An op is a checked problem; `run` is the single place where kernels are launched.
//!
//! One folder per op holds everything that Rust says about it: `mod.rs` (the problem, its operands, results, cost and
//! tolerance, and the function that people call), `reference.rs` (plain loops, the oracle), `cases.rs`, and a table of
//! kernels per backend (`cpu.rs`, later `wgpu.rs` and `cuda.rs`). A new op is one folder and one word in
//! [`for_each_op!`].
//!
//! Tensors have the last dimension innermost; strides are in elements.

pub mod activation;
pub mod argmax;
pub mod attention;
pub mod attention_merge;
pub mod cast;
pub mod concat;
pub mod conv;
pub mod conv_bwd_weight;
pub mod conv_transpose;
mod convolution;
pub mod copy;
pub mod elementwise;
pub mod gather;
pub mod gemm;
pub mod group_norm;
pub mod interpolate;
pub mod layer_norm;
mod norm;
pub mod pack_rhs;
pub mod pad;
mod panels;
pub mod patchify;
pub(crate) mod problem;
pub mod quant;
mod real;
pub mod reduce;
pub mod rms_norm;
mod run;
pub mod rvq_decode;
pub mod rvq_encode;
pub mod softmax;
pub mod topk;
pub mod unpatchify;
pub mod view;

pub use problem::{Case, Class, Fill, Inputs, Operand, Outputs, Sample, Tolerance};
pub use real::Real;
pub use run::{AnyCase, AnyOp, Entry, Results, Row, explain, run, run_into, run_row};

use crate::backend::{Kernels, cpu::Cpu, cuda::Cuda, wgpu::Wgpu};
use crate::cost::Cost;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::str::FromStr;

/// The only list of ops: hands it to a macro.
macro_rules! for_each_op {
    ($then:ident) => {
        $then! {
            argmax::Argmax,
            attention::Attention,
            attention_merge::AttentionMerge,
            cast::Cast,
            concat::Concat,
            conv::Conv,
            conv_bwd_weight::ConvBwdWeight,
            conv_transpose::ConvTranspose,
            copy::Copy,
            elementwise::Elementwise,
            gather::Gather,
            gemm::Gemm,
            group_norm::GroupNorm,
            interpolate::Interpolate,
            layer_norm::LayerNorm,
            pack_rhs::PackRhs,
            pad::Pad,
            patchify::Patchify,
            reduce::Reduce,
            rms_norm::RmsNorm,
            rvq_decode::RvqDecode,
            rvq_encode::RvqEncode,
            softmax::Softmax,
            topk::TopK,
            unpatchify::Unpatchify,
        }
    };
}

macro_rules! catalog {
    ($($op:ty),* $(,)?) => {
        /// Every op, with its cases and the reader of its text form.
        pub static CATALOG: &[Entry] = &[$(run::entry::<$op>()),*];
    };
}
for_each_op!(catalog);

/// The entry of an op by name, or of a problem's text.
///
/// # Errors
/// No such op; the message lists all.
pub fn find(text: &str) -> Result<&'static Entry> {
    let name = text.split('(').next().unwrap_or_default().trim();
    CATALOG.iter().find(|e| e.name == name).ok_or_else(|| {
        let known: Vec<&str> = CATALOG.iter().map(|e| e.name).collect();
        Error::parse("an op", text, format!("known are {}", known.join(", ")))
    })
}

/// A problem that was checked: every value of the type describes something that can be computed.
pub trait Op:
    Clone
    + Debug
    + Display
    + FromStr<Err = Error>
    + Eq
    + Hash
    + Send
    + Sync
    + 'static
    + Kernels<Cpu>
    + Kernels<Wgpu>
    + Kernels<Cuda>
{
    /// The op's name: the stem of its kernels, its shaders and its text form.
    const NAME: &'static str;

    /// The operands.
    fn inputs(&self) -> Inputs;
    /// The results.
    fn outputs(&self) -> Outputs;
    /// Floating-point operations; traffic is counted from the operands by [`cost`](Op::cost).
    fn flops(&self) -> u64;
    /// Work and least traffic: each operand element once.
    fn cost(&self) -> Cost {
        Cost { flops: self.flops(), bytes_read: self.inputs().bytes(), bytes_written: self.outputs().bytes() }
    }
    /// What results are held against.
    fn tolerance(&self) -> Tolerance {
        Tolerance::Plain(3.0)
    }
    /// Problems for tests and benches.
    fn cases() -> Vec<Case<Self>>;
    /// The results by plain loops, as the paper or the definition has them. Operands are in row-major order of their
    /// logical shape; absent ones are `None`. Rows that `rows` does not want may hold anything; results that the
    /// problem lacks are empty.
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>>;

    /// Which operands and results (as bit masks) the tape keeps for [`grad`](Op::grad).
    fn keeps(&self) -> (u32, u32) {
        (!0, 0)
    }
    /// The gradients of the operands from those of the results. The default differentiates [`compose`](Op::compose).
    ///
    /// # Errors
    /// The op has no gradient.
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        run::grad_of_composition(saved, grads)
    }
    /// A fused op in terms of other ops.
    fn compose(&self, _inputs: &[Option<Tensor>]) -> Option<Result<Vec<Tensor>>> {
        None
    }
}

/// What the tape keeps of a step. Operands and results are detached: a step never holds itself.
pub struct Saved<O> {
    pub op: O,
    pub inputs: Vec<Option<Tensor>>,
    pub outputs: Vec<Option<Tensor>>,
}

/// The first result, which every op has.
pub(crate) fn first(results: Results) -> Tensor {
    let [first, ..] = results;
    first.expect("run() returns every result that the problem has")
}

/// Tables of the GPU backends for ops that have no kernels there yet: empty, and written down.
macro_rules! no_gpu_kernels {
    ($Op:ty) => {
        impl $crate::backend::Kernels<$crate::backend::wgpu::Wgpu> for $Op {
            const KERNELS: &'static [$crate::backend::Kernel<$crate::backend::wgpu::Wgpu, Self>] = &[];
        }
        impl $crate::backend::Kernels<$crate::backend::cuda::Cuda> for $Op {
            const KERNELS: &'static [$crate::backend::Kernel<$crate::backend::cuda::Cuda, Self>] = &[];
        }
    };
}
pub(crate) use no_gpu_kernels;

/// Runs an expression with a type name bound to the element type of a float or byte dtype.
macro_rules! with_lane {
    ($dtype:expr, $T:ident => $e:expr) => {
        match $dtype {
            $crate::DType::F16 => {
                type $T = half::f16;
                $e
            }
            $crate::DType::BF16 => {
                type $T = half::bf16;
                $e
            }
            $crate::DType::U8 => {
                type $T = u8;
                $e
            }
            // A problem's checks admit no other dtype to a vector kernel.
            _ => {
                type $T = f32;
                $e
            }
        }
    };
}
pub(crate) use with_lane;

/// Runs an expression with a type name bound to the element type of a float dtype: as `with_lane!`, and a quarter less to
/// compile for each operand.
macro_rules! with_float {
    ($dtype:expr, $T:ident => $e:expr) => {
        match $dtype {
            $crate::DType::F16 => {
                type $T = half::f16;
                $e
            }
            $crate::DType::BF16 => {
                type $T = half::bf16;
                $e
            }
            // A problem's checks admit no other dtype.
            _ => {
                type $T = f32;
                $e
            }
        }
    };
}
pub(crate) use with_float;
