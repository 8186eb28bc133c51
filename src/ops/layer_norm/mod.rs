//! Layer norm over the last dimension. The oracle and the CPU kernel are those of [`norm`](super::norm).

mod cases;
mod cuda;
mod wgpu;

use super::norm::{self, Norm};
use super::problem::problem;
use super::{Case, Inputs, Op, Outputs, Real, Sample, Saved};
use crate::backend::cpu::simd::Simd;
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::{DType, Scalar};
use crate::error::{Result, Unsupported};
use crate::isa_rows;
use crate::tensor::Tensor;

pub use super::norm::{Normed, Options};

problem! {
    /// `out[r] = (x[r] - mean) / √(variance + eps)`, mean and (biased) variance over the row; then `· weight + bias`, then,
    /// modulated, `· (1 + scale[g]) + shift[g]` with `g = r / (rows / groups)`. With a residual, `x + residual` stands for x
    /// and is a second result, `sum`.
    pub struct LayerNorm("layer_norm") {
        /// Of `x`.
        dtype: DType = DType::F32,
        /// Of the result.
        out: DType = DType::F32,
        /// Rows.
        rows: usize = 1,
        /// Values in a row.
        cols: usize = 1,
        /// Added to the variance.
        eps: Scalar = Scalar(1e-5),
        /// Whether there is a weight.
        weight: bool = false,
        /// Whether there is a bias.
        bias: bool = false,
        /// Whether something is added to `x` first.
        residual: bool = false,
        /// Whether scale and shift follow.
        modulated: bool = false,
        /// Rows of scale and shift.
        groups: usize = 1,
    }
}

impl LayerNorm {
    fn checked(self) -> Result<LayerNorm> {
        self.norm().check("layer_norm")?;
        Ok(self)
    }

    fn norm(&self) -> Norm {
        let LayerNorm { dtype, out, rows, cols, eps, weight, residual, modulated, groups, .. } = *self;
        let (centred, bias) = (true, self.bias);
        Norm { dtype, out, rows, cols, eps, centred, weight, bias, residual, modulated, groups }
    }
}

impl Op for LayerNorm {
    const NAME: &'static str = "layer_norm";

    fn inputs(&self) -> Inputs {
        self.norm().inputs()
    }
    fn outputs(&self) -> Outputs {
        self.norm().outputs()
    }
    fn flops(&self) -> u64 {
        self.norm().flops()
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        norm::reference(&self.norm(), inputs, rows)
    }
    fn keeps(&self) -> (u32, u32) {
        self.keeps_for(!0)
    }
    fn keeps_for(&self, needs: u32) -> (u32, u32) {
        self.norm().keeps(needs)
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        norm::grad(&saved.op.norm(), saved, grads)
    }
}

impl Kernels<Cpu> for LayerNorm {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("layer_norm", supports, launch).takes(norm::cpu::TAKES)];
}

fn supports<S: Simd>(_: &LayerNorm, caps: &Caps) -> Result<(), Unsupported> {
    norm::cpu::supports::<S>(caps)
}

fn launch<S: Simd>(_: &Kernel<Cpu, LayerNorm>, op: &LayerNorm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    norm::cpu::launch::<S, true>(&op.norm(), l)
}

/// Layer norm over the last dimension, in the dtype of `x`; `weight` and `bias` are f32 `[cols]`.
///
/// # Errors
/// `x` is not of a float dtype, or an operand has the wrong shape.
pub fn layer_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f32) -> Result<Tensor> {
    Ok(with(x, &Options { weight, bias, eps, ..Options::default() })?.out)
}

/// As [`layer_norm`], with residual, modulation and the result's dtype.
///
/// # Errors
/// As [`layer_norm`].
pub fn with(x: &Tensor, o: &Options<'_>) -> Result<Normed> {
    let Norm { dtype, out, rows, cols, eps, weight, bias, residual, modulated, groups, .. } =
        norm::describe(x, o, true);
    let op = LayerNorm { dtype, out, rows, cols, eps, weight, bias, residual, modulated, groups }.checked()?;
    norm::normed(&op, x, o)
}
