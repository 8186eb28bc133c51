//! A rotation is linear in `x`, and its transpose turns the other way.

use super::Rope;
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::{Saved, first, run};
use crate::tensor::Tensor;

/// Positions and frequencies.
pub const KEEPS: (u32, u32) = (0b110, 0);

pub fn grad(saved: &Saved<Rope>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let Some(grad) = &grads[0] else { return Ok(vec![None; 3]) };
    let op = Rope { dtype: DType::F32, out: DType::F32, inverse: !saved.op.inverse, ..saved.op };
    let operands = [Some(grad), saved.inputs[1].as_ref(), saved.inputs[2].as_ref()];
    Ok(vec![Some(first(run(&op, grad.device(), &operands)?)), None, None])
}
