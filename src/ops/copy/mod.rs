//! Copying: strided elements into row-major order.

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, Tolerance, first, run};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `out = x`, whatever the strides of `x`.
    pub struct Copy("copy") {
        /// Of operand and result.
        dtype: DType = DType::F32,
        /// Of operand and result.
        shape: Shape = Shape::of(&[1]),
    }
}

impl Copy {
    fn checked(self) -> Result<Copy> {
        Ok(self)
    }
}

impl Op for Copy {
    const NAME: &'static str = "copy";

    fn inputs(&self) -> Inputs {
        [Operand::new("x", self.dtype, &self.shape)].into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", self.dtype, &self.shape)].into()
    }
    fn flops(&self) -> u64 {
        0
    }
    fn tolerance(&self) -> Tolerance {
        Tolerance::Exact
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::copy(inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        (0, 0)
    }
    fn grad(_: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![grads[0].clone()])
    }
}

impl Tensor {
    /// The same values in row-major order without gaps: itself if it is so already, else a copy.
    ///
    /// # Errors
    /// Memory is short.
    pub fn contiguous(&self) -> Result<Tensor> {
        if self.layout().is_contiguous() { Ok(self.clone()) } else { copy(self) }
    }
}

/// A copy in row-major order.
///
/// # Errors
/// Memory is short.
pub fn copy(x: &Tensor) -> Result<Tensor> {
    let op = Copy { dtype: x.dtype(), shape: x.layout().shape }.checked()?;
    Ok(first(run(&op, x.device(), &[Some(x)])?))
}
