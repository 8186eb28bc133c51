//! Operations. An op is a checked problem; `run` is the single place where kernels are launched.
//!
//! One folder per op holds everything that Rust says about it: `mod.rs` (the problem, its operands, results, cost and
//! tolerance, and the function that people call), `reference.rs` (plain loops, the oracle), `cases.rs`, and a table of
//! kernels per backend (`cpu.rs`, `wgpu.rs`, `cuda.rs`). A new op is one folder and one word in
//! [`for_each_op!`].
//!
//! Tensors have the last dimension innermost; strides are in elements.

pub mod activation;
pub mod adamw;
pub mod argmax;
mod attend;
pub mod attention;
pub mod attention_bwd;
pub mod attention_merge;
pub mod cache_append;
pub mod cast;
pub mod concat;
pub mod conv;
pub mod conv_bwd_weight;
pub mod conv_transpose;
mod convolution;
pub mod copy;
pub mod cross_entropy;
pub mod cross_entropy_bwd;
pub mod elementwise;
pub mod gather;
pub mod gemm;
pub mod group_norm;
pub mod interpolate;
mod labels;
pub mod layer_norm;
pub mod lstm;
mod norm;
pub mod norm_bwd;
pub mod pack_rhs;
pub mod pad;
mod panels;
pub mod patchify;
pub(crate) mod problem;
pub mod quant;
mod real;
pub mod reduce;
pub mod rms_norm;
pub mod rope;
mod run;
pub mod rvq_decode;
pub mod rvq_encode;
pub mod scatter_add;
pub mod softmax;
pub mod softmax_bwd;
mod tape;
pub mod topk;
pub mod unpatchify;
pub mod view;
mod walk;

pub use problem::{Case, Class, Fill, Inputs, Operand, Outputs, Sample, Tolerance};
pub use real::Real;
pub use run::{AnyCase, AnyOp, Entry, Results, Row, explain, run, run_into, run_row, run_row_into};
pub use tape::recomputed;

use crate::backend::{Kernels, cpu::Cpu, cuda::Cuda, wgpu::Wgpu};
use crate::cost::Cost;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::str::FromStr;

/// The only list of ops: hands it to a macro.
macro_rules! for_each_op {
    ($then:ident) => {
        $then! {
            adamw::AdamW,
            argmax::Argmax,
            attention::Attention,
            attention_bwd::AttentionBwd,
            attention_merge::AttentionMerge,
            cache_append::CacheAppend,
            cast::Cast,
            concat::Concat,
            conv::Conv,
            conv_bwd_weight::ConvBwdWeight,
            conv_transpose::ConvTranspose,
            copy::Copy,
            cross_entropy::CrossEntropy,
            cross_entropy_bwd::CrossEntropyBwd,
            elementwise::Elementwise,
            gather::Gather,
            gemm::Gemm,
            group_norm::GroupNorm,
            interpolate::Interpolate,
            layer_norm::LayerNorm,
            lstm::Lstm,
            norm_bwd::NormBwd,
            pack_rhs::PackRhs,
            pad::Pad,
            patchify::Patchify,
            reduce::Reduce,
            rms_norm::RmsNorm,
            rope::Rope,
            rvq_decode::RvqDecode,
            rvq_encode::RvqEncode,
            scatter_add::ScatterAdd,
            softmax::Softmax,
            softmax_bwd::SoftmaxBwd,
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

/// The problem that a text stands for, without its type: callers that name the type compile its kernels once more.
///
/// # Errors
/// No such op or field, or a value that does not parse or contradicts the others.
pub fn parse(text: &str) -> Result<Box<dyn AnyOp>> {
    (find(text)?.parse)(text)
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
    /// Floating-point operations; traffic is counted from operands and results by [`cost`](Op::cost).
    fn flops(&self) -> u64;
    /// Work and least traffic: each element of an operand and of a result once, of a result in place twice.
    fn cost(&self) -> Cost {
        let outputs = self.outputs();
        let updated: u64 = outputs.iter().filter(|(_, o)| o.in_place).map(|(_, o)| o.bytes()).sum();
        let bytes_read = self.inputs().bytes().saturating_add(updated);
        Cost { flops: self.flops(), bytes_read, bytes_written: outputs.bytes() }
    }
    /// What results are held against.
    fn tolerance(&self) -> Tolerance {
        Tolerance::Plain(3.0)
    }
    /// Problems for tests and benches.
    fn cases() -> Vec<Case<Self>>;
    /// The same problem with its operands in the formats that a device's kernels read, for checks and benches: cases in
    /// panels of one backend are plain on another.
    fn for_device(&self, _: &Device) -> Self {
        self.clone()
    }
    /// The same problem with its operands as a model on that device would prepare them, for what stands for a model's shape.
    fn prepared(&self, device: &Device) -> Self {
        self.for_device(device)
    }
    /// The results by plain loops, as the paper or the definition has them. Operands are in row-major order of their
    /// logical shape; absent ones are `None`. Rows that `rows` does not want may hold anything; results that the
    /// problem lacks are empty.
    ///
    /// Behind the operands follow, one for each result in place, the contents that it begins with; the reference returns
    /// what they become, in full.
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>>;

    /// Which operands and results (as bit masks) the tape keeps for [`grad`](Op::grad).
    fn keeps(&self) -> (u32, u32) {
        (!0, 0)
    }
    /// As [`keeps`](Op::keeps), where only the gradients of the operands in the bit mask `needs` will be asked for: ops that
    /// can keep less then say so here.
    fn keeps_for(&self, _needs: u32) -> (u32, u32) {
        self.keeps()
    }
    /// The gradients of the operands from those of the results: f32 whatever the operand's dtype, `None` for an operand
    /// that has none or that [need](Saved::needs) not have it. The default differentiates [`compose`](Op::compose).
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
    /// The operands, as a bit mask, whose gradients are asked for.
    pub needs: u32,
}

impl<O> Saved<O> {
    /// Whether the gradient of operand `i` is asked for.
    pub fn needs(&self, i: usize) -> bool {
        self.needs >> i & 1 == 1
    }

    /// A kept operand.
    pub(crate) fn input(&self, i: usize) -> &Tensor {
        self.inputs[i].as_ref().expect("keeps() names it")
    }

    /// A kept result.
    pub(crate) fn output(&self, i: usize) -> &Tensor {
        self.outputs[i].as_ref().expect("keeps() names it")
    }
}

/// The gradient that an op does not have, and why.
pub(crate) fn no_grad_of<O: Op>(op: &O, why: &str) -> Result<Vec<Option<Tensor>>> {
    Err(Error::NotSupported(format!("{op} has no gradient: {why}")))
}

/// The first result, which every op has.
pub(crate) fn first(results: Results) -> Tensor {
    let [first, ..] = results;
    first.expect("run() returns every result that the problem has")
}

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
