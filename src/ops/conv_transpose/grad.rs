//! The gradient of x is the convolution of the result's with the same weight; that of the weight is the one of that
//! convolution, with x in the place of its result's gradient.

use super::ConvTranspose;
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::conv::{self, Options};
use crate::ops::{Saved, conv_bwd_weight};
use crate::tensor::Tensor;

pub(super) fn grad(saved: &Saved<ConvTranspose>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let op = &saved.op;
    let (Some(x), Some(weight), Some(grad)) = (&saved.inputs[0], &saved.inputs[1], &grads[0]) else {
        return Ok(vec![None; 3]);
    };
    let bias = if op.bias { Some(conv::channel_sums(grad)?) } else { None };
    // Outputs behind the last that a tap reaches have no part in it.
    let mut reached = grad.clone();
    for (i, outputs) in op.outputs().into_iter().enumerate() {
        let beyond = op.output_padding[i].saturating_sub(op.after[i]);
        if beyond >= outputs {
            let zeros = |shape: &[usize]| Tensor::zeros(grad.device(), DType::F32, shape);
            return Ok(vec![Some(zeros(x.shape())?), Some(zeros(weight.shape())?), bias]);
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
    let x_grad = conv::conv(&reached, weight, None, &options)?;
    let weight_grad = conv_bwd_weight::conv_bwd_weight(&reached, &x.to_dtype(DType::F32)?, *op.kernel, &options)?;
    Ok(vec![Some(x_grad), Some(weight_grad), bias])
}
