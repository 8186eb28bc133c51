//! Two matrices with an activation between.

use super::Linear;
use crate::ops::activation::Activation;
use crate::{DType, Result, Tensor};

/// `fc2(activation(fc1(x)))`.
pub struct Mlp {
    pub fc1: Linear,
    pub fc2: Linear,
    pub activation: Activation,
    /// The dtype between the two.
    pub compute: DType,
}

impl Mlp {
    /// `x` [..., width] to the same shape; `residual`, of that shape, is added to the result.
    ///
    /// # Errors
    /// A shape does not fit.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let _span = x.device().span(|| "mlp".into());
        let hidden = self.fc1.forward_with(x, self.activation, None, self.compute)?;
        self.fc2.forward_with(&hidden, Activation::None, residual, DType::F32)
    }
}
