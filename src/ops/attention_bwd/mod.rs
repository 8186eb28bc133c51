//! The gradients of attention, from its operands, its result and its log-sum-exps: weights are computed again tile by tile
//! (FlashAttention-2, arXiv 2307.08691, section 3.1), so that memory stays linear in the lengths.

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::attend::{Attend, describe, described};
use super::problem::problem;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, first, run};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

pub use super::attend::Options;

problem! {
    /// A function of the operands as they are given, whatever they come from. With the keys that a query sees and the scores
    /// s of [`Attention`](super::attention::Attention), for every query i of head h,
    ///
    /// - `p[i, j] = e^(s[i, j] - lse[i])` for the keys j that it sees, else 0; all 0 where `lse[i]` is `-inf`,
    /// - `ds[i, j] = p[i, j] · (dout[i] · v[j] - dout[i] · out[i] + dlse[i])`,
    /// - `dq[i] = softmax_scale · Σ_j ds[i, j] · k[j]`,
    ///
    /// and, summed over the queries of all heads that share the key, `dk[j] = softmax_scale · Σ_i ds[i, j] · q[i]` and
    /// `dv[j] = Σ_i p[i, j] · dout[i]`. `dbias[i, j]` is `ds[i, j]`, summed over the sequences and heads that share the
    /// bias. Where `dtype` has 16 bits, `dout` (but for its product with `out`), `p` and `ds` may be rounded to it when they enter a
    /// product. `out` and `lse` may be those of attention over more keys than these: then the gradients are shares of the whole.
    pub struct AttentionBwd("attention_bwd") {
        /// Of `q`, `k` and `v`.
        dtype: DType = DType::F32,
        /// Of `out`; gradients are f32.
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
        /// Whether a gradient `dlse` arrives at the log-sum-exps.
        dlse: bool = false,
        /// Whether the bias's gradient is a result.
        dbias: bool = false,
    }
}

impl AttentionBwd {
    fn checked(self) -> Result<AttentionBwd> {
        if !self.out.is_float() {
            return Err(Error::problem("attention_bwd", format!("`out` holds floats, got {}", self.out)));
        }
        if self.dbias && !self.bias {
            return Err(Error::problem("attention_bwd", "dbias belongs to a bias"));
        }
        self.attend().check("attention_bwd")?;
        Ok(self)
    }

    fn attend(&self) -> Attend {
        described!(Attend from self)
    }
}

impl Op for AttentionBwd {
    const NAME: &'static str = "attention_bwd";

    fn inputs(&self) -> Inputs {
        let attend = self.attend();
        let [bias, ids_q, ids_k, padding, lens] = attend.masks();
        // About the log-sum-exp of normal scores, so that weights add up to about 1.
        let lse = Fill::Affine { scale: 0.2, offset: (self.len_k.max(1) as f32).ln() + 0.5 };
        [
            Operand::new("q", self.dtype, &attend.query_shape()),
            Operand::new("k", self.dtype, &attend.key_shape()),
            Operand::new("v", self.dtype, &attend.key_shape()),
            Operand::new("out", self.out, &attend.query_shape()),
            Operand::new("lse", DType::F32, &attend.lse_shape()).fill(lse),
            Operand::new("dout", DType::F32, &attend.query_shape()),
            bias,
            ids_q,
            ids_k,
            padding,
            lens,
            Operand::new("dlse", DType::F32, &attend.lse_shape()).only_if(self.dlse),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        let attend = self.attend();
        [
            Operand::new("dq", DType::F32, &attend.query_shape()),
            Operand::new("dk", DType::F32, &attend.key_shape()),
            Operand::new("dv", DType::F32, &attend.key_shape()),
            Operand::new("dbias", DType::F32, &attend.bias_shape()).only_if(self.dbias),
        ]
        .into()
    }
    /// Five products for every score that `causal` and `window` leave; other masks depend on data.
    fn flops(&self) -> u64 {
        self.attend().flops(5)
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        reference::attention_bwd(self, inputs, rows)
    }
}

/// The gradients of attention's operands, f32 of their shapes.
#[derive(Clone, Debug)]
pub struct Gradients {
    pub dq: Tensor,
    pub dk: Tensor,
    pub dv: Tensor,
    /// Where it was asked for.
    pub dbias: Option<Tensor>,
}

/// The gradients of attention of `q` over `k` and `v` under `options` (of which `out` has no meaning here), from its result
/// `out`, its log-sum-exps `lse` [batch, heads_q, len_q] and the gradients `dout` and `dlse`, f32, that arrive at them;
/// `dbias` asks for that of the bias. See [`AttentionBwd`] for where `out` and `lse` are those of more keys.
///
/// # Errors
/// Shapes or dtypes do not fit, an entry of `lens_k` is larger than `len_k`, or there is no bias to give a gradient of.
pub fn attention_bwd(
    [q, k, v]: [&Tensor; 3],
    (out, lse): (&Tensor, &Tensor),
    (dout, dlse): (&Tensor, Option<&Tensor>),
    options: &Options<'_>,
    dbias: bool,
) -> Result<Gradients> {
    let attend = describe("attention_bwd", q, k, options)?;
    let [bias, ids_q, ids_k, padding, lens] = options.operands();
    let operands =
        [Some(q), Some(k), Some(v), Some(out), Some(lse), Some(dout), bias, ids_q, ids_k, padding, lens, dlse];
    let (out, dlse) = (out.dtype(), dlse.is_some());
    let op = described!(AttentionBwd from attend, out, dlse, dbias).checked()?;
    let [dq, dk, dv, dbias] = run(&op, q.device(), &operands)?;
    let [dq, dk, dv] = [dq, dk, dv].map(|t| first([t, None, None, None]));
    Ok(Gradients { dq, dk, dv, dbias })
}
