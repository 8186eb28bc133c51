//! The pre-norm transformer block of ViT, CLIP, DINOv2 and their kin.

use super::{LayerNorm, Mlp, Scope, SelfAttention};
use crate::ops::attention::Options;
use crate::ops::elementwise;
use crate::{DType, Result, Tensor};

/// `x += λ1 · attention(norm1(x)); x += λ2 · mlp(norm2(x))`, with λ = 1 where there is no layer scale.
pub struct Block {
    pub norm1: LayerNorm,
    pub attention: SelfAttention,
    pub norm2: LayerNorm,
    pub mlp: Mlp,
    /// λ1 and λ2 (DINOv2).
    pub scale: Option<[LayerScale; 2]>,
    /// The dtype to which the norms' results are rounded: the inputs of products.
    pub compute: DType,
}

impl Block {
    /// `x` [batch, len, width] to the same shape.
    ///
    /// # Errors
    /// A shape does not fit.
    pub fn forward(&self, x: &Tensor, options: &Options<'_>) -> Result<Tensor> {
        let normed = self.norm1.forward(x, self.compute)?;
        let x = &match &self.scale {
            None => self.attention.forward(&normed, options, Some(x))?,
            Some([scale, _]) => scale.add_to(x, &self.attention.forward(&normed, options, None)?)?,
        };
        let normed = self.norm2.forward(x, self.compute)?;
        match &self.scale {
            None => self.mlp.forward(&normed, Some(x)),
            Some([_, scale]) => scale.add_to(x, &self.mlp.forward(&normed, None)?),
        }
    }
}

/// A learnt factor per channel.
pub struct LayerScale {
    lambda: Tensor,
}

impl LayerScale {
    /// `lambda1` [width] of the scope.
    ///
    /// # Errors
    /// The tensor is missing or has another shape.
    pub fn load(scope: &Scope, width: usize) -> Result<LayerScale> {
        Ok(LayerScale { lambda: scope.vector("lambda1", &[width])? })
    }

    /// `x + λ · branch`, both [..., width].
    fn add_to(&self, x: &Tensor, branch: &Tensor) -> Result<Tensor> {
        elementwise::mul_add(branch, &self.lambda, x)
    }
}
