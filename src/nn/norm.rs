//! Layer norm.

use super::Scope;
use crate::ops::layer_norm;
use crate::{DType, Result, Tensor};

/// Over the last dimension, with weight and bias.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    /// `weight` and `bias` [width].
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn load(scope: &Scope, width: usize, eps: f32) -> Result<LayerNorm> {
        let (weight, bias) = (scope.vector("weight", &[width])?, scope.vector("bias", &[width])?);
        Ok(LayerNorm { weight, bias, eps })
    }

    /// `x` [..., width] to the same shape, stored in `out`.
    ///
    /// # Errors
    /// The shape does not fit.
    pub fn forward(&self, x: &Tensor, out: DType) -> Result<Tensor> {
        let options = layer_norm::Options {
            weight: Some(&self.weight),
            bias: Some(&self.bias),
            eps: self.eps,
            dtype: Some(out),
            ..Default::default()
        };
        Ok(layer_norm::with(x, &options)?.out)
    }
}
