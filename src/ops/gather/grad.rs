//! Each row of the table gets the sum of the gradients of the rows taken from it.

use super::Gather;
use crate::error::Result;
use crate::ops::Saved;
use crate::ops::scatter_add::scatter_add;
use crate::tensor::Tensor;

/// The ids.
pub const KEEPS: (u32, u32) = (0b10, 0);

pub fn grad(saved: &Saved<Gather>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let (Some(grad), Some(ids)) = (&grads[0], &saved.inputs[1]) else { return Ok(vec![None; 2]) };
    Ok(vec![Some(scatter_add(grad, ids, saved.op.count)?), None])
}
