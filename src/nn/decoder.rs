//! The block of Llama and its kin: rms norms, rotary self-attention with grouped heads and a cache, a gated pair.

use super::{CacheStep, KvCache, Linear, RmsNorm, Scope};
use crate::ops::activation::Activation;
use crate::ops::attention::{self, Options};
use crate::ops::elementwise;
use crate::ops::rope::{self, Pairs, rope};
use crate::{DType, Error, Result, Tensor};

/// The sizes of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecoderConfig {
    pub width: usize,
    pub heads_q: usize,
    pub heads_kv: usize,
    pub head_dim: usize,
    pub mlp_width: usize,
    pub activation: Activation,
    pub eps: f32,
    /// Whether q, k, v and o have biases.
    pub attention_bias: bool,
    /// Whether gate, up and down have biases.
    pub mlp_bias: bool,
}

/// How keys and queries are turned in one call.
#[derive(Clone)]
pub struct Rotation {
    /// u32 [batch or 1, len].
    pub positions: Tensor,
    /// f32 [head_dim / 2].
    pub inv_freq: Tensor,
    /// Which values make a pair.
    pub pairs: Pairs,
    /// Of cosines and sines.
    pub factor: f32,
}

/// Where keys come from and which of them are hidden.
pub enum Keys<'a> {
    /// The call's own tokens; `key_padding` u8 [batch, len] hides some.
    Own { key_padding: Option<&'a Tensor> },
    /// Those of the cache, the call's own being appended.
    Cached { cache: &'a mut KvCache, layer: usize, step: &'a CacheStep },
}

/// Matrices with the same input: one product where they are stored alike, else one each (quantised files mix formats).
enum Projections {
    One(Box<Linear>),
    Each(Vec<Linear>),
}

impl Projections {
    fn weight_bytes(&self) -> usize {
        match self {
            Projections::One(one) => one.weight_bytes(),
            Projections::Each(each) => each.iter().map(Linear::weight_bytes).sum(),
        }
    }
}

/// Causal self-attention with rotary positions.
pub struct CausalAttention {
    qkv: Projections,
    o_proj: Linear,
    config: DecoderConfig,
    compute: DType,
}

impl CausalAttention {
    /// From `q_proj`, `k_proj`, `v_proj` and `o_proj`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape, or memory is short.
    pub fn load(scope: &Scope, c: &DecoderConfig) -> Result<CausalAttention> {
        let scopes = ["q_proj", "k_proj", "v_proj"].map(|name| scope.sub(name));
        let outputs = [c.heads_q, c.heads_kv, c.heads_kv].map(|heads| heads * c.head_dim);
        let qkv = match Linear::can_stack(&scopes)? {
            true => Projections::One(Box::new(Linear::stacked(&scopes, c.width, &outputs, c.attention_bias)?)),
            false => {
                let each = scopes.iter().zip(outputs);
                let load = |(s, n): (&Scope, usize)| Linear::load(s, c.width, n, c.attention_bias);
                Projections::Each(each.map(load).collect::<Result<_>>()?)
            }
        };
        let o_proj = Linear::load(&scope.sub("o_proj"), c.heads_q * c.head_dim, c.width, c.attention_bias)?;
        Ok(CausalAttention { qkv, o_proj, config: *c, compute: scope.precision().compute })
    }

    /// Queries and keys, turned, and values of `x` [batch, len, width], each [batch, len, heads, head_dim].
    fn project(&self, x: &Tensor, rotation: &Rotation) -> Result<[Tensor; 3]> {
        let options = rope::Options { pairs: rotation.pairs, factor: rotation.factor, ..Default::default() };
        let turn = |t: &Tensor| rope(t, &rotation.positions, &rotation.inv_freq, &options);
        let (batch, len) = (x.shape()[0], x.shape()[1]);
        let DecoderConfig { heads_q, heads_kv, head_dim, .. } = self.config;
        match &self.qkv {
            Projections::One(qkv) => {
                let all = qkv.forward_with(x, Activation::None, None, self.compute)?;
                let all = all.reshape(&[batch, len, heads_q + 2 * heads_kv, head_dim])?;
                let parts = all.split(2, &[heads_q + heads_kv, heads_kv])?;
                // One launch for both: they share their angles.
                let turned = turn(&parts[0])?.split(2, &[heads_q, heads_kv])?;
                Ok([turned[0].clone(), turned[1].clone(), parts[1].clone()])
            }
            Projections::Each(each) => {
                let one = |i: usize, heads: usize| {
                    let y = each[i].forward_with(x, Activation::None, None, self.compute)?;
                    y.reshape(&[batch, len, heads, head_dim])
                };
                Ok([turn(&one(0, heads_q)?)?, turn(&one(1, heads_kv)?)?, one(2, heads_kv)?])
            }
        }
    }

