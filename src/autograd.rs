//! The walk backwards over the tape, and the switch that stops recording.

use crate::error::{Error, Result};
use crate::tensor::{Node, Tensor};
use std::cell::Cell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

thread_local! {
    static PAUSED: Cell<u32> = const { Cell::new(0) };
}

/// Nothing is recorded on this thread until the guard is dropped.
#[must_use]
pub fn no_grad() -> NoGrad {
    PAUSED.set(PAUSED.get() + 1);
    NoGrad(PhantomData)
}

/// See [`no_grad`]. Belongs to its thread.
pub struct NoGrad(PhantomData<*const ()>);

impl Drop for NoGrad {
    fn drop(&mut self) {
        PAUSED.set(PAUSED.get() - 1);
    }
}

/// Runs `f` with recording switched on, also inside [`no_grad`].
pub(crate) fn enabled<R>(f: impl FnOnce() -> R) -> R {
    let paused = PAUSED.replace(0);
    let out = f();
    PAUSED.set(paused);
    out
}

/// Whether this thread records.
pub(crate) fn recording() -> bool {
    PAUSED.get() == 0
}

/// Gradients of the leaves, by leaf.
#[derive(Default)]
pub struct Gradients(HashMap<*const Node, Tensor>);

impl Gradients {
    /// The gradient of a tensor made by [`Tensor::with_grad`]; `None` if the roots do not depend on it.
    pub fn get(&self, leaf: &Tensor) -> Option<&Tensor> {
        self.0.get(&Arc::as_ptr(&leaf.node()?.0))
    }
}

/// The gradients of `Σ roots[i].0 · roots[i].1` with respect to every leaf, where `roots[i].1` is the gradient that
/// arrives at `roots[i].0`. `sum` adds two gradients.
///
/// # Errors
/// A root is not on the tape, its gradient has another shape, or a step has no gradient.
pub fn backward(roots: &[(Tensor, Tensor)], sum: fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Gradients> {
    let _pause = no_grad();
    let mut pending: HashMap<*const Node, Vec<Option<Tensor>>> = HashMap::new();
    let mut order = Vec::new();
    let add = |slot: &mut Option<Tensor>, grad: Tensor| -> Result<()> {
        *slot = Some(match slot.take() {
            Some(have) => sum(&have, &grad)?,
            None => grad,
        });
        Ok(())
    };
    for (root, grad) in roots {
        let (node, output) = root.node().ok_or_else(|| Error::View {
            view: "backward",
            shape: root.to_string(),
            why: "the tensor is not on the tape; no operand was made by with_grad()".into(),
        })?;
        if root.shape() != grad.shape() {
            let why = format!("its gradient has another shape: {grad}");
            return Err(Error::View { view: "backward", shape: root.to_string(), why });
        }
        sort(node, &mut pending, &mut order);
        let slots = pending.entry(Arc::as_ptr(node)).or_default();
        add(&mut slots[*output as usize], grad.detach())?;
    }
    let mut leaves = Gradients::default();
    // Children were finished before their parents were entered, so the reverse order sees every use of a node first.
    for node in order.into_iter().rev() {
        let grads = pending.remove(&Arc::as_ptr(&node)).unwrap_or_default();
        if grads.iter().all(Option::is_none) {
            continue;
        }
        let Some(step) = &node.backward else {
            leaves.0.extend(grads.into_iter().flatten().map(|g| (Arc::as_ptr(&node), g)));
            continue;
        };
        for (parent, grad) in node.parents.iter().zip(step.backward(&grads)?) {
            if let (Some((parent, output)), Some(grad)) = (parent, grad)
                && let Some(slots) = pending.get_mut(&Arc::as_ptr(parent))
            {
                add(&mut slots[*output as usize], grad)?;
            }
        }
    }
    Ok(leaves)
}

/// Appends the nodes below `root` that are not yet listed, parents before children, and gives each its slots.
fn sort(root: &Arc<Node>, pending: &mut HashMap<*const Node, Vec<Option<Tensor>>>, order: &mut Vec<Arc<Node>>) {
    let mut stack = vec![(root.clone(), false)];
    while let Some((node, parents_done)) = stack.pop() {
        if parents_done {
            order.push(node);
            continue;
        }
        let key = Arc::as_ptr(&node);
        if pending.contains_key(&key) {
            continue;
        }
        pending.insert(key, vec![None; node.outputs as usize]);
        let parents: Vec<_> = node.parents.iter().flatten().map(|(p, _)| (p.clone(), false)).collect();
        stack.push((node, true));
        stack.extend(parents);
    }
}
