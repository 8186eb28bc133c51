//! Norms over the last dimension.

use super::Scope;
use crate::ops::{layer_norm, rms_norm};
use crate::{DType, Result, Tensor};

/// Layer norm, with weight and bias.
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

/// Root-mean-square norm, with weight.
pub struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    /// `weight` [width].
    ///
    /// # Errors
    /// The tensor is missing or has another shape.
    pub fn load(scope: &Scope, width: usize, eps: f32) -> Result<RmsNorm> {
        Ok(RmsNorm { weight: scope.vector("weight", &[width])?, eps })
    }

    /// `x` [..., width] to the same shape, stored in `out`.
    ///
    /// # Errors
    /// The shape does not fit.
    pub fn forward(&self, x: &Tensor, out: DType) -> Result<Tensor> {
        let options =
            rms_norm::Options { weight: Some(&self.weight), eps: self.eps, dtype: Some(out), ..Default::default() };
        Ok(rms_norm::with(x, &options)?.out)
    }
}
