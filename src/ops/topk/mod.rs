//! The largest values of a row.

mod cases;
mod cpu;
mod cuda;
mod cut;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, Tolerance, no_grad_of, run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `values[i, r]` is the r-th largest of row i of `x` and `indices[i, r]` its place; of equal values the one with
    /// the lower place comes first. NaN counts as larger than any number.
    pub struct TopK("topk") {
        /// Of operand and values.
        dtype: DType = DType::F32,
        /// Rows.
        rows: usize = 1,
        /// Values in a row.
        cols: usize = 1,
        /// How many are wanted, at most `cols`.
        k: usize = 1,
    }
}

impl TopK {
    fn checked(self) -> Result<TopK> {
        if !self.dtype.is_float() {
            return Err(Error::problem("topk", format!("takes floats, got {}; cast first", self.dtype)));
        }
        if self.k > self.cols || self.cols > u32::MAX as usize {
            let why =
                format!("k is at most the row's length, and that at most 2^32 - 1; got {} of {}", self.k, self.cols);
            return Err(Error::problem("topk", why));
        }
        Shape::new(&[self.rows, self.cols])?;
        Ok(self)
    }
}

impl Op for TopK {
    const NAME: &'static str = "topk";

    fn inputs(&self) -> Inputs {
        [Operand::new("x", self.dtype, &[self.rows, self.cols])].into()
    }
    fn outputs(&self) -> Outputs {
        let dims = [self.rows, self.k];
        [Operand::new("values", self.dtype, &dims), Operand::new("indices", DType::U32, &dims)].into()
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
        reference::topk(self, inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        (0, 0)
    }
    fn grad(saved: &Saved<Self>, _: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        no_grad_of(&saved.op, "it chooses; gather what it chose")
    }
}

/// The `k` largest values along the last dimension in descending order, and their places (u32): both [..., k]. Of equal
/// values the one with the lower place comes first; NaN counts as larger than any number.
///
/// # Errors
/// `x` is not of a float dtype, has no dimension, or its last one is shorter than `k`.
pub fn topk(x: &Tensor, k: usize) -> Result<(Tensor, Tensor)> {
    let Some((_, lead)) = x.shape().split_last() else {
        return Err(Error::problem("topk", "a scalar has no last dimension"));
    };
    let (rows, cols) = x.layout().shape.rows();
    let op = TopK { dtype: x.dtype(), rows, cols, k }.checked()?;
    let dims = [lead, &[k]].concat();
    let flat = x.reshape(&[rows, cols]).or_else(|_| x.contiguous()?.reshape(&[rows, cols]))?;
    let [values, indices, ..] = run(&op, x.device(), &[Some(&flat)])?;
    let shaped = |t: Option<Tensor>| t.expect("run() returns every result that the problem has").reshape(&dims);
    Ok((shaped(values)?, shaped(indices)?))
}