    /// `x` [batch, len, width] to the same shape; `residual`, of that shape, is added to the result.
    ///
    /// # Errors
    /// A shape does not fit, or memory is short.
    pub fn forward(
        &self,
        x: &Tensor,
        rotation: &Rotation,
        keys: &mut Keys<'_>,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let _span = x.device().span(|| "attention".into());
        let [q, k, v] = self.project(x, rotation)?;
        let options = Options { causal: true, out: self.compute, ..Default::default() };
        let mixed = match keys {
            Keys::Own { key_padding } => {
                attention::attention(&q, &k, &v, &Options { key_padding: *key_padding, ..options })?
            }
            Keys::Cached { cache, layer, step } => {
                let [k, v] = cache.append(*layer, step, &k, &v)?;
                let (lens_k, key_padding) = (Some(&step.lens_k), step.key_padding.as_ref());
                attention::attention(&q, &k, &v, &Options { lens_k, key_padding, ..options })?
            }
        };
        let (batch, len) = (x.shape()[0], x.shape()[1]);
        let mixed = mixed.reshape(&[batch, len, self.config.heads_q * self.config.head_dim])?;
        self.o_proj.forward_with(&mixed, Activation::None, residual, DType::F32)
    }
}

/// `down(activation(gate(x)) ⊙ up(x))`.
pub struct GatedMlp {
    gate_up: Projections,
    down: Linear,
    activation: Activation,
    compute: DType,
}

impl GatedMlp {
    /// From `gate_proj`, `up_proj` and `down_proj`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape, or memory is short.
    pub fn load(scope: &Scope, c: &DecoderConfig) -> Result<GatedMlp> {
        let scopes = ["gate_proj", "up_proj"].map(|name| scope.sub(name));
        let gate_up = match Linear::can_stack(&scopes)? {
            true => Projections::One(Box::new(Linear::gated(&scopes, c.width, c.mlp_width, c.mlp_bias)?)),
            false => {
                let load = |s: &Scope| Linear::load(s, c.width, c.mlp_width, c.mlp_bias);
                Projections::Each(scopes.iter().map(load).collect::<Result<_>>()?)
            }
        };
        let down = Linear::load(&scope.sub("down_proj"), c.mlp_width, c.width, c.mlp_bias)?;
        Ok(GatedMlp { gate_up, down, activation: c.activation, compute: scope.precision().compute })
    }

    /// `x` [..., width] to the same shape; `residual`, of that shape, is added to the result.
    ///
    /// # Errors
    /// A shape does not fit.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let _span = x.device().span(|| "mlp".into());
        let hidden = match &self.gate_up {
            Projections::One(pair) => pair.forward_with(x, self.activation, None, self.compute)?,
            Projections::Each(each) => {
                let gate = each[0].forward_with(x, self.activation, None, DType::F32)?;
                elementwise::mul(&gate, &each[1].forward(x)?)?.to_dtype(self.compute)?
            }
        };
        self.down.forward_with(&hidden, Activation::None, residual, DType::F32)
    }
}

/// One block.
pub struct DecoderBlock {
    pub input_layernorm: RmsNorm,
    pub self_attn: CausalAttention,
    pub post_attention_layernorm: RmsNorm,
    pub mlp: GatedMlp,
    compute: DType,
}

impl DecoderBlock {
    /// From one of `layers`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape, or memory is short.
    pub fn load(scope: &Scope, c: &DecoderConfig) -> Result<DecoderBlock> {
        if c.heads_kv == 0 || !c.heads_q.is_multiple_of(c.heads_kv) {
            let why = format!("{} heads of keys do not divide {} heads of queries", c.heads_kv, c.heads_q);
            return Err(Error::Config(why));
        }
        Ok(DecoderBlock {
            input_layernorm: RmsNorm::load(&scope.sub("input_layernorm"), c.width, c.eps)?,
            self_attn: CausalAttention::load(&scope.sub("self_attn"), c)?,
            post_attention_layernorm: RmsNorm::load(&scope.sub("post_attention_layernorm"), c.width, c.eps)?,
            mlp: GatedMlp::load(&scope.sub("mlp"), c)?,
            compute: scope.precision().compute,
        })
    }

    /// Bytes of matrices that a token's way through the block reads.
    pub fn weight_bytes(&self) -> usize {
        let attention = self.self_attn.qkv.weight_bytes() + self.self_attn.o_proj.weight_bytes();
        attention + self.mlp.gate_up.weight_bytes() + self.mlp.down.weight_bytes()
    }

    /// `x` [batch, len, width] to the same shape. `tap` sees what attention gave, before it is added, if it is asked for;
    /// then the addition is a step of its own.
    ///
    /// # Errors
    /// A shape does not fit, or memory is short.
    pub fn forward(
        &self,
        x: &Tensor,
        rotation: &Rotation,
        keys: &mut Keys<'_>,
        tap: Option<&mut dyn FnMut(&Tensor)>,
    ) -> Result<Tensor> {
        let normed = self.input_layernorm.forward(x, self.compute)?;
        let x = match tap {
            None => self.self_attn.forward(&normed, rotation, keys, Some(x))?,
            Some(tap) => {
                let branch = self.self_attn.forward(&normed, rotation, keys, None)?;
                tap(&branch);
                elementwise::add(x, &branch)?
            }
        };
        let normed = self.post_attention_layernorm.forward(&x, self.compute)?;
        self.mlp.forward(&normed, Some(&x))
    }
}
