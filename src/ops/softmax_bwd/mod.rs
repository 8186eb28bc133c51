//! The gradient of softmax.

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, Saved, first, no_grad_of, run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `dx[i, j] = y[i, j] · (dy[i, j] - Σ_j y[i, j]·dy[i, j])`, where y is a softmax over the last dimension.
    ///
    /// Operands: y [rows, cols], dy [rows, cols] f32. Results: dx [rows, cols] f32.
    pub struct SoftmaxBwd("softmax_bwd") {
        /// Of `y`.
        dtype: DType = DType::F32,
        /// Rows.
        rows: usize = 1,
        /// Values in a row.
        cols: usize = 1,
    }
}

impl SoftmaxBwd {
    fn checked(self) -> Result<SoftmaxBwd> {
        if !self.dtype.is_float() {
            return Err(Error::problem("softmax_bwd", format!("takes floats, got {}", self.dtype)));
        }
        Shape::new(&[self.rows, self.cols])?;
        Ok(self)
    }
}

impl Op for SoftmaxBwd {
    const NAME: &'static str = "softmax_bwd";

    fn inputs(&self) -> Inputs {
        // About what a softmax gives.
        let each = 1.0 / self.cols.max(1) as f32;
        [
            Operand::new("y", self.dtype, &[self.rows, self.cols])
                .fill(Fill::Affine { scale: each / 4.0, offset: each }),
            Operand::new("dy", DType::F32, &[self.rows, self.cols]),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("dx", DType::F32, &[self.rows, self.cols])].into()
    }
    fn flops(&self) -> u64 {
        4 * (self.rows * self.cols) as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        reference::softmax_bwd(self, inputs, rows)
    }
    fn keeps(&self) -> (u32, u32) {
        (0, 0)
    }
    fn grad(saved: &Saved<Self>, _: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        no_grad_of(&saved.op, "second derivatives are not taken")
    }
}

/// The gradient of softmax's operand, from its result `y` and that one's gradient `dy` (f32), both of any one shape.
///
/// # Errors
/// `y` is not of a float dtype, or `dy` has another shape.
pub fn softmax_bwd(y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (rows, cols) = y.layout().shape.rows();
    let op = SoftmaxBwd { dtype: y.dtype(), rows, cols }.checked()?;
    let flat = |t: &Tensor| t.reshape(&[rows, cols]).or_else(|_| t.contiguous()?.reshape(&[rows, cols]));
    first(run(&op, y.device(), &[Some(&flat(y)?), Some(&flat(dy)?)])?).reshape(y.shape())
}
