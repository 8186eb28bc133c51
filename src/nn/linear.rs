//! A matrix with a bias.

use super::Scope;
use crate::ops::activation::Activation;
use crate::ops::concat::concat;
use crate::ops::elementwise;
use crate::ops::gemm::{self, Epilogue};
use crate::{DType, Error, Format, Result, Tensor};

/// `y = x · Wᵀ + b`, with `W` [out, in] packed for the device's kernels (a weight that is trained stays as it is).
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    gated: bool,
    compute: DType,
    /// For each matrix that was stacked: its outputs, and its adapter if it has one.
    parts: Vec<(usize, Option<Adapter>)>,
}

/// A low-rank addition to a frozen matrix: `y += scale · (x · Aᵀ) · Bᵀ` (LoRA, arXiv 2106.09685).
struct Adapter {
    /// [rank, in]
    a: Tensor,
    /// [out, rank]
    b: Tensor,
    scale: f32,
}

impl Linear {
    /// `weight` [outputs, inputs] and, if asked for, `bias` [outputs].
    ///
    /// # Errors
    /// A tensor is missing or has another shape, or memory is short.
    pub fn load(scope: &Scope, inputs: usize, outputs: usize, bias: bool) -> Result<Linear> {
        Linear::stacked(std::slice::from_ref(scope), inputs, &[outputs], bias)
    }

    /// Several matrices with the same input as one, so that one product serves them all: outputs one after the other.
    ///
    /// # Errors
    /// As [`load`](Linear::load); or the matrices are stored in different ways.
    pub fn stacked(scopes: &[Scope], inputs: usize, outputs: &[usize], bias: bool) -> Result<Linear> {
        Linear::joined(scopes, inputs, outputs, bias, false)
    }

    /// A gate and an equal matrix: with an activation, `activation(x · Gᵀ) ⊙ (x · Uᵀ)`.
    ///
    /// # Errors
    /// As [`stacked`](Linear::stacked).
    pub fn gated(scopes: &[Scope; 2], inputs: usize, outputs: usize, bias: bool) -> Result<Linear> {
        Linear::joined(scopes, inputs, &[outputs; 2], bias, true)
    }

    fn joined(scopes: &[Scope], inputs: usize, outputs: &[usize], bias: bool, gated: bool) -> Result<Linear> {
        let first = scopes.first().ok_or_else(|| Error::Config("no matrices to stack".into()))?;
        let compute = first.precision().compute;
        let each = || scopes.iter().zip(outputs);
        let parts: Vec<(usize, Option<Adapter>)> =
            each().map(|(s, &n)| Ok((n, Adapter::load(s, inputs, n)?))).collect::<Result<_>>()?;
        // What an adapter adds comes before the gate, so the two halves are not paired in one tile then.
        let paired = gated && parts.iter().all(|(_, adapter)| adapter.is_none());
        let weight = first.prepared(scopes.len(), || {
            let weights: Vec<Tensor> = each().map(|(s, &n)| s.matrix("weight", &[n, inputs])).collect::<Result<_>>()?;
            let joined = stack(&weights)?;
            let prepared = prepare(&joined, compute, paired)?;
            weights.iter().for_each(|weight| release(weight, &prepared));
            Ok(prepared)
        })?;
        let bias = match bias {
            true => {
                let biases: Vec<Tensor> = each().map(|(s, &n)| s.vector("bias", &[n])).collect::<Result<_>>()?;
                Some(concat(&biases.iter().collect::<Vec<_>>(), 0)?)
            }
            false => None,
        };
        Ok(Linear { weight, bias, gated, compute, parts })
    }

    /// Whether matrices can be [`stacked`](Linear::stacked): all stored in the same way.
    ///
    /// # Errors
    /// A tensor is missing.
    pub fn can_stack(scopes: &[Scope]) -> Result<bool> {
        let kinds: Vec<_> = scopes.iter().map(|s| s.stored_dtype("weight")).collect::<Result<_>>()?;
        Ok(kinds.windows(2).all(|w| w[0] == w[1]))
    }

    /// From a matrix [outputs, inputs] (any strides) and a bias [outputs] in f32. A matrix on the tape stays plain.
    ///
    /// # Errors
    /// Memory is short.
    pub fn new(weight: &Tensor, bias: Option<Tensor>, compute: DType) -> Result<Linear> {
        let prepared = prepare(weight, compute, false)?;
        release(weight, &prepared);
        Ok(Linear { weight: prepared, bias, gated: false, compute, parts: Vec::new() })
    }

