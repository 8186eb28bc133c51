//! Attention: `softmax(scale · q · kᵀ + bias) · v` over the keys that each query may see, with the log-sum-exp of the
//! scores on request. Softmax is computed online (Milakov and Gimelshein, arXiv 1805.02867; FlashAttention-2, arXiv
//! 2307.08691), so that no matrix of scores is ever stored.

mod cases;
mod cpu;
mod reference;

use super::problem::problem;
use super::{Case, Inputs, Op, Operand, Outputs, Real, Results, Sample, first, no_gpu_kernels, run};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::ops::Fill;
use crate::tensor::Tensor;
use std::ops::Range;

problem! {
    /// With `n` the keys that exist (`len_k`, or `lens_k[b]` where that operand is given) and `t = i + n - len_q` the key
    /// that stands beside query i, query i of head h sees key j of head `h / (heads_q / heads_kv)` if
    ///
    /// - `j < n`, with `causal` also `j <= t`, with a `window` also `j > t - window`,
    /// - `segment_ids_q[b, i] == segment_ids_k[b, j]` with `segments`, and `key_padding[b, j] != 0` with `key_padding`.
    ///
    /// `s[i, j] = softmax_scale · q[b, i, h] · k[b, j, h'] + bias[b, h, i, j]` for those keys;
    /// `lse[b, h, i] = ln Σ_j e^s[i, j]`; `out[b, i, h] = Σ_j e^(s[i, j] - lse) · v[b, j, h']`. A query that sees nothing
    /// gives zeros and an `lse` of `-inf`. Scores, sums and the accumulated result are f32.
    pub struct Attention("attention") {
        /// Of `q`, `k` and `v`.
        dtype: DType = DType::F32,
        /// Of the result.
        out: DType = DType::F32,
        /// Sequences.
        batch: usize = 1,
        /// Queries of a sequence.
        len_q: usize = 1,
        /// Keys of a sequence; the capacity where `lens_k` is given.
        len_k: usize = 1,
        /// Heads of the queries.
        heads_q: usize = 1,
        /// Heads of keys and values: a divisor of `heads_q`.
        heads_kv: usize = 1,
        /// Values in a head.
        head_dim: usize = 64,
        /// What scores are multiplied by; 0 stands for `1/√head_dim`.
        softmax_scale: Scalar = Scalar(0.0),
        /// Whether queries see no key after their own place, the last query standing beside the last key.
        causal: bool = false,
        /// How many keys a query sees up to its own place; 0 for all.
        window: usize = 0,
        /// Whether there is an f32 `bias` [bias_batch, bias_heads, len_q, len_k].
        bias: bool = false,
        /// `batch`, or 1 for a bias that all sequences share.
        bias_batch: usize = 1,
        /// `heads_q`, or 1 for a bias that all heads share.
        bias_heads: usize = 1,
        /// Whether there are u32 `segment_ids_q` [batch, len_q] and `segment_ids_k` [batch, len_k].
        segments: bool = false,
        /// Whether there is a u8 `key_padding` [batch, len_k]: 0 hides a key.
        key_padding: bool = false,
        /// Whether there is a u32 `lens_k` [batch]: the keys that exist, at most `len_k`.
        lens_k: bool = false,
        /// Whether the log-sum-exp is a result.
        lse: bool = false,
    }
}

impl Attention {
    fn checked(self) -> Result<Attention> {
        let fail = |why: String| Err(Error::problem("attention", why));
        let Attention { batch, len_q, len_k, heads_q, heads_kv, head_dim, .. } = self;
        if !self.dtype.is_float() || !self.out.is_float() {
            return fail(format!("takes and gives floats, got {} and {}", self.dtype, self.out));
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
            Shape::new(&[self.bias_batch, self.bias_heads, len_q, len_k])?;
        }
        Ok(self)
    }

    /// The factor of the scores.
    fn scale(&self) -> f32 {
        if self.softmax_scale.0 == 0.0 { (1.0 / (self.head_dim as f64).sqrt()) as f32 } else { self.softmax_scale.0 }
    }

