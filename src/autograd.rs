//! The walk backwards over the tape, and the switch that stops recording.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{Node, Place, Tensor};
use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::sync::Arc;

thread_local! {
    static PAUSED: Cell<u32> = const { Cell::new(0) };
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// What a block that is not recorded uses of the tape.
struct Watch {
    /// The depth of pauses at which it runs: a deeper one is its own business.
    paused: u32,
    met: Vec<Place>,
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

/// Whether a step with these operands is recorded. If it is part of a block that is [`watched`], the operands are noted.
pub(crate) fn records<'a>(mut operands: impl Iterator<Item = &'a Tensor>) -> bool {
    if recording() {
        return operands.any(Tensor::has_node);
    }
    WATCH.with_borrow_mut(|watch| {
        if let Some(watch) = watch.as_mut().filter(|w| w.paused == PAUSED.get()) {
            for (node, output) in operands.filter_map(Tensor::node) {
                if !watch.met.iter().any(|(n, o)| Arc::ptr_eq(n, node) && o == output) {
                    watch.met.push((node.clone(), *output));
                }
            }
        }
    });
    false
}

/// Runs `f` without recording, and tells which places of the tape its steps used.
pub(crate) fn watched<R>(f: impl FnOnce() -> R) -> (R, Vec<Place>) {
    let _pause = no_grad();
    let outer = WATCH.replace(Some(Watch { paused: PAUSED.get(), met: Vec::new() }));
    let out = f();
    let met = WATCH.replace(outer).map_or_else(Vec::new, |watch| watch.met);
    (out, met)
}

/// Gradients of the leaves, by leaf. Their order is that in which the walk found them: the same for the same tape.
#[derive(Default)]
pub struct Gradients {
    /// With its node, so that no other can take the address by which it is found. `None` where it was removed.
    found: Vec<Option<(Arc<Node>, Tensor)>>,
    places: HashMap<usize, usize>,
}

fn address(node: &Arc<Node>) -> usize {
    Arc::as_ptr(node).addr()
}

impl Gradients {
    fn place(&self, leaf: &Tensor) -> Option<usize> {
        self.places.get(&address(&leaf.node()?.0)).copied()
    }

    /// The gradient of a tensor made by [`Tensor::with_grad`]; `None` if the roots do not depend on it.
    pub fn get(&self, leaf: &Tensor) -> Option<&Tensor> {
        self.found[self.place(leaf)?].as_ref().map(|(_, grad)| grad)
    }

    /// As [`get`](Gradients::get); what is taken out takes no memory here any more.
    pub fn remove(&mut self, leaf: &Tensor) -> Option<Tensor> {
        let place = self.place(leaf)?;
        self.found[place].take().map(|(_, grad)| grad)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.found.iter().flatten().map(|(_, grad)| grad)
    }

    /// Each one replaced by `f` of it: scaled, clipped, summed over machines.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn map(mut self, mut f: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Gradients> {
        for (_, grad) in self.found.iter_mut().flatten() {
            *grad = f(grad)?;
        }
        Ok(self)
    }

    /// Adds the gradients of another walk, leaf by leaf.
    pub(crate) fn merge(&mut self, other: Gradients, sum: Sum) -> Result<()> {
        other.found.into_iter().flatten().try_for_each(|(leaf, grad)| self.insert(leaf, grad, sum))
    }

    fn insert(&mut self, leaf: Arc<Node>, grad: Tensor, sum: Sum) -> Result<()> {
        let place = *self.places.entry(address(&leaf)).or_insert(self.found.len());
        if place == self.found.len() {
            self.found.push(None);
        }
        let slot = &mut self.found[place];
        let grad = match slot.take() {
            Some((_, have)) => sum(&have, &grad)?,
            None => grad,
        };
        *slot = Some((leaf, grad));
        Ok(())
    }
}

/// Adds two gradients.
pub(crate) type Sum = fn(&Tensor, &Tensor) -> Result<Tensor>;