    /// The number of outputs of the product; twice the result's where there is a gate.
    pub fn outputs(&self) -> usize {
        self.weight.shape()[0]
    }

    /// Bytes that a product reads of weights.
    pub fn weight_bytes(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, Tensor::bytes);
        let adapter = |(_, a): &(usize, Option<Adapter>)| a.as_ref().map_or(0, |a| a.a.bytes() + a.b.bytes());
        self.weight.bytes() + bias + self.parts.iter().map(adapter).sum::<usize>()
    }

    /// `x` [..., in] to [..., out], in f32.
    ///
    /// # Errors
    /// The shape does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, Activation::None, None, DType::F32)
    }

    /// `activation(x · Wᵀ + b) + residual`, stored in `out`; of a gated pair `activation(gate) ⊙ up + residual`.
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
        let x = x.to_dtype(self.compute)?;
        let bias = self.bias.as_ref();
        if self.parts.iter().all(|(_, adapter)| adapter.is_none()) {
            let epilogue = Epilogue { bias, activation, residual, gated: self.gated, out };
            return gemm::linear_with(&x, &self.weight, &epilogue);
        }
        let y = gemm::linear_with(&x, &self.weight, &Epilogue { bias, ..Default::default() })?;
        let y = elementwise::add(&y, &self.adapted(&x)?)?;
        let last = y.shape().len() - 1;
        let y = match self.gated {
            false => elementwise::activate(&y, activation)?,
            true => {
                let halves = y.split(last, &[self.outputs() / 2; 2])?;
                elementwise::mul(&elementwise::activate(&halves[0], activation)?, &halves[1])?
            }
        };
        let y = residual.map_or(Ok(y.clone()), |r| elementwise::add(&y, r))?;
        y.to_dtype(out)
    }

    /// What the adapters add: [..., out] in f32.
    fn adapted(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.to_dtype(DType::F32)?;
        let part = |(outputs, adapter): &(usize, Option<Adapter>)| match adapter {
            Some(Adapter { a, b, scale }) => {
                elementwise::affine(&gemm::linear(&gemm::linear(&x, a, None)?, b, None)?, *scale, 0.0)
            }
            None => {
                let mut shape = x.shape().to_vec();
                shape.pop();
                shape.push(*outputs);
                Tensor::zeros(x.device(), DType::F32, &shape)
            }
        };
        let parts: Vec<Tensor> = self.parts.iter().map(part).collect::<Result<_>>()?;
        concat(&parts.iter().collect::<Vec<_>>(), x.shape().len() - 1)
    }
}

impl Adapter {
    /// `lora_A.weight` and `lora_B.weight`, as PEFT names them, if the scope has them.
    fn load(scope: &Scope, inputs: usize, outputs: usize) -> Result<Option<Adapter>> {
        let Some((rank, scale)) = scope.lora().filter(|_| scope.contains("lora_A.weight")) else { return Ok(None) };
        let (a, b) =
            (scope.vector("lora_A.weight", &[rank, inputs])?, scope.vector("lora_B.weight", &[outputs, rank])?);
        Ok(Some(Adapter { a, b, scale }))
    }
}

/// Packed for the device's kernels, unless it is trained.
fn prepare(weight: &Tensor, compute: DType, gated: bool) -> Result<Tensor> {
    if weight.has_node() { Ok(weight.clone()) } else { gemm::prepare(weight, compute, gated) }
}

/// Lets the pages of a mapped file go, once what was packed stands in their place.
fn release(weight: &Tensor, prepared: &Tensor) {
    if prepared.format() != weight.format() {
        weight.release_pages();
    }
}

/// Matrices [n, k] one below the other; quantised ones by their bytes.
fn stack(weights: &[Tensor]) -> Result<Tensor> {
    let [first, ..] = weights else { return Err(Error::Config("no matrices to stack".into())) };
    let Format::Blocks(quant) = first.format() else {
        return concat(&weights.iter().collect::<Vec<_>>(), 0);
    };
    let rows: Vec<Tensor> = weights.iter().map(Tensor::as_block_bytes).collect::<Result<_>>()?;
    concat(&rows.iter().collect::<Vec<_>>(), 0)?.as_blocks(quant)
}
