//! Views: the same memory under another layout. On the tape they are steps of their own, whose gradients are views too
//! (or, where elements repeat or are left out, a sum or a zero-filled copy).

use crate::autograd;
use crate::error::{Error, Result};
use crate::layout::{Layout, Shape};
use crate::tensor::{Backward, Node, Tensor};
use std::ops::Range;
use std::sync::Arc;

impl Tensor {
    /// The same elements under other extents.
    ///
    /// # Errors
    /// The number of elements differs, or a strided view does not allow it (make it contiguous first).
    pub fn reshape(&self, dims: &[usize]) -> Result<Tensor> {
        view(self, self.layout().reshape(dims)?, Way::Reshape)
    }

    /// Dimensions in another order: `permute(&[1, 0])` transposes a matrix.
    ///
    /// # Errors
    /// `order` is not a permutation of the dimensions.
    pub fn permute(&self, order: &[usize]) -> Result<Tensor> {
        view(self, self.layout().permute(order)?, Way::Permute(order.to_vec()))
    }

    /// Two dimensions exchanged.
    ///
    /// # Errors
    /// No such dimension.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Tensor> {
        let mut order: Vec<usize> = (0..self.shape().len()).collect();
        if a.max(b) >= order.len() {
            let why = format!("no dimensions {a} and {b}");
            return Err(Error::View { view: "transpose", shape: self.to_string(), why });
        }
        order.swap(a, b);
        self.permute(&order)
    }

    /// A range of one dimension.
    ///
    /// # Errors
    /// The range does not lie inside.
    pub fn slice(&self, dim: usize, range: Range<usize>) -> Result<Tensor> {
        let start = range.start;
        view(self, self.layout().slice(dim, range)?, Way::Slice { dim, start })
    }

    /// Repeats extents of 1, and adds dimensions in front, without copying.
    ///
    /// # Errors
    /// An extent is neither 1 nor the wanted one.
    pub fn broadcast(&self, dims: &[usize]) -> Result<Tensor> {
        view(self, self.layout().broadcast(dims)?, Way::Broadcast)
    }
}

enum Way {
    Reshape,
    Permute(Vec<usize>),
    Slice { dim: usize, start: usize },
    Broadcast,
}

fn view(tensor: &Tensor, layout: Layout, way: Way) -> Result<Tensor> {
    if tensor.format() != crate::Format::Plain {
        let why = "only plain tensors have views".to_string();
        return Err(Error::View { view: "a view", shape: tensor.to_string(), why });
    }
    let out = tensor.with_layout(layout);
    match tensor.node() {
        Some(parent) if autograd::recording() => {
            let backward = Viewed { way, from: tensor.layout().shape };
            let node = Node { parents: vec![Some(parent.clone())], outputs: 1, backward: Some(Box::new(backward)) };
            Ok(out.with_node(Arc::new(node), 0))
        }
        _ => Ok(out),
    }
}

struct Viewed {
    way: Way,
    from: Shape,
}

impl Backward for Viewed {
    fn backward(&self, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(Some(grad)) = grads.first() else { return Ok(vec![None]) };
        let back = match &self.way {
            Way::Reshape => grad.contiguous()?.reshape(&self.from)?,
            Way::Permute(order) => {
                let mut inverse = vec![0; order.len()];
                for (i, &d) in order.iter().enumerate() {
                    inverse[d] = i;
                }
                grad.permute(&inverse)?
            }
            Way::Slice { dim, start } => {
                let (dim, start) = (*dim, *start);
                let zeros = |n: usize| {
                    let mut dims = self.from.to_vec();
                    dims[dim] = n;
                    Tensor::zeros(grad.device(), grad.dtype(), &dims)
                };
                let end = start + grad.shape()[dim];
                super::concat::concat(&[&zeros(start)?, grad, &zeros(self.from[dim] - end)?], dim)?
            }
            Way::Broadcast => {
                // Sum over the dimensions that were added or repeated.
                let lead = grad.shape().len() - self.from.len();
                let mut sum = grad.contiguous()?;
                for dim in 0..grad.shape().len() {
                    if dim < lead || self.from[dim - lead] != grad.shape()[dim] {
                        sum = super::reduce::sum(&sum, dim)?;
                    }
                }
                sum.reshape(&self.from)?
            }
        };
        Ok(vec![Some(back)])
    }
}
