//! Self-attention: one product for queries, keys and values, flash attention, and the output projection.

use super::{Linear, Scope};
use crate::ops::activation::Activation;
use crate::ops::attention::{self, Options};
use crate::{DType, Error, Result, Tensor};

/// How a width is cut into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    pub count: usize,
    pub dim: usize,
}

impl Heads {
    /// `count` equal heads of a width.
    ///
    /// # Errors
    /// They do not divide it.
    pub fn of(width: usize, count: usize) -> Result<Heads> {
        if count == 0 || width == 0 || !width.is_multiple_of(count) {
            return Err(Error::Config(format!("{count} attention heads do not divide a width of {width}")));
        }
        Ok(Heads { count, dim: width / count })
    }

    fn width(&self) -> usize {
        self.count * self.dim
    }
}

/// Multi-head self-attention.
pub struct SelfAttention {
    qkv: Linear,
    out: Linear,
    heads: Heads,
    compute: DType,
}

impl SelfAttention {
    /// From the projections: `qkv` with the outputs of queries, keys and values one after the other.
    pub fn new(qkv: Linear, out: Linear, heads: Heads, scope: &Scope) -> SelfAttention {
        SelfAttention { qkv, out, heads, compute: scope.precision().compute }
    }

    /// From separate projections, each with `weight` and (`qkv_bias`) `bias`; the output projection always has a bias.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn load(qkv: &[Scope; 3], out: &Scope, width: usize, heads: Heads, qkv_bias: bool) -> Result<SelfAttention> {
        let stacked = Linear::stacked(qkv, width, &[heads.width(); 3], qkv_bias)?;
        Ok(SelfAttention::new(stacked, Linear::load(out, heads.width(), width, true)?, heads, out))
    }

    /// `x` [batch, len, width] to the same shape; `residual`, of that shape, is added to the result.
    ///
    /// # Errors
    /// A shape does not fit.
    pub fn forward(&self, x: &Tensor, options: &Options<'_>, residual: Option<&Tensor>) -> Result<Tensor> {
        let _span = x.device().span(|| "attention".into());
        let (batch, len) = (x.shape()[0], x.shape()[1]);
        let Heads { count, dim } = self.heads;
        let qkv = self.qkv.forward_with(x, Activation::None, None, self.compute)?; // [batch, len, 3·width]
        let qkv = qkv.reshape(&[batch, len, 3, count, dim])?;
        let parts = qkv.split(2, &[1; 3])?;
        let part = |i: usize| parts[i].reshape(&[batch, len, count, dim]);
        let options = Options { out: self.compute, ..*options };
        let mixed = attention::attention(&part(0)?, &part(1)?, &part(2)?, &options)?; // [batch, len, heads, dim]
        let mixed = mixed.reshape(&[batch, len, count * dim])?;
        self.out.forward_with(&mixed, Activation::None, residual, DType::F32)
    }
}
