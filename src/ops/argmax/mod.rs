//! The place of the largest value of a row.

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, Tolerance, first, no_grad_of, run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `out[i]` is the lowest j for which `x[i, j]` is largest. NaN counts as larger than any number.
    pub struct Argmax("argmax") {
        /// Of the operand.
        dtype: DType = DType::F32,
        /// Rows.
        rows: usize = 1,
        /// Values in a row, at least one.
        cols: usize = 1,
    }
}

impl Argmax {
    fn checked(self) -> Result<Argmax> {
        if !self.dtype.is_float() {
            return Err(Error::problem("argmax", format!("takes floats, got {}; cast first", self.dtype)));
        }
        if self.cols == 0 || self.cols > u32::MAX as usize {
            return Err(Error::problem("argmax", format!("rows hold 1 to 2^32 - 1 values, got {}", self.cols)));
        }
        Shape::new(&[self.rows, self.cols])?;
        Ok(self)
    }
}

impl Op for Argmax {
    const NAME: &'static str = "argmax";

    fn inputs(&self) -> Inputs {
        [Operand::new("x", self.dtype, &[self.rows, self.cols])].into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", DType::U32, &[self.rows])].into()
    }
    /// One comparison per value.
    fn flops(&self) -> u64 {
        (self.rows * self.cols) as u64
    }
    fn tolerance(&self) -> Tolerance {
        Tolerance::Exact
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::argmax(self, inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        (0, 0)
    }
    fn grad(saved: &Saved<Self>, _: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        no_grad_of(&saved.op, "a place is no smooth function of the values")
    }
}

/// The place of the largest value along the last dimension (the lowest of several; NaN counts as the largest), as u32
/// with that dimension gone.
///
/// # Errors
/// `x` is not of a float dtype, has no dimension, or the last one is empty.
pub fn argmax(x: &Tensor) -> Result<Tensor> {
    let Some((_, lead)) = x.shape().split_last() else {
        return Err(Error::problem("argmax", "a scalar has no last dimension"));
    };
    let (rows, cols) = x.layout().shape.rows();
    let op = Argmax { dtype: x.dtype(), rows, cols }.checked()?;
    let flat = x.reshape(&[rows, cols]).or_else(|_| x.contiguous()?.reshape(&[rows, cols]))?;
    first(run(&op, x.device(), &[Some(&flat)])?).reshape(lead)
}
