//! Attention: `softmax(scale · q · kᵀ + bias) · v` over the keys that each query may see, with the log-sum-exp of the
//! scores on request. Softmax is computed online (Milakov and Gimelshein, arXiv 1805.02867; FlashAttention-2, arXiv
//! 2307.08691), so that no matrix of scores is ever stored.

mod cases;
mod cpu;
mod cuda;
mod grad;
mod reference;
mod wgpu;

use super::attend::{Attend, describe, described};
use super::problem::problem;
use super::{Case, Inputs, Op, Operand, Outputs, Real, Results, Sample, Saved, first, run};
use crate::autograd;
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

pub use super::attend::Options;

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
        if !self.out.is_float() {
            return Err(Error::problem("attention", format!("gives floats, got {}", self.out)));
        }
        self.attend().check("attention")?;
        Ok(self)
    }

    fn attend(&self) -> Attend {
        described!(Attend from self)
    }
}

impl Op for Attention {
    const NAME: &'static str = "attention";

    fn inputs(&self) -> Inputs {
        let attend = self.attend();
        let [bias, ids_q, ids_k, padding, lens] = attend.masks();
        [
            Operand::new("q", self.dtype, &attend.query_shape()),
            Operand::new("k", self.dtype, &attend.key_shape()),
            Operand::new("v", self.dtype, &attend.key_shape()),
            bias,
            ids_q,
            ids_k,
            padding,
            lens,
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        let attend = self.attend();
        [
            Operand::new("out", self.out, &attend.query_shape()),
            Operand::new("lse", DType::F32, &attend.lse_shape()).only_if(self.lse),
        ]
        .into()
    }
    /// Both products for every score that `causal` and `window` leave; other masks depend on data.
    fn flops(&self) -> u64 {
        self.attend().flops(2)
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        reference::attention(self, inputs, rows)
    }
    fn keeps(&self) -> (u32, u32) {
        // Without the log-sum-exps the result is of no use: both are computed again.
        (!0, if self.lse { 0b11 } else { 0 })
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        grad::grad(saved, grads)
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
    // The gradient needs the log-sum-exps.
    let lse = lse || autograd::recording() && [q, k, v].into_iter().chain(options.bias).any(Tensor::has_node);
    let (attend, out) = (describe("attention", q, k, options)?, options.out);
    let op = described!(Attention from attend, out, lse).checked()?;
    let [bias, ids_q, ids_k, padding, lens] = options.operands();
    run(&op, q.device(), &[Some(q), Some(k), Some(v), bias, ids_q, ids_k, padding, lens])
}
