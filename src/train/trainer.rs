//! Parameters, and the step that changes them.

use super::data::Batch;
use super::lora::Lora;
use super::schedule::Schedule;
use crate::autograd::backward;
use crate::checkpoint::Weights;
use crate::nn::{Frozen, Precision, Scope, Trained};
use crate::ops::adamw::{self, adamw};
use crate::ops::{elementwise, reduce};
use crate::{DType, Device, Error, Result, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How to train.
#[derive(Clone, Debug)]
pub struct Settings {
    pub schedule: Schedule,
    /// Of the optimiser; vectors (norms, biases) are not decayed whatever it says.
    pub adamw: adamw::Options,
    /// The largest 2-norm of all gradients together; larger ones are scaled down to it.
    pub clip_norm: Option<f32>,
    /// Weights and inputs of products; the masters are f32 whatever it says.
    pub precision: Precision,
    /// Adapters instead of the checkpoint's own tensors.
    pub lora: Option<Lora>,
    /// Of first values of adapters.
    pub seed: u64,
}

/// A parameter and what AdamW remembers of it.
pub(super) struct Parameter {
    pub value: Tensor,
    pub exp_avg: Tensor,
    pub exp_avg_sq: Tensor,
}

/// The state of a training.
pub struct Trainer {
    pub(super) weights: Weights,
    pub(super) settings: Settings,
    pub(super) parameters: BTreeMap<String, Parameter>,
    pub(super) steps: usize,
    device: Device,
    frozen: Arc<Frozen>,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Steps done with this one.
    pub step: usize,
    /// The mean over all targets of the step's batches.
    pub loss: f64,
    /// The 2-norm of all gradients, before clipping.
    pub grad_norm: f64,
    pub learning_rate: f64,
    /// Targets.
    pub targets: usize,
}

impl Trainer {
    /// From a checkpoint: its tensors of floats are the parameters, or new adapters are.
    ///
    /// # Errors
    /// A setting is out of range, a target of an adapter does not exist, or memory is short.
    pub fn new(weights: Weights, device: &Device, settings: Settings) -> Result<Trainer> {
        let mut parameters = BTreeMap::new();
        let mut add = |name: String, value: Tensor| -> Result<()> {
            let zeros = || Tensor::zeros(device, DType::F32, value.shape());
            let parameter = Parameter { exp_avg: zeros()?, exp_avg_sq: zeros()?, value };
            parameters.insert(name, parameter);
            Ok(())
        };
        match &settings.lora {
            Some(lora) => {
                for first in lora.first(&weights, settings.seed)? {
                    add(first.name, Tensor::from_slice(device, &first.values, &first.shape)?)?;
                }
            }
            None => {
                for stored in weights.checkpoint().iter() {
                    if !stored.dtype.device().is_some_and(DType::is_float) {
                        continue;
                    }
                    // Copied: a mapped file cannot be written.
                    let value = Tensor::from_slice(device, &stored.to_vec::<f32>()?, &stored.shape)?;
                    add(stored.name, value)?;
                }
            }
        }
        if parameters.is_empty() {
            return Err(Error::Config("the checkpoint has no tensors of floats to train; use adapters".into()));
        }
        Ok(Trainer { weights, settings, parameters, steps: 0, device: device.clone(), frozen: Arc::default() })
    }

    /// Steps done.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Numbers that are trained.
    pub fn trained_values(&self) -> usize {
        self.parameters.values().map(|p| p.value.count()).sum()
    }

    /// A parameter's master, f32.
    pub fn parameter(&self, name: &str) -> Option<&Tensor> {
        self.parameters.get(name).map(|p| &p.value)
    }

    /// One step over some batches, whose gradients are added up. `loss` is given the leaves and a batch, and gives the mean
    /// over the batch's targets, one value.
    ///
    /// # Errors
    /// A loss or the gradients are not finite, or computing them fails: then no parameter has changed.
    pub fn step(&mut self, batches: &[Batch], loss: &dyn Fn(&Scope, &Batch) -> Result<Tensor>) -> Result<Report> {
        let targets: usize = batches.iter().map(|b| b.targets).sum();
        if targets == 0 {
            return Err(Error::Config("a step needs at least one target".into()));
        }
        let (value, gradients) = self.gradients(batches, loss, targets)?;
        let grad_norm = norm(gradients.values())?;
        if !grad_norm.is_finite() {
            return Err(self.broken("the gradients' norm", grad_norm));
        }
        let clip = self.settings.clip_norm.map_or(1.0, |max| f64::min(1.0, f64::from(max) / (grad_norm + 1e-6)));
        let learning_rate = self.settings.schedule.rate(self.steps);
        let options = self.settings.adamw;
        let step = options.step_params(&self.device, learning_rate as f32, self.steps as u64 + 1, clip as f32)?;
        for (name, gradient) in &gradients {
            let Some(p) = self.parameters.get_mut(name) else { continue };
            let weight_decay = if p.value.shape().len() > 1 { options.weight_decay } else { 0.0 };
            let state = adamw::State { param: &mut p.value, m: &mut p.exp_avg, v: &mut p.exp_avg_sq, weight: None };
            adamw(state, gradient, &step, &adamw::Options { weight_decay, ..options })?;
        }
        self.steps += 1;
        Ok(Report { step: self.steps, loss: value, grad_norm, learning_rate, targets })
    }

    /// The loss over all batches and its gradients by name.
    fn gradients(
        &self,
        batches: &[Batch],
        loss: &dyn Fn(&Scope, &Batch) -> Result<Tensor>,
        targets: usize,
    ) -> Result<(f64, BTreeMap<String, Tensor>)> {
        let leaves: BTreeMap<String, Tensor> =
            self.parameters.iter().map(|(name, p)| (name.clone(), p.value.with_grad())).collect();
        let lora = self.settings.lora.as_ref().map(|l| (l.rank, l.scale()));
        let trained = Trained { leaves: leaves.clone(), lora, frozen: self.frozen.clone() };
        let scope = Scope::new(self.weights.clone(), &self.device, self.settings.precision).trained(trained);
        let (mut sum, mut all) = (0.0, BTreeMap::<String, Tensor>::new());
        for batch in batches.iter().filter(|b| b.targets > 0) {
            // Every target counts the same, however they are spread over batches.
            let share = batch.targets as f64 / targets as f64;
            let mean = loss(&scope, batch)?;
            let value = f64::from(mean.detach().to_vec::<f32>()?.first().copied().unwrap_or(f32::NAN));
            if !value.is_finite() {
                return Err(self.broken("the loss", value));
            }
            sum += share * value;
            let root = Tensor::from_slice(&self.device, &[share as f32], mean.shape())?;
            let found = backward([(mean, root)], elementwise::add)?;
            for (name, leaf) in &leaves {
                let Some(new) = found.get(leaf) else { continue };
                let total = match all.remove(name) {
                    Some(old) => elementwise::add(&old, new)?,
                    None => new.contiguous()?,
                };
                all.insert(name.clone(), total);
            }
        }
        Ok((sum, all))
    }

    fn broken(&self, what: &str, value: f64) -> Error {
        let step = self.steps + 1;
        Error::Config(format!(
            "{what} of step {step} is {value}; nothing was changed, and what was saved is whole. A smaller learning rate, a \
             longer warm-up or f32 may help"
        ))
    }
}

/// The 2-norm of all values together; partial sums in f64.
fn norm<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Result<f64> {
    let mut sum = 0.0;
    for t in tensors {
        let flat = t.reshape(&[t.count()])?;
        let part = reduce::norm2(&flat, 0)?.to_vec::<f32>()?;
        sum += f64::from(part[0]).powi(2);
    }
    Ok(sum.sqrt())
}
