//! What `attention` and `attention_bwd` share: one description of which queries see which keys, its checks, its operands,
//! and how CPU kernels read them. They stay two ops of the catalog; this is no op.

pub(super) mod cpu;
pub(super) mod cuda;
pub(super) mod wgpu;

use super::{Fill, Operand};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;
use std::ops::Range;

/// Attention of some queries over some keys, whichever op asks for it. The fields are those of [`Attention`].
///
/// [`Attention`]: super::attention::Attention
#[derive(Clone, Copy)]
pub(super) struct Attend {
    pub dtype: DType,
    pub batch: usize,
    pub len_q: usize,
    pub len_k: usize,
    pub heads_q: usize,
    pub heads_kv: usize,
    pub head_dim: usize,
    pub softmax_scale: Scalar,
    pub causal: bool,
    pub window: usize,
    pub bias: bool,
    pub bias_batch: usize,
    pub bias_heads: usize,
    pub segments: bool,
    pub key_padding: bool,
    pub lens_k: bool,
}

/// A struct that has the fields of [`Attend`], and some more, from another.
macro_rules! described {
    ($To:ident from $from:ident $(, $more:ident)*) => {
        $To {
            dtype: $from.dtype,
            batch: $from.batch,
            len_q: $from.len_q,
            len_k: $from.len_k,
            heads_q: $from.heads_q,
            heads_kv: $from.heads_kv,
            head_dim: $from.head_dim,
            softmax_scale: $from.softmax_scale,
            causal: $from.causal,
            window: $from.window,
            bias: $from.bias,
            bias_batch: $from.bias_batch,
            bias_heads: $from.bias_heads,
            segments: $from.segments,
            key_padding: $from.key_padding,
            lens_k: $from.lens_k,
            $($more,)*
        }
    };
}
pub(super) use described;

impl Attend {
    pub fn check(&self, op: &'static str) -> Result<()> {
        let fail = |why: String| Err(Error::problem(op, why));
        let &Attend { batch, len_q, len_k, heads_q, heads_kv, head_dim, .. } = self;
        if !self.dtype.is_float() {
            return fail(format!("takes floats, got {}", self.dtype));
        }
        if heads_kv == 0 || heads_q == 0 || !heads_q.is_multiple_of(heads_kv) {
            return fail(format!("heads_q must be a multiple of heads_kv, got {heads_q} and {heads_kv}"));
        }
        if head_dim == 0 {
            return fail("head_dim must not be 0".into());
        }
        if !self.softmax_scale.0.is_finite() {
            return fail(format!("softmax_scale must be finite, got {}", self.softmax_scale));
        }
        let one_of = |have: usize, all: usize| have == 1 || self.bias && have == all;
        if !one_of(self.bias_batch, batch) || !one_of(self.bias_heads, heads_q) {
            return fail(format!(
                "bias_batch and bias_heads must be 1, or with a bias {batch} and {heads_q}; got {} and {}",
                self.bias_batch, self.bias_heads
            ));
        }
        Shape::new(&[batch, len_q, heads_q, head_dim])?;
        Shape::new(&[batch, len_k, heads_q, head_dim])?;
        if self.bias {
            Shape::new(&self.bias_shape())?;
        }
        Ok(())
    }

    /// Of queries and of what belongs to them.
    pub fn query_shape(&self) -> [usize; 4] {
        [self.batch, self.len_q, self.heads_q, self.head_dim]
    }

    /// Of keys and of values.
    pub fn key_shape(&self) -> [usize; 4] {
        [self.batch, self.len_k, self.heads_kv, self.head_dim]
    }

    /// Of the log-sum-exp.
    pub fn lse_shape(&self) -> [usize; 3] {
        [self.batch, self.heads_q, self.len_q]
    }

    pub fn bias_shape(&self) -> [usize; 4] {
        [self.bias_batch, self.bias_heads, self.len_q, self.len_k]
    }

    /// What decides which keys a query sees and what is added to its scores; [`cpu::Masks`] reads them in this order.
    pub fn masks(&self) -> [Operand; 5] {
        let &Attend { batch, len_q, len_k, .. } = self;
        let keys = u32::try_from(len_k).unwrap_or(u32::MAX).saturating_add(1);
        [
            Operand::new("bias", DType::F32, &self.bias_shape()).only_if(self.bias),
            Operand::new("segment_ids_q", DType::U32, &[batch, len_q]).only_if(self.segments).fill(Fill::Ascending(3)),
            Operand::new("segment_ids_k", DType::U32, &[batch, len_k]).only_if(self.segments).fill(Fill::Ascending(3)),
            Operand::new("key_padding", DType::U8, &[batch, len_k]).only_if(self.key_padding).fill(Fill::Below(2)),
            Operand::new("lens_k", DType::U32, &[batch]).only_if(self.lens_k).fill(Fill::Below(keys)),
        ]
    }

    /// The factor of the scores.
    pub fn scale(&self) -> f32 {
        if self.softmax_scale.0 == 0.0 { (1.0 / (self.head_dim as f64).sqrt()) as f32 } else { self.softmax_scale.0 }
    }

