//! A recurrent layer: long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000),
//! as PyTorch's `nn.LSTM` has it, one layer in one direction.

// The getter `len` is that of a sequence, not of a container.
#![allow(clippy::len_without_is_empty)]

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, elementwise, first, gemm, run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// The recurrence. With `h` and `c` beginning as `h0` and `c0` (or zeros), for each step t in order (`reverse`: from the
    /// last to the first):
    ///
    /// `[i, f, g, o] = gates[b, t] + w_hh · h`, `c = σ(f) · c + σ(i) · tanh(g)`, `h = σ(o) · tanh(c)`, `out[b, t] = h`.
    ///
    /// The last `h` and `c` are results, too.
    ///
    /// Operands: gates [batch, len, 4·hidden] f32, w_hh [4·hidden, hidden], h0 and c0 [batch, hidden] f32. Results: out
    /// [batch, len, hidden], h and c [batch, hidden], all f32.
    pub struct Lstm("lstm") {
        /// Of w_hh: a float.
        dtype: DType = DType::F32,
        /// Sequences.
        batch: usize = 1,
        /// Steps.
        len: usize = 1,
        /// Values of the state.
        hidden: usize = 1,
        /// Whether there are h0 and c0.
        state: bool = false,
        /// Whether steps are taken from the last to the first.
        reverse: bool = false,
    }
}

impl Lstm {
    fn checked(self) -> Result<Lstm> {
        if !self.dtype.is_float() {
            return Err(Error::problem("lstm", format!("takes weights of floats, got {}", self.dtype)));
        }
        Shape::new(&[self.batch, self.len, 4, self.hidden])?;
        Shape::new(&[4, self.hidden, self.hidden])?;
        // What a step takes, for all steps.
        Shape::new(&[self.batch, self.len, 16, self.hidden, self.hidden])?;
        Ok(self)
    }
}

impl Op for Lstm {
    const NAME: &'static str = "lstm";

    fn inputs(&self) -> Inputs {
        // Weights as a trained layer has them: sums of about the size of the gates.
        let weight = Fill::Affine { scale: 1.0 / (self.hidden.max(1) as f32).sqrt(), offset: 0.0 };
        [
            Operand::new("gates", DType::F32, &[self.batch, self.len, 4 * self.hidden]),
            Operand::new("w_hh", self.dtype, &[4 * self.hidden, self.hidden]).fill(weight),
            Operand::new("h0", DType::F32, &[self.batch, self.hidden]).only_if(self.state),
            Operand::new("c0", DType::F32, &[self.batch, self.hidden]).only_if(self.state),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [
            Operand::new("out", DType::F32, &[self.batch, self.len, self.hidden]),
            Operand::new("h", DType::F32, &[self.batch, self.hidden]),
            Operand::new("c", DType::F32, &[self.batch, self.hidden]),
        ]
        .into()
    }
    /// The products; and for each value four sums, three gates, two hyperbolic tangents, three products and a sum.
    fn flops(&self) -> u64 {
        (self.batch * self.len * self.hidden) as u64 * (8 * self.hidden as u64 + 13)
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::lstm(self, inputs)
    }
}

/// The weights of a layer, under PyTorch's names; gates are in the order i, f, g, o.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// [4·hidden, inputs], plain or packed by [`gemm::prepare`].
    pub w_ih: &'a Tensor,
    /// [4·hidden, hidden], plain.
    pub w_hh: &'a Tensor,
    /// f32 [4·hidden], both or none.
    pub biases: Option<(&'a Tensor, &'a Tensor)>,
}

/// What a layer gives.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// h of each step, [batch, len, hidden].
    pub out: Tensor,
    /// h after the last step, [batch, hidden].
    pub h: Tensor,
    /// c after the last step, [batch, hidden].
    pub c: Tensor,
}

/// A layer over `x` [batch, len, inputs]; `state` is (h, c) to begin with, f32 [batch, hidden], zeros if not given. With
/// `reverse`, from the last step to the first. It has no gradient.
///
/// # Errors
/// Shapes or dtypes do not fit.
pub fn lstm(x: &Tensor, weights: &Weights<'_>, state: Option<(&Tensor, &Tensor)>, reverse: bool) -> Result<Outcome> {
    let (&[batch, len, _], &[_, hidden]) = (x.shape(), weights.w_hh.shape()) else {
        let why = format!("takes [batch, len, inputs] and w_hh [4·hidden, hidden], got {x} and {}", weights.w_hh);
        return Err(Error::problem("lstm", why));
    };
    let op = Lstm { dtype: weights.w_hh.dtype(), batch, len, hidden, state: state.is_some(), reverse }.checked()?;
    let bias = weights.biases.map(|(a, b)| elementwise::add(a, b)).transpose()?;
    let gates = gemm::linear(x, weights.w_ih, bias.as_ref())?;
    let (h0, c0) = state.unzip();
    let [out, h, c, ..] = run(&op, x.device(), &[Some(&gates), Some(weights.w_hh), h0, c0])?;
    let take = |t: Option<Tensor>| first([t, None, None, None]);
    Ok(Outcome { out: take(out), h: take(h), c: take(c) })
}
