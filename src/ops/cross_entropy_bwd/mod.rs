//! The gradient of `cross_entropy` with respect to the logits.

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::cross_entropy::Options;
use super::problem::problem;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, first, labels, run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// With `p[i, j] = e^(logits[i, j] - lse[i])`, `g = weights[i] · grad_loss[i]` and `h = grad_lse[i]`,
    /// `out[i, j] = p[i, j] · (g + h) - [j == labels[i]] · g`. Rows that do not count (a label that is negative or `ignore`)
    /// give zeros.
    ///
    /// Operands: logits [rows, classes], labels [rows], weights [rows] f32, lse [rows] f32, grad_loss [rows] f32, grad_lse
    /// [rows] f32. Results: out [rows, classes] f32.
    pub struct CrossEntropyBwd("cross_entropy_bwd") {
        /// Of the logits: a float.
        dtype: DType = DType::F32,
        /// Of the labels: u32 or i32.
        labels: DType = DType::I32,
        /// Rows.
        rows: usize = 1,
        /// Logits of a row.
        classes: usize = 1,
        /// Whether each row has a weight.
        weights: bool = false,
        /// Whether the log-sum-exp has a gradient, too.
        grad_lse: bool = false,
        /// The label of rows that do not count; negative ones never do.
        ignore: i64 = -100,
    }
}

impl CrossEntropyBwd {
    fn checked(self) -> Result<CrossEntropyBwd> {
        if !self.dtype.is_float() {
            return Err(Error::problem("cross_entropy_bwd", format!("takes logits of floats, got {}", self.dtype)));
        }
        labels::check_dtype("cross_entropy_bwd", self.labels)?;
        Shape::new(&[self.rows, self.classes])?;
        Ok(self)
    }
}

impl Op for CrossEntropyBwd {
    const NAME: &'static str = "cross_entropy_bwd";

    fn inputs(&self) -> Inputs {
        let limit = self.classes.min(i32::MAX as usize) as u32;
        let lse = Fill::Affine { scale: 0.1, offset: (self.classes.max(1) as f32).ln() + 0.5 };
        [
            Operand::new("logits", self.dtype, &[self.rows, self.classes]),
            Operand::new("labels", self.labels, &[self.rows]).fill(Fill::Below(limit)),
            Operand::new("weights", DType::F32, &[self.rows]).only_if(self.weights),
            Operand::new("lse", DType::F32, &[self.rows]).fill(lse),
            Operand::new("grad_loss", DType::F32, &[self.rows]),
            Operand::new("grad_lse", DType::F32, &[self.rows]).only_if(self.grad_lse),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", DType::F32, &[self.rows, self.classes])].into()
    }
    /// A difference, an exponential and a product for each logit.
    fn flops(&self) -> u64 {
        3 * (self.rows * self.classes) as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        reference::cross_entropy_bwd(self, inputs, rows)
    }
}

/// The gradient of the logits [rows, classes], f32, from those of [`cross_entropy`](super::cross_entropy)'s results, f32
/// [rows]. `lse` is its second result.
///
/// # Errors
/// A label is not below the number of classes ([`Error::Index`]), or shapes or dtypes do not fit.
pub fn cross_entropy_bwd(
    logits: &Tensor,
    labels: &Tensor,
    lse: &Tensor,
    grad_loss: &Tensor,
    grad_lse: Option<&Tensor>,
    options: &Options<'_>,
) -> Result<Tensor> {
    let &[rows, classes] = logits.shape() else {
        return Err(Error::problem("cross_entropy_bwd", format!("takes logits [rows, classes], got {logits}")));
    };
    let op = CrossEntropyBwd {
        dtype: logits.dtype(),
        labels: labels.dtype(),
        rows,
        classes,
        weights: options.weights.is_some(),
        grad_lse: grad_lse.is_some(),
        ignore: options.ignore,
    }
    .checked()?;
    let operands = [Some(logits), Some(labels), options.weights, Some(lse), Some(grad_loss), grad_lse];
    Ok(first(run(&op, logits.device(), &operands)?))
}
