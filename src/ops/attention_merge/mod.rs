//! The merge of two attentions of the same queries over different keys, by their log-sum-exps.

mod cases;
mod cpu;
mod cuda;
mod grad;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, first, run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `lse = ln(e^lse_a + e^lse_b)` and `out = e^(lse_a - lse) · out_a + e^(lse_b - lse) · out_b` for every query of every
    /// head: what attention over the keys of both parts gives. A part that saw nothing (-inf) leaves the other as it
    /// is; two such give zeros and -inf. All are f32.
    pub struct AttentionMerge("attention_merge") {
        /// Sequences.
        batch: usize = 1,
        /// Queries of a sequence.
        len_q: usize = 1,
        /// Heads.
        heads: usize = 1,
        /// Values in a head.
        head_dim: usize = 64,
    }
}

impl AttentionMerge {
    fn checked(self) -> Result<AttentionMerge> {
        Shape::new(&[self.batch, self.len_q, self.heads, self.head_dim])?;
        Ok(self)
    }
}

impl Op for AttentionMerge {
    const NAME: &'static str = "attention_merge";

    fn inputs(&self) -> Inputs {
        let (out, lse) = ([self.batch, self.len_q, self.heads, self.head_dim], [self.batch, self.heads, self.len_q]);
        [
            Operand::new("out_a", DType::F32, &out),
            Operand::new("lse_a", DType::F32, &lse),
            Operand::new("out_b", DType::F32, &out),
            Operand::new("lse_b", DType::F32, &lse),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [
            Operand::new("out", DType::F32, &[self.batch, self.len_q, self.heads, self.head_dim]),
            Operand::new("lse", DType::F32, &[self.batch, self.heads, self.len_q]),
        ]
        .into()
    }
    /// Two products and a sum for each value.
    fn flops(&self) -> u64 {
        (3 * self.batch as u64).saturating_mul((self.len_q * self.heads * self.head_dim) as u64)
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        reference::attention_merge(self, inputs, rows)
    }
    fn keeps(&self) -> (u32, u32) {
        grad::KEEPS
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        grad::grad(saved, grads)
    }
}

/// Merges two pairs of attention's result [batch, len_q, heads, head_dim] and log-sum-exp [batch, heads, len_q], all f32,
/// into the pair for the keys of both.
///
/// # Errors
/// Shapes or dtypes do not fit.
pub fn attention_merge(a: (&Tensor, &Tensor), b: (&Tensor, &Tensor)) -> Result<(Tensor, Tensor)> {
    let &[batch, len_q, heads, head_dim] = a.0.shape() else {
        return Err(Error::problem("attention_merge", format!("takes [batch, len_q, heads, head_dim], got {}", a.0)));
    };
    let op = AttentionMerge { batch, len_q, heads, head_dim }.checked()?;
    let [out, lse, ..] = run(&op, a.0.device(), &[Some(a.0), Some(a.1), Some(b.0), Some(b.1)])?;
    Ok((first([out, None, None, None]), first([lse, None, None, None])))
}
