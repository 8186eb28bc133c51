//! The weight is linear in x and in the gradient that it was made of; with a convolution by what arrives here they make the
//! same sum, so their gradients are that convolution and the gradient of its input.

use super::ConvBwdWeight;
use crate::error::Result;
use crate::ops::Saved;
use crate::ops::conv::{Options, conv, input_gradient};
use crate::tensor::Tensor;

pub(super) fn grad(saved: &Saved<ConvBwdWeight>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let op = &saved.op;
    let (Some(x), Some(grad), Some(weight)) = (&saved.inputs[0], &saved.inputs[1], &grads[0]) else {
        return Ok(vec![None; 2]);
    };
    let options = Options {
        stride: *op.stride,
        dilation: *op.dilation,
        before: *op.before,
        after: *op.after,
        padding: op.padding,
        groups: op.groups,
        ..Options::default()
    };
    let x_grad = input_gradient(&op.geometry(), op.groups, grad, weight)?;
    Ok(vec![Some(x_grad), Some(conv(x, weight, None, &options)?)])
}
