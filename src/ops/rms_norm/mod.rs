//! Root-mean-square norm over the last dimension. The oracle and the CPU kernel are those of [`norm`](super::norm).

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
use crate::error::{Error, Result, Unsupported};
use crate::isa_rows;
use crate::tensor::Tensor;

pub use super::norm::{Normed, Options};

problem! {
    /// `out[r] = x[r] / √(mean of x[r]² + eps)`; then `· weight`, then, modulated, `· (1 + scale[g]) + shift[g]` with
    /// `g = r / (rows / groups)`. With a residual, `x + residual` stands for x and is a second result, `sum`.
    pub struct RmsNorm("rms_norm") {
        /// Of `x`.
        dtype: DType = DType::F32,
        /// Of the result.
        out: DType = DType::F32,
        /// Rows.
        rows: usize = 1,
        /// Values in a row.
        cols: usize = 1,
        /// Added to the mean square.
        eps: Scalar = Scalar(1e-5),
        /// Whether there is a weight.
        weight: bool = false,
        /// Whether something is added to `x` first.
        residual: bool = false,
        /// Whether scale and shift follow.
        modulated: bool = false,
        /// Rows of scale and shift.
        groups: usize = 1,
    }
}

impl RmsNorm {
    fn checked(self) -> Result<RmsNorm> {
        self.norm().check("rms_norm")?;
        Ok(self)
    }

    fn norm(&self) -> Norm {
        let RmsNorm { dtype, out, rows, cols, eps, weight, residual, modulated, groups, .. } = *self;
        let (centred, bias) = (false, false);
        Norm { dtype, out, rows, cols, eps, centred, weight, bias, residual, modulated, groups }
    }
}

impl Op for RmsNorm {
    const NAME: &'static str = "rms_norm";

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

impl Kernels<Cpu> for RmsNorm {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("rms_norm", supports, launch).takes(norm::cpu::TAKES)];
}

fn supports<S: Simd>(_: &RmsNorm, caps: &Caps) -> Result<(), Unsupported> {
    norm::cpu::supports::<S>(caps)
}

fn launch<S: Simd>(_: &Kernel<Cpu, RmsNorm>, op: &RmsNorm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    norm::cpu::launch::<S, false>(&op.norm(), l)
}

/// Root-mean-square norm over the last dimension, in the dtype of `x`; `weight` is f32 `[cols]`.
///
/// # Errors
/// `x` is not of a float dtype, or an operand has the wrong shape.
pub fn rms_norm(x: &Tensor, weight: Option<&Tensor>, eps: f32) -> Result<Tensor> {
    Ok(with(x, &Options { weight, eps, ..Options::default() })?.out)
}

/// As [`rms_norm`], with residual, modulation and the result's dtype.
///
/// # Errors
/// As [`rms_norm`]; or there is a bias.
pub fn with(x: &Tensor, o: &Options<'_>) -> Result<Normed> {
    if o.bias.is_some() {
        return Err(Error::problem("rms_norm", "has no bias"));
    }
    let Norm { dtype, out, rows, cols, eps, weight, residual, modulated, groups, .. } = norm::describe(x, o, false);
    let op = RmsNorm { dtype, out, rows, cols, eps, weight, residual, modulated, groups }.checked()?;
    norm::normed(&op, x, o)
}