    /// What scores are multiplied by where weights are powers of 2.
    pub fn scale_log2(&self) -> f32 {
        (f64::from(self.scale()) * std::f64::consts::LOG2_E) as f32
    }

    /// Queries that share a head of keys: those of all heads of a group.
    pub fn rows_per_head(&self) -> usize {
        self.heads_q / self.heads_kv * self.len_q
    }

    /// The head and the place of a row of those that share head `h` of keys.
    pub fn query(&self, h: usize, row: usize) -> (usize, usize) {
        (h * (self.heads_q / self.heads_kv) + row / self.len_q, row % self.len_q)
    }

    /// The keys between which query `i` sees, by place alone, where `keys` of them exist.
    pub fn visible(&self, i: usize, keys: usize) -> Range<usize> {
        // The place after the key that stands beside the query; negative before the first key.
        let next = i as i128 + 1 + keys as i128 - self.len_q as i128;
        let clamp = |x: i128| x.clamp(0, keys as i128) as usize;
        let end = if self.causal { clamp(next) } else { keys };
        let start = if self.window > 0 { clamp(next - self.window as i128) } else { 0 };
        start.min(end)..end
    }

    /// Operations of this many products with a head's values for every score that `causal` and `window` leave; other
    /// masks depend on data.
    pub fn flops(&self, products: u128) -> u64 {
        let heads = 2 * products * (self.batch as u128) * (self.heads_q as u128);
        let flops = heads.checked_mul(self.head_dim as u128).and_then(|f| f.checked_mul(self.scores()));
        flops.map_or(u64::MAX, |f| u64::try_from(f).unwrap_or(u64::MAX))
    }

    /// Scores of a head that `causal` and `window` leave.
    fn scores(&self) -> u128 {
        // Query i stands beside key t - 1 with t from len_k - len_q + 1 to len_k; it sees max(t, 0) keys, less the
        // max(t - window, 0) that are too far back.
        let (len_q, len_k) = (self.len_q as i128, self.len_k as i128);
        let triangle = |n: i128| n.max(0) * (n.max(0) + 1) / 2;
        let sum = |back: i128| triangle(len_k - back) - triangle(len_k - len_q - back);
        let seen = if self.causal { sum(0) } else { len_q * len_k };
        let too_far = if self.window > 0 { sum(self.window as i128) } else { 0 };
        (seen - too_far).max(0) as u128
    }
}

/// What attention may be told beyond its three operands; the default is plain attention over all keys.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Whether queries see no key after their own place, the last query standing beside the last key.
    pub causal: bool,
    /// What scores are multiplied by; `1/√head_dim` if not given (or 0).
    pub softmax_scale: Option<f32>,
    /// How many keys a query sees up to its own place; 0 for all.
    pub window: usize,
    /// Added to the scaled scores: f32 [batch or 1, heads_q or 1, len_q, len_k].
    pub bias: Option<&'a Tensor>,
    /// Of queries [batch, len_q] and of keys [batch, len_k], u32: they meet only where the ids are equal.
    pub segment_ids: Option<(&'a Tensor, &'a Tensor)>,
    /// u8 [batch, len_k]: 0 hides a key.
    pub key_padding: Option<&'a Tensor>,
    /// u32 [batch]: the keys that exist, at most `len_k`, which then is a capacity.
    pub lens_k: Option<&'a Tensor>,
    /// The dtype of the result.
    pub out: DType,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            causal: false,
            softmax_scale: None,
            window: 0,
            bias: None,
            segment_ids: None,
            key_padding: None,
            lens_k: None,
            out: DType::F32,
        }
    }
}

impl<'a> Options<'a> {
    /// The operands of [`Attend::masks`].
    pub(super) fn operands(&self) -> [Option<&'a Tensor>; 5] {
        let (ids_q, ids_k) = self.segment_ids.unzip();
        [self.bias, ids_q, ids_k, self.key_padding, self.lens_k]
    }
}

/// The problem that queries, keys and options pose to `op`, not yet checked.
pub(super) fn describe(op: &'static str, q: &Tensor, k: &Tensor, options: &Options<'_>) -> Result<Attend> {
    let (&[batch, len_q, heads_q, head_dim], &[_, len_k, heads_kv, _]) = (q.shape(), k.shape()) else {
        return Err(Error::problem(op, format!("takes [batch, len, heads, head_dim], got {q} and {k}")));
    };
    let (bias_batch, bias_heads) = match options.bias.map(Tensor::shape) {
        None => (1, 1),
        Some(&[batch, heads, _, _]) => (batch, heads),
        Some(other) => {
            return Err(Error::problem(op, format!("bias must be [batch, heads, len_q, len_k], is {other:?}")));
        }
    };
    Ok(Attend {
        dtype: q.dtype(),
        batch,
        len_q,
        len_k,
        heads_q,
        heads_kv,
        head_dim,
        softmax_scale: Scalar(options.softmax_scale.unwrap_or(0.0)),
        causal: options.causal,
        window: options.window,
        bias: options.bias.is_some(),
        bias_batch,
        bias_heads,
        segments: options.segment_ids.is_some(),
        key_padding: options.key_padding.is_some(),
        lens_k: options.lens_k.is_some(),
    })
}
