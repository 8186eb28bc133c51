//! Views: the same memory under another layout. On the tape they are steps of their own, whose gradients are views too
//! (or, where elements repeat or are left out, a sum or a zero-filled copy).

use crate::autograd;
use crate::error::{Error, Result};
use crate::layout::{Layout, Shape};
use crate::tensor::{Backward, Node, Tensor};
use std::iter::once;
use std::ops::Range;

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

    /// Consecutive parts of one dimension, of these sizes: on the tape one step, whose gradient is put together by a single
    /// copy (that of a [`slice`](Tensor::slice) is filled up with zeros).
    ///
    /// # Errors
    /// No such dimension, the sizes do not add up to its extent, or there are more than 255.
    pub fn split(&self, dim: usize, sizes: &[usize]) -> Result<Vec<Tensor>> {
        let fail = |why: String| Err(Error::View { view: "split", shape: self.to_string(), why });
        let Ok(outputs) = u8::try_from(sizes.len()) else { return fail("more than 255 parts".into()) };
        if self.shape().get(dim).copied() != sizes.iter().try_fold(0usize, |n, &size| n.checked_add(size)) {
            return fail(format!("dimension {dim} does not consist of {sizes:?}"));
        }
        let mut start = 0;
        let mut parts = Vec::with_capacity(sizes.len());
        for size in sizes {
            parts.push(self.detach().slice(dim, start..start + size)?);
            start += size;
        }
        if !autograd::records(once(self)) {
            return Ok(parts);
        }
        let shapes = parts.iter().map(|t| t.layout().shape).collect();
        let node = Node::step(vec![self.node().cloned()], outputs, Parts { dim, shapes });
        Ok((0..outputs).zip(parts).map(|(i, part)| part.with_node(node.clone(), i)).collect())
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
    if !autograd::records(once(tensor)) {
        return Ok(out);
    }
    let node = Node::step(vec![tensor.node().cloned()], 1, Viewed { way, from: tensor.layout().shape });
    Ok(out.with_node(node, 0))
}

struct Viewed {
    way: Way,
    from: Shape,
}

impl Backward for Viewed {
    fn backward(&self, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(Some(grad)) = grads.first() else { return Ok(vec![None]) };
        let back = match &self.way {
            Way::Reshape => grad.reshape(&self.from).or_else(|_| grad.contiguous()?.reshape(&self.from))?,
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
            Way::Broadcast => unrepeat(grad, &self.from)?,
        };
        Ok(vec![Some(back)])
    }
}

/// The sum over the dimensions that were added in front or repeated; neighbours are summed as one.
fn unrepeat(grad: &Tensor, from: &Shape) -> Result<Tensor> {
    let lead = grad.shape().len() - from.len();
    let repeated = |dim: usize| dim < lead || from[dim - lead] != grad.shape()[dim];
    // Runs of dimensions that are all summed or all kept, as one extent each.
    let mut runs: Vec<(bool, usize)> = Vec::new();
    for (dim, &n) in grad.shape().iter().enumerate() {
        match runs.last_mut() {
            Some((summed, extent)) if *summed == repeated(dim) => *extent *= n,
            _ => runs.push((repeated(dim), n)),
        }
    }
    let extents: Vec<usize> = runs.iter().map(|run| run.1).collect();
    let mut sum = grad.contiguous()?.reshape(&extents)?;
    for (i, _) in runs.iter().enumerate().filter(|(_, run)| run.0) {
        sum = super::reduce::sum(&sum, i)?;
    }
    sum.reshape(from)
}

struct Parts {
    dim: usize,
    shapes: Vec<Shape>,
}

impl Backward for Parts {
    fn backward(&self, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(any) = grads.iter().flatten().next() else { return Ok(vec![None]) };
        let absent = |shape: &Shape| Tensor::zeros(any.device(), any.dtype(), shape);
        let parts = self.shapes.iter().zip(grads).map(|(shape, grad)| grad.clone().map_or_else(|| absent(shape), Ok));
        let parts: Vec<Tensor> = parts.collect::<Result<_>>()?;
        Ok(vec![Some(super::concat::concat(&parts.iter().collect::<Vec<_>>(), self.dim)?)])
    }
}
