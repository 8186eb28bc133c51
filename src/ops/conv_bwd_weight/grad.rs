//! The weight is linear in x and in the gradient that it was made of; with a convolution by what arrives here they make the
//! same sum, so their gradients are that convolution and the gradient of its input.

use super::ConvBwdWeight;
use crate::error::Result;
use crate::ops::Saved;
use crate::ops::conv::{Options, conv, input_gradient};
use crate::tensor::Tensor;

const X: usize = 0;
const GRAD: usize = 1;

pub(super) fn grad(saved: &Saved<ConvBwdWeight>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let op = &saved.op;
    let mut found = vec![None; 2];
    let Some(weight) = &grads[0] else { return Ok(found) };
    if saved.needs(X) {
        found[X] = Some(input_gradient(&op.geometry(), op.groups, saved.input(GRAD), weight)?);
    }
    if saved.needs(GRAD) {
        let options = Options {
            stride: *op.stride,
            dilation: *op.dilation,
            before: *op.before,
            after: *op.after,
            padding: op.padding,
            groups: op.groups,
            ..Options::default()
        };
        found[GRAD] = Some(conv(saved.input(X), weight, None, &options)?);
    }
    Ok(found)
}
