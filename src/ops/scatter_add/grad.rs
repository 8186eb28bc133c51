//! Each row of `x` gets the gradient of the row that it went to.

use super::ScatterAdd;
use crate::error::Result;
use crate::ops::Saved;
use crate::ops::gather::gather;
use crate::tensor::Tensor;

/// The ids.
pub const KEEPS: (u32, u32) = (0b10, 0);

pub fn grad(saved: &Saved<ScatterAdd>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let (Some(grad), Some(ids)) = (&grads[0], &saved.inputs[1]) else { return Ok(vec![None; 2]) };
    Ok(vec![Some(gather(grad, ids)?), None])
}
