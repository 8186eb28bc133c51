//! Conveniences of the tape that need arithmetic: losses, sums of gradients, blocks that are computed twice.

use super::elementwise;
use crate::autograd::{self, Gradients};
use crate::error::{Error, Result};
use crate::tensor::{Backward, Node, Place, Tensor};
use std::sync::{Arc, Weak};

impl Tensor {
    /// The gradients of a loss, a tensor of one element, with respect to every leaf that it depends on.
    ///
    /// The loss is given away so that the walk can free each step behind it; for its value keep a
    /// [detached](Tensor::detach) copy.
    ///
    /// # Errors
    /// More than one element or none, not on the tape, or a step has no gradient.
    pub fn backward(self) -> Result<Gradients> {
        if self.count() != 1 {
            let why = "a loss has one element; sum it up, or give its gradient to lapidary::backward()".into();
            return Err(Error::View { view: "backward", shape: self.to_string(), why });
        }
        let one = Tensor::from_slice(self.device(), &[1f32], self.shape())?;
        autograd::backward([(self, one)], elementwise::add)
    }
}

impl Gradients {
    /// Adds the gradients of another walk, leaf by leaf: of the next part of a batch.
    ///
    /// # Errors
    /// Memory is short.
    pub fn accumulate(&mut self, other: Gradients) -> Result<()> {
        self.merge(other, elementwise::add)
    }
}

/// `f(inputs)`, of which the tape keeps the inputs only: the walk backwards runs `f` again (on the tape, which holds that
/// one block then) for the gradients (Chen et al., 1604.06174).
///
/// Whatever else of the tape `f` uses (weights of layers that it captures, or tensors computed before) counts as an
/// input and gets its gradient like them. `f` must compute the same each time; what it draws at random must follow from
/// its inputs. Where nothing is recorded this is `f(inputs)`.
///
/// # Errors
/// Those of `f`; or it has more than 255 results.
pub fn recomputed<F>(inputs: &[&Tensor], f: F) -> Result<Vec<Tensor>>
where
    F: Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static,
{
    let given: Vec<Tensor> = inputs.iter().map(|&t| t.clone()).collect();
    if !autograd::recording() {
        return f(&given);
    }
    let detached: Vec<Tensor> = given.iter().map(Tensor::detach).collect();
    let (results, mut used) = autograd::watched(|| f(&detached));
    let results = results?;
    let Ok(outputs) = u8::try_from(results.len()) else {
        return Err(Error::NotSupported(format!("a recomputed block of {} results (at most 255)", results.len())));
    };
    used.extend(results.iter().filter_map(|t| t.node().cloned()));
    let mut parents: Vec<Option<Place>> = given.iter().map(|t| t.node().cloned()).collect();
    if used.is_empty() && parents.iter().all(Option::is_none) {
        return Ok(results);
    }
    let block = Recomputed {
        f: Box::new(f),
        inputs: detached,
        needs: parents.iter().map(Option::is_some).collect(),
        used: used.iter().map(|(node, output)| (Arc::downgrade(node), *output)).collect(),
    };
    parents.extend(used.into_iter().map(Some));
    let node = Node::step(parents, outputs, block);
    Ok((0..outputs).zip(results).map(|(i, t)| t.detach().with_node(node.clone(), i)).collect())
}

type Block = dyn Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync;

struct Recomputed {
    f: Box<Block>,
    inputs: Vec<Tensor>,
    needs: Vec<bool>,
    /// What else of the tape the block uses. The step's parents keep it alive.
    used: Vec<(Weak<Node>, u8)>,
}

impl Backward for Recomputed {
    fn backward(&self, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let leaf = |(t, &needed): (&Tensor, &bool)| if needed { t.with_grad() } else { t.clone() };
        let leaves: Vec<Tensor> = self.inputs.iter().zip(&self.needs).map(leaf).collect();
        let results = autograd::enabled(|| (self.f)(&leaves))?;
        if results.len() != grads.len() {
            let why = format!("a recomputed block gave {} results, and then {}", grads.len(), results.len());
            return Err(Error::NotSupported(why));
        }
        let own: Vec<Option<Place>> = leaves.iter().map(|t| t.node().cloned()).collect();
        let used = self.used.iter().map(|(node, output)| Some((node.upgrade()?, *output)));
        let ends: Vec<Option<Place>> = own.into_iter().chain(used).collect();
        let places: Vec<Place> = ends.iter().flatten().cloned().collect();
        let roots = results.into_iter().zip(grads).filter_map(|(t, g)| Some((t, g.clone()?)));
        let roots = roots.filter(|(t, _)| t.has_node());
        let mut arrived = autograd::backward_to(roots, &places, elementwise::add)?.1.into_iter();
        Ok(ends.into_iter().map(|end| end.and_then(|_| arrived.next().flatten())).collect())
    }
}
