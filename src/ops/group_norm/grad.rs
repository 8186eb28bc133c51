//! The gradient of group norm is that of its composition: a group is a row of a layer norm.

use super::GroupNorm;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::{elementwise, layer_norm};
use crate::tensor::Tensor;

pub fn compose(op: &GroupNorm, inputs: &[Option<Tensor>]) -> Result<Tensor> {
    let [Some(x), weight, bias] = inputs else {
        return Err(Error::problem("group_norm", "takes x, weight and bias"));
    };
    let rows = x.contiguous()?.reshape(&[op.batch * op.groups, op.group_len()])?;
    let options = layer_norm::Options { eps: op.eps.0, dtype: Some(DType::F32), ..Default::default() };
    let mut out = layer_norm::with(&rows, &options)?.out.reshape(&[op.batch, op.channels, op.inner])?;
    if let (Some(weight), Some(bias)) = (weight, bias) {
        let channels = [op.channels, 1];
        out = elementwise::mul_add(&out, &weight.reshape(&channels)?, &bias.reshape(&channels)?)?;
    }
    if op.silu {
        out = elementwise::silu(&out)?;
    }
    out.to_dtype(op.out)
}