/// The gradients of `Σ roots[i].0 · roots[i].1` with respect to every leaf, where `roots[i].1` is the gradient (f32) that
/// arrives at `roots[i].0`. `sum` adds two gradients.
///
/// What a step has kept is freed once the walk has passed it, unless somebody still holds a tensor that comes after it. So
/// a training loop gives the roots away, and keeps none of what it computed but the loss's [detached](Tensor::detach)
/// value.
///
/// # Errors
/// A root is not on the tape, its gradient has another shape or dtype, or a step has no gradient.
pub fn backward(roots: impl IntoIterator<Item = impl Borrow<(Tensor, Tensor)>>, sum: Sum) -> Result<Gradients> {
    Ok(backward_to(roots, &[], sum)?.0)
}

/// As [`backward`], but no farther than to the steps of `ends`: the gradients that arrive there come second.
pub(crate) fn backward_to(
    roots: impl IntoIterator<Item = impl Borrow<(Tensor, Tensor)>>,
    ends: &[Place],
    sum: Sum,
) -> Result<(Gradients, Vec<Option<Tensor>>)> {
    let _pause = no_grad();
    let ends_at: HashSet<usize> = ends.iter().map(|(node, _)| address(node)).collect();
    let mut walk = Walk { pending: HashMap::new(), order: Vec::new(), sum };
    for root in roots {
        let (root, grad) = root.borrow();
        let fail = |why: String| Err(Error::View { view: "backward", shape: root.to_string(), why });
        let Some((node, output)) = root.node() else {
            return fail("the tensor is not on the tape; no operand was made by with_grad()".into());
        };
        if root.shape() != grad.shape() || grad.dtype() != DType::F32 {
            return fail(format!("its gradient must be f32 of the same shape, is {grad}"));
        }
        walk.sort(node, &ends_at);
        walk.arrive(node, *output, grad.detach())?;
    }
    let mut leaves = Gradients::default();
    // Parents were entered before their children, so this sees every use of a node before the node.
    while let Some(node) = walk.order.pop() {
        if ends_at.contains(&address(&node)) {
            continue;
        }
        let grads = walk.pending.remove(&address(&node)).unwrap_or_default();
        if grads.iter().all(Option::is_none) {
            continue;
        }
        let Some(step) = &node.backward else {
            grads.into_iter().flatten().try_for_each(|grad| leaves.insert(node.clone(), grad, sum))?;
            continue;
        };
        for (parent, grad) in node.parents.iter().zip(step.backward(&grads)?) {
            if let (Some((parent, output)), Some(grad)) = (parent, grad) {
                walk.arrive(parent, *output, grad)?;
            }
        }
    }
    let mut arrived = |(node, output): &Place| walk.pending.get_mut(&address(node))?.get_mut(*output as usize)?.take();
    Ok((leaves, ends.iter().map(&mut arrived).collect()))
}

struct Walk {
    /// For each step that is not passed, the gradients of its results so far.
    pending: HashMap<usize, Vec<Option<Tensor>>>,
    /// Steps not passed, parents before their children.
    order: Vec<Arc<Node>>,
    sum: Sum,
}

impl Walk {
    /// A gradient arrives at a result of a step.
    fn arrive(&mut self, node: &Arc<Node>, output: u8, grad: Tensor) -> Result<()> {
        let slot = self.pending.get_mut(&address(node)).and_then(|slots| slots.get_mut(output as usize));
        let slot = slot.expect("sort() has listed all that lies below a root");
        *slot = Some(match slot.take() {
            Some(have) => (self.sum)(&have, &grad)?,
            None => grad,
        });
        Ok(())
    }

    /// Lists the steps from `root` down that are not yet listed, and gives each its slots.
    fn sort(&mut self, root: &Arc<Node>, ends: &HashSet<usize>) {
        let mut stack = vec![(root.clone(), false)];
        while let Some((node, parents_done)) = stack.pop() {
            let key = address(&node);
            if parents_done {
                self.order.push(node);
            } else if let Entry::Vacant(slots) = self.pending.entry(key) {
                slots.insert(vec![None; node.outputs as usize]);
                let below = if ends.contains(&key) { &[][..] } else { &node.parents[..] };
                let parents: Vec<_> = below.iter().flatten().map(|(p, _)| (p.clone(), false)).collect();
                stack.push((node, true));
                stack.extend(parents);
            }
        }
    }
}
