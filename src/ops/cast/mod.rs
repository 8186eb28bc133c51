//! Changing the element type.

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, Saved, Tolerance, first, no_grad_of, run};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `out = x` in another dtype. To a float: rounded to nearest even. To an integer: rounded towards zero, and what is
    /// out of range becomes the nearest value in range; NaN becomes 0.
    pub struct Cast("cast") {
        /// Of the operand.
        from: DType = DType::F32,
        /// Of the result.
        to: DType = DType::BF16,
        /// Of operand and result.
        shape: Shape = Shape::of(&[1]),
    }
}

impl Cast {
    fn checked(self) -> Result<Cast> {
        Ok(self)
    }
}

impl Op for Cast {
    const NAME: &'static str = "cast";

    fn inputs(&self) -> Inputs {
        // Values beyond the range of u8, on both sides.
        let fill = match self.from.is_float() && !self.to.is_float() {
            true => Fill::Affine { scale: 200.0, offset: 100.0 },
            false if self.from == DType::U32 || self.from == DType::I32 => Fill::Below(u32::MAX),
            false => Fill::Normal,
        };
        [Operand::new("x", self.from, &self.shape).fill(fill)].into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", self.to, &self.shape)].into()
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
        reference::cast(self, inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        (0, 0)
    }
    /// Roundings are taken for the identity.
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        match saved.op.from.is_float() && saved.op.to.is_float() {
            true => Ok(vec![grads[0].clone()]),
            false => no_grad_of(&saved.op, "integers have none"),
        }
    }
}

impl Tensor {
    /// The same values in another dtype; itself where it has it already. Floats are rounded to nearest even; integers
    /// towards zero, and to the nearest value in range (NaN to 0).
    ///
    /// # Errors
    /// Memory is short.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        if self.dtype() == dtype {
            return Ok(self.clone());
        }
        let op = Cast { from: self.dtype(), to: dtype, shape: self.layout().shape }.checked()?;
        Ok(first(run(&op, self.device(), &[Some(self)])?))
    }
}