    /// The keys between which query `i` sees, by place alone, where `keys` of them exist.
    fn visible(&self, i: usize, keys: usize) -> Range<usize> {
        // The place after the key that stands beside the query; negative before the first key.
        let next = i as i128 + 1 + keys as i128 - self.len_q as i128;
        let clamp = |x: i128| x.clamp(0, keys as i128) as usize;
        let end = if self.causal { clamp(next) } else { keys };
        let start = if self.window > 0 { clamp(next - self.window as i128) } else { 0 };
        start.min(end)..end
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

impl Op for Attention {
    const NAME: &'static str = "attention";

    fn inputs(&self) -> Inputs {
        let &Attention { dtype, batch, len_q, len_k, heads_q, heads_kv, head_dim, .. } = self;
        let keys = u32::try_from(len_k).unwrap_or(u32::MAX).saturating_add(1);
        [
            Operand::new("q", dtype, &[batch, len_q, heads_q, head_dim]),
            Operand::new("k", dtype, &[batch, len_k, heads_kv, head_dim]),
            Operand::new("v", dtype, &[batch, len_k, heads_kv, head_dim]),
            Operand::new("bias", DType::F32, &[self.bias_batch, self.bias_heads, len_q, len_k]).only_if(self.bias),
            Operand::new("segment_ids_q", DType::U32, &[batch, len_q]).only_if(self.segments).fill(Fill::Ascending(3)),
            Operand::new("segment_ids_k", DType::U32, &[batch, len_k]).only_if(self.segments).fill(Fill::Ascending(3)),
            Operand::new("key_padding", DType::U8, &[batch, len_k]).only_if(self.key_padding).fill(Fill::Below(2)),
            Operand::new("lens_k", DType::U32, &[batch]).only_if(self.lens_k).fill(Fill::Below(keys)),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        let &Attention { batch, len_q, heads_q, head_dim, .. } = self;
        [
            Operand::new("out", self.out, &[batch, len_q, heads_q, head_dim]),
            Operand::new("lse", DType::F32, &[batch, heads_q, len_q]).only_if(self.lse),
        ]
        .into()
    }
    /// Both products for every score that `causal` and `window` leave; other masks depend on data.
    fn flops(&self) -> u64 {
        let heads = 4 * (self.batch as u128) * (self.heads_q as u128);
        let flops = heads.checked_mul(self.head_dim as u128).and_then(|f| f.checked_mul(self.scores()));
        flops.map_or(u64::MAX, |f| u64::try_from(f).unwrap_or(u64::MAX))
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        reference::attention(self, inputs, rows)
    }
}

no_gpu_kernels!(Attention);

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

/// Attention of `q` [batch, len_q, heads_q, head_dim] over `k` and `v` [batch, len_k, heads_kv, head_dim], all of one
/// dtype, as [batch, len_q, heads_q, head_dim]. Slices of one fused tensor are taken as they lie.
///
/// # Errors
/// Shapes or dtypes do not fit, or an entry of `lens_k` is larger than `len_k`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, options: &Options<'_>) -> Result<Tensor> {
    launch(q, k, v, options, false).map(first)
}

/// As [`attention`], with the natural logarithm of the sum of the exponentials of each query's scores, f32
/// [batch, heads_q, len_q].
///
/// # Errors
/// As [`attention`].
pub fn attention_with_lse(q: &Tensor, k: &Tensor, v: &Tensor, options: &Options<'_>) -> Result<(Tensor, Tensor)> {
    let [out, lse, ..] = launch(q, k, v, options, true)?;
    Ok((first([out, None, None, None]), first([lse, None, None, None])))
}

fn launch(q: &Tensor, k: &Tensor, v: &Tensor, options: &Options<'_>, lse: bool) -> Result<Results> {
    let (&[batch, len_q, heads_q, head_dim], &[_, len_k, heads_kv, _]) = (q.shape(), k.shape()) else {
        return Err(Error::problem("attention", format!("takes [batch, len, heads, head_dim], got {q} and {k}")));
    };
    let (bias_batch, bias_heads) = match options.bias.map(Tensor::shape) {
        None => (1, 1),
        Some(&[batch, heads, ..]) => (batch, heads),
        Some(other) => {
            return Err(Error::problem(
                "attention",
                format!("bias must be [batch, heads, len_q, len_k], is {other:?}"),
            ));
        }
    };
    let op = Attention {
        dtype: q.dtype(),
        out: options.out,
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
        lse,
    }
    .checked()?;
    let (ids_q, ids_k) = options.segment_ids.unzip();
    run(&op, q.device(), &[Some(q), Some(k), Some(v), options.bias, ids_q, ids_k, options.key_padding, options.lens_k])
}
