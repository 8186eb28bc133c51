//! The gradient of x is the convolution of the result's with the same weight; that of the weight is the one of that
//! convolution, with x in the place of its result's gradient.

use super::ConvTranspose;
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::conv::{self, Options};
use crate::ops::{Saved, conv_bwd_weight};
use crate::tensor::Tensor;

const X: usize = 0;
const WEIGHT: usize = 1;
const BIAS: usize = 2;

pub(super) fn grad(saved: &Saved<ConvTranspose>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let op = &saved.op;
    let mut found = vec![None; 3];
    let Some(grad) = &grads[0] else { return Ok(found) };
    if op.bias && saved.needs(BIAS) {
        found[BIAS] = Some(conv::channel_sums(grad)?);
    }
    // Outputs behind the last that a tap reaches have no part in it.
    let mut reached = grad.clone();
    for (i, outputs) in op.outputs().into_iter().enumerate() {
        let beyond = op.output_padding[i].saturating_sub(op.after[i]);
        if beyond >= outputs {
            let zeros = |shape: &[usize]| Tensor::zeros(grad.device(), DType::F32, shape);
            (found[X], found[WEIGHT]) = (Some(zeros(&op.x_shape())?), Some(zeros(&op.weight_shape())?));
            return Ok(found);
        }
        reached = reached.slice(2 + i, 0..outputs - beyond)?;
    }
    let options = Options {
        stride: *op.stride,
        dilation: *op.dilation,
        before: *op.before,
        after: std::array::from_fn(|i| op.after[i].saturating_sub(op.output_padding[i])),
        groups: op.groups,
        ..Options::default()
    };
    if saved.needs(X) {
        found[X] = Some(conv::conv(&reached, saved.input(WEIGHT), None, &options)?);
    }
    if saved.needs(WEIGHT) {
        let x = saved.input(X).to_dtype(DType::F32)?;
        found[WEIGHT] = Some(conv_bwd_weight::conv_bwd_weight(&reached, &x, *op.kernel, &options)?);
    }
    Ok(found)
}
