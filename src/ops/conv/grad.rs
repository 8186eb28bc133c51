//! The gradient of x is the transposed convolution of the result's with the same weight (of padding that repeats points, each
//! padded point's is added to the point it came from); that of the weight is a product over places, `conv_bwd_weight`.

use super::{Activation, Conv, Padding};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::conv_bwd_weight::conv_bwd_weight;
use crate::ops::conv_transpose::{self, conv_transpose};
use crate::ops::convolution::Geometry;
use crate::ops::{Saved, elementwise, first, pad, reduce, run};
use crate::tensor::Tensor;

const X: usize = 0;
const WEIGHT: usize = 1;
const BIAS: usize = 2;

/// Each factor's gradient needs the other one; for an activation, the sums are computed again.
pub(super) fn keeps(op: &Conv, needs: u32) -> (u32, u32) {
    match op.activation {
        Activation::None => (factors(needs), 0),
        _ => (!0, 0),
    }
}

/// Of the first two operands, those that the gradients of the others of them need.
pub(in crate::ops) fn factors(needs: u32) -> u32 {
    (needs >> WEIGHT & 1) << X | (needs >> X & 1) << WEIGHT
}

pub(super) fn grad(saved: &Saved<Conv>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let op = &saved.op;
    if op.activation != Activation::None {
        return run::grad_of_composition(saved, grads);
    }
    let Some(grad) = &grads[0] else { return Ok(vec![None; 3]) };
    let mut found = vec![None; 3];
    if saved.needs(X) {
        found[X] = Some(input_gradient(&op.geometry(), op.groups, grad, saved.input(WEIGHT))?);
    }
    if saved.needs(WEIGHT) {
        let x = saved.input(X).to_dtype(DType::F32)?;
        found[WEIGHT] = Some(conv_bwd_weight(&x, grad, *op.kernel, &op.options())?);
    }
    if op.bias && saved.needs(BIAS) {
        found[BIAS] = Some(channel_sums(grad)?);
    }
    Ok(found)
}

/// The convolution in f32, then the activation.
pub(super) fn compose(op: &Conv, inputs: &[Option<Tensor>]) -> Result<Tensor> {
    let [Some(x), weight, bias] = inputs else {
        return Err(Error::problem("conv", "takes x, weight and bias"));
    };
    let sums = Conv { activation: Activation::None, out: DType::F32, ..*op };
    let sums = first(run(&sums, x.device(), &[Some(x), weight.as_ref(), bias.as_ref()])?);
    elementwise::activate_as(&sums, op.activation, op.out)
}

/// The gradient of the input [batch, channels, d, h, w] of a convolution, f32, from that of its result and its weight.
pub(in crate::ops) fn input_gradient(g: &Geometry, groups: usize, grad: &Tensor, weight: &Tensor) -> Result<Tensor> {
    // Of padding that repeats points, the padded input's first.
    let (size, before): ([usize; 3], [usize; 3]) = match g.padding {
        Padding::Zeros => (g.size, g.before),
        _ => (std::array::from_fn(|i| g.size[i] + g.before[i] + g.after[i]), [0; 3]),
    };
    let outputs = g.outputs();
    // A kernel at every output reaches over this many points, more or fewer than there are.
    let reached = |i: usize| (outputs[i] - 1) * g.stride[i] + (g.kernel[i] - 1) * g.dilation[i] + 1;
    let options = conv_transpose::Options {
        stride: g.stride,
        dilation: g.dilation,
        before,
        after: std::array::from_fn(|i| reached(i).saturating_sub(before[i] + size[i])),
        output_padding: std::array::from_fn(|i| (before[i] + size[i]).saturating_sub(reached(i))),
        groups,
        out: DType::F32,
    };
    let padded = conv_transpose(grad, weight, None, &options)?;
    match g.padding {
        Padding::Zeros => Ok(padded),
        _ => pad::fold(&padded, g.before, g.after, g.padding),
    }
}

/// The sum of a gradient [batch, channels, d, h, w] over all but its channels: that of a bias.
pub(in crate::ops) fn channel_sums(grad: &Tensor) -> Result<Tensor> {
    let (batch, channels) = (grad.shape()[0], grad.shape()[1]);
    let places = grad.shape()[2..].iter().product();
    let sums = reduce::sum(&grad.contiguous()?.reshape(&[batch, channels, places])?, 2)?;
    reduce::sum(&sums, 0)?.reshape(&[channels])
}
