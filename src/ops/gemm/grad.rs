//! Gradients of products. With `out = lhs · rhsᵀ`:
//!
//! - d lhs [m, k] = d out · rhs: a product whose rhs is rhsᵀ;
//! - d rhs [n, k] = d outᵀ · lhs: a product of d outᵀ and lhsᵀ, summing over m (and, of one rhs for a whole batch, over that);
//! - d bias is the sum of the rows of d out, d residual is d out.
//!
//! The transposed matrices are views: the kernels take any strides where they pack. Activations and gates are steps of
//! their own; a fused problem is taken apart by [`compose`].

use super::{Activation, Gemm};
use crate::dtype::{DType, Format};
use crate::error::{Error, Result};
use crate::ops::elementwise::{self, Kind};
use crate::ops::run::grad_of_composition;
use crate::ops::{Saved, first, pack_rhs, reduce, run};
use crate::tensor::Tensor;

const LHS: usize = 0;
const RHS: usize = 1;
const BIAS: usize = 2;
const RESIDUAL: usize = 3;

/// Each factor's gradient needs the other one.
pub fn keeps(op: &Gemm, needs: u32) -> (u32, u32) {
    match op.is_curved() {
        true => (!0, 0),
        false => ((needs >> RHS & 1) << LHS | (needs >> LHS & 1) << RHS, 0),
    }
}

pub fn grad(saved: &Saved<Gemm>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let op = &saved.op;
    if op.is_curved() {
        return grad_of_composition(saved, grads);
    }
    let Some(out) = &grads[0] else { return Ok(vec![None; 4]) };
    let (mut lhs, mut rhs, mut bias) = (None, None, None);
    if saved.needs(LHS) {
        let weight = transposed(&plain(saved.input(RHS))?)?;
        lhs = Some(product(out, &weight, op.batch, op.rhs_batch, [op.m, op.k, op.n])?);
    }
    if saved.needs(RHS) {
        let lhs = saved.input(LHS);
        rhs = Some(match op.rhs_batch == op.batch {
            true => product(&transposed(out)?, &transposed(lhs)?, op.batch, op.batch, [op.n, op.k, op.m])?,
            false => {
                let (out, lhs) = (rows(out)?, rows(lhs)?);
                product(&transposed(&out)?, &transposed(&lhs)?, 1, 1, [op.n, op.k, op.batch * op.m])?
            }
        });
    }
    if saved.needs(BIAS) {
        bias = Some(reduce::sum(&rows(out)?, 0)?.reshape(&[op.n])?);
    }
    Ok(vec![lhs, rhs, bias, saved.needs(RESIDUAL).then(|| out.clone())])
}

/// `lhs` [m, k] · `rhs` [n, k]ᵀ in f32, for each of a batch.
fn product(lhs: &Tensor, rhs: &Tensor, batch: usize, rhs_batch: usize, [m, n, k]: [usize; 3]) -> Result<Tensor> {
    let (l, r) = (lhs.dtype(), rhs.dtype());
    let op = Gemm { lhs: l, rhs: r, batch, rhs_batch, m, n, k, ..Gemm::default() }.checked()?;
    Ok(first(run(&op, lhs.device(), &[Some(lhs), Some(rhs), None, None])?))
}

/// The last two dimensions exchanged.
fn transposed(t: &Tensor) -> Result<Tensor> {
    let last = t.shape().len() - 1;
    t.transpose(last - 1, last)
}

/// The matrices of a batch as one.
fn rows(t: &Tensor) -> Result<Tensor> {
    let (rows, cols) = t.layout().shape.rows();
    t.reshape(&[rows, cols]).or_else(|_| t.contiguous()?.reshape(&[rows, cols]))
}

/// A weight as a plain matrix.
fn plain(weight: &Tensor) -> Result<Tensor> {
    match weight.format() {
        Format::Plain => Ok(weight.clone()),
        Format::Panels { .. } => pack_rhs::unpack(weight),
        format => Err(Error::NotSupported(format!("the gradient of a product with a weight in {format}"))),
    }
}

/// The problem in steps: the product with its bias, the activation, the gate, the residual.
pub fn compose(op: &Gemm, inputs: &[Option<Tensor>]) -> Result<Tensor> {
    let [Some(lhs), Some(rhs), bias, residual] = inputs else {
        return Err(Error::problem("gemm", "takes lhs, rhs, bias and residual"));
    };
    let rhs = if op.gated { plain(rhs)? } else { rhs.clone() };
    let linear = Gemm {
        out: DType::F32,
        format: rhs.format(),
        n: op.rhs_rows(),
        activation: Activation::None,
        residual: false,
        gated: false,
        ..*op
    };
    let sum = first(run(&linear.checked()?, lhs.device(), &[Some(lhs), Some(&rhs), bias.as_ref(), None])?);
    // Only the last step gives the result's dtype.
    let dtype = |last: bool| if last { op.out } else { DType::F32 };
    let mut out = match op.gated {
        false => elementwise::activate_as(&sum, op.activation, dtype(residual.is_none()))?,
        true => {
            let halves = sum.split(sum.shape().len() - 1, &[op.n, op.n])?;
            let gate = elementwise::activate(&halves[0], op.activation)?;
            elementwise::apply(Kind::Mul, &[&gate, &halves[1]], [0.0; 2], dtype(residual.is_none()))?
        }
    };
    if let Some(residual) = residual {
        out = elementwise::apply(Kind::Add, &[&out, residual], [0.0; 2], op.out)?;
    }
    Ok(out)
}
