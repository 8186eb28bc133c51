//! `d loss / d logits = weight · (softmax - one-hot)` and `d lse / d logits = softmax`, in one kernel.

use super::{CrossEntropy, Options};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::Saved;
use crate::ops::cross_entropy_bwd::cross_entropy_bwd;
use crate::tensor::Tensor;

/// All operands, and the log-sum-exp.
pub const KEEPS: (u32, u32) = (0b111, 0b10);

pub fn grad(saved: &Saved<CrossEntropy>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let (Some(logits), Some(labels), Some(lse)) = (&saved.inputs[0], &saved.inputs[1], &saved.outputs[1]) else {
        return Ok(vec![None; 3]);
    };
    let zeros;
    let grad_loss = match &grads[0] {
        Some(grad) => grad,
        None => {
            zeros = Tensor::zeros(logits.device(), DType::F32, &[saved.op.rows])?;
            &zeros
        }
    };
    let options = Options { weights: saved.inputs[2].as_ref(), ignore: saved.op.ignore };
    let grad = cross_entropy_bwd(logits, labels, lse, grad_loss, grads[1].as_ref(), &options)?;
    Ok(vec![Some(grad), None, None])
}
