//! What cases of training objectives share: every parameter as a leaf, and gradients as outputs.

use super::{Case, Outputs};
use crate::autograd::backward;
use crate::checkpoint::Weights;
use crate::nn::{Scope, Trained};
use crate::ops::elementwise;
use crate::{DType, Device, Result, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A checkpoint's tensors of floats as leaves of the tape, f32.
pub(super) struct Leaves(BTreeMap<String, Tensor>);

impl Leaves {
    pub fn of(weights: &Weights, device: &Device) -> Result<Leaves> {
        let stored = weights.checkpoint().iter().filter(|t| t.dtype.device().is_some_and(DType::is_float));
        let leaf = |t: crate::checkpoint::Stored| {
            let tensor = t.tensor_as(device, DType::F32)?;
            Ok((t.name, tensor.with_grad()))
        };
        stored.map(leaf).collect::<Result<_>>().map(Leaves)
    }

    /// The scope with the leaves in the place of stored tensors.
    pub fn scope(&self, scope: Scope) -> Scope {
        scope.trained(Trained { leaves: self.0.clone(), lora: None, frozen: Arc::default() })
    }
}

/// Adds the loss, and the gradient of each parameter for which the case wants one.
pub(super) fn add_gradients(case: &Case, out: &mut Outputs, loss: &Tensor, leaves: &Leaves) -> Result<()> {
    out.add("loss", loss)?;
    let one = Tensor::from_slice(loss.device(), &[1f32], loss.shape())?;
    let gradients = backward(&[(loss.clone(), one)], elementwise::add)?;
    for (name, leaf) in &leaves.0 {
        let output = format!("grad.{name}");
        if !case.wants(&output) {
            continue;
        }
        match gradients.get(leaf) {
            Some(gradient) => out.add(output, gradient)?,
            None => out.add_values(output, vec![0.0; leaf.count()], leaf.shape()),
        }
    }
    Ok(())
}
