//! A matrix with a bias.

use super::Scope;
use crate::ops::activation::Activation;
use crate::ops::concat::concat;
use crate::ops::gemm::{self, Epilogue};
use crate::{DType, Error, Result, Tensor};

/// `y = x · Wᵀ + b`, with `W` [out, in] packed for the device's kernels, or plain if it is trained.
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    compute: DType,
}

impl Linear {
    /// `weight` [outputs, inputs] and, if asked for, `bias` [outputs].
    ///
    /// # Errors
    /// A tensor is missing or has another shape, or memory is short.
    pub fn load(scope: &Scope, inputs: usize, outputs: usize, bias: bool) -> Result<Linear> {
        let weight = scope.matrix("weight", &[outputs, inputs])?;
        let bias = if bias { Some(scope.vector("bias", &[outputs])?) } else { None };
        Linear::new(&weight, bias, scope.precision().compute)
    }

    /// Several matrices with the same input as one, so that one product serves them all: outputs one after the other.
    ///
    /// # Errors
    /// As [`load`](Linear::load).
    pub fn stacked(scopes: &[Scope], inputs: usize, outputs: usize, bias: bool) -> Result<Linear> {
        let first = scopes.first().ok_or_else(|| Error::Config("no matrices to stack".into()))?;
        let weights: Vec<Tensor> =
            scopes.iter().map(|s| s.matrix("weight", &[outputs, inputs])).collect::<Result<_>>()?;
        let weight = concat(&weights.iter().collect::<Vec<_>>(), 0)?;
        let bias = if bias {
            let biases: Vec<Tensor> = scopes.iter().map(|s| s.vector("bias", &[outputs])).collect::<Result<_>>()?;
            Some(concat(&biases.iter().collect::<Vec<_>>(), 0)?)
        } else {
            None
        };
        Linear::new(&weight, bias, first.precision().compute)
    }

    /// From a matrix [outputs, inputs] (any strides) and a bias [outputs] in f32. A matrix on the tape stays plain.
    ///
    /// # Errors
    /// Memory is short.
    pub fn new(weight: &Tensor, bias: Option<Tensor>, compute: DType) -> Result<Linear> {
        let weight = if weight.has_node() { weight.clone() } else { gemm::prepare(weight, compute, false)? };
        Ok(Linear { weight, bias, compute })
    }

    /// The number of outputs.
    pub fn outputs(&self) -> usize {
        self.weight.shape()[0]
    }

    /// `x` [..., in] to [..., out], in f32.
    ///
    /// # Errors
    /// The shape does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, Activation::None, None, DType::F32)
    }

    /// `activation(x · Wᵀ + b) + residual`, stored in `out`.
    ///
    /// # Errors
    /// A shape does not fit.
    pub fn forward_with(
        &self,
        x: &Tensor,
        activation: Activation,
        residual: Option<&Tensor>,
        out: DType,
    ) -> Result<Tensor> {
        let epilogue = Epilogue { bias: self.bias.as_ref(), activation, residual, gated: false, out };
        gemm::linear_with(&x.to_dtype(self.compute)?, &self.weight, &epilogue)
    }
}
