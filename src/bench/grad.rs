//! Holding gradients against finite differences of the oracle.

use super::operands::{Arrangement, Operands};
use crate::autograd::backward;
use crate::device::Device;
use crate::dtype::{DType, Format};
use crate::error::{Error, Result};
use crate::ops::elementwise;
use crate::ops::{AnyOp, Operand, Sample};
use crate::random::Random;
use crate::tensor::Tensor;

/// What a check of one operand's gradient found.
#[derive(Clone, Debug)]
pub struct GradVerdict {
    /// The operand.
    pub operand: &'static str,
    /// Its relative error in the 2-norm over the places and directions that were tried.
    pub error: f64,
    /// What was allowed.
    pub allowed: f64,
}

impl GradVerdict {
    /// Whether the error is within its limit.
    pub fn passed(&self) -> bool {
        self.error <= self.allowed
    }
}

/// Places of each operand that are moved by themselves.
const PLACES: usize = 12;
/// Random directions in which all of an operand is moved.
const DIRECTIONS: u64 = 2;
/// The step of a central difference in f64: small enough for functions that are steep near 0, where operands come as
/// close as 1e-4, and so large that what rounding adds (about 1e-15 of the sum over the step) is far below what is allowed.
const STEP: f64 = 1e-7;
/// What a gradient may err by where everything is f32: sums of some hundred terms in f32 err by about 1e-6, a wrong
/// formula by all of the value.
const ALLOWED: f64 = 1e-4;

/// Runs a problem on the tape, sends a random gradient back, and compares what arrives at every operand of floats with
/// central differences of the f64 reference. No verdict where no operand or no result is of floats.
///
/// # Errors
/// [`Error::NotSupported`] where the op has no gradient; or what running it may fail with.
pub fn check_grads(problem: &dyn AnyOp, device: &Device) -> Result<Vec<GradVerdict>> {
    if problem.outputs().iter().any(|(_, o)| o.in_place) {
        return Err(Error::NotSupported(format!("the gradient of {}, which works in place", problem.text())));
    }
    let operands = Operands::random(problem, device, 11, &Arrangement::Contiguous)?;
    let moves = |o: &Operand| o.present && !o.constant && o.dtype.is_float() && o.format == Format::Plain;
    let inputs = problem.inputs();
    let leaves: Vec<Option<Tensor>> = inputs
        .iter()
        .map(|(i, o)| operands.tensors[i].as_ref().map(|t| if moves(o) { t.with_grad() } else { t.clone() }))
        .collect();
    let refs: Vec<Option<&Tensor>> = leaves.iter().map(Option::as_ref).collect();
    let results = problem.run(device, None, &refs)?;
    let outputs = problem.outputs();
    let base = problem.reference(&operands.values, Sample::ALL);
    // Σ weights · results is the function whose gradient is looked at; a result that is not finite does not count.
    let mut random = Random::new(97);
    let (mut weights, mut roots, mut all_finite) = (Vec::new(), Vec::new(), true);
    for (i, o) in outputs.iter() {
        let counts = o.present && o.dtype.is_float() && o.format == Format::Plain;
        let weight = |x: &f64| if x.is_finite() { f64::from(random.normal() as f32) } else { 0.0 };
        let w: Vec<f64> = if counts { base[i].iter().map(weight).collect() } else { Vec::new() };
        if let (true, Some(result)) = (counts, &results[i]) {
            let narrow: Vec<f32> = w.iter().map(|&x| x as f32).collect();
            roots.push((result.clone(), Tensor::from_slice(device, &narrow, result.shape())?));
            all_finite &= base[i].iter().all(|x| x.is_finite());
        }
        weights.push(w);
    }
    drop(results);
    if roots.is_empty() || !leaves.iter().flatten().any(Tensor::has_node) {
        return Ok(Vec::new());
    }
    let gradients = backward(roots, elementwise::add)?;
    let floats = inputs.iter().chain(outputs.iter()).filter(|(_, o)| o.present && o.dtype.is_float());
    let coarsest = floats.map(|(_, o)| o.dtype.epsilon()).fold(0.0, f64::max);
    let allowed = if coarsest > DType::F32.epsilon() { 4.0 * coarsest } else { ALLOWED };
    let mut values = operands.values.clone();
    let mut verdicts = Vec::new();
    for (i, o) in inputs.iter().filter(|(_, o)| moves(o)) {
        let count = o.shape.count();
        let grad = match leaves[i].as_ref().and_then(|leaf| gradients.get(leaf)) {
            Some(grad) if grad.dtype() != DType::F32 || *grad.shape() != *o.shape => {
                return Err(Error::Wrong {
                    problem: problem.text(),
                    kernel: "grad".into(),
                    why: format!("the gradient of `{}` must be f32 {}, is {grad}", o.name, o.shape),
                });
            }
            Some(grad) => grad.contiguous()?.to_vec::<f32>()?,
            None => vec![0.0; count],
        };
        // Where a result is not finite, nor is the gradient of what it came from: such places are left out.
        let counts = |j: usize| all_finite || grad[j].is_finite();
        let grad_at = |j: usize| if counts(j) { f64::from(grad[j]) } else { 0.0 };
        let mut slope = |direction: &dyn Fn(usize) -> f64, step: f64| {
            let original = values[i].clone();
            let mut at = |sign: f64| {
                for (j, x) in values[i].iter_mut().flatten().enumerate() {
                    *x += sign * step * direction(j);
                }
                let results = problem.reference(&values, Sample::ALL);
                values[i] = original.clone();
                let pairs = results.iter().zip(&weights).flat_map(|(r, w)| r.iter().zip(w));
                pairs.filter(|(_, w)| **w != 0.0).map(|(r, w)| r * w).sum::<f64>()
            };
            (at(1.0) - at(-1.0)) / (2.0 * step)
        };
        let (mut error, mut norm) = (0.0, 0.0);
        let mut tried = |want: f64, got: f64, share: f64| {
            error += share * (got - want).powi(2);
            norm += share * want * want;
        };
        for _ in 0..PLACES.min(count) {
            let place = random.below(count as u32) as usize;
            tried(slope(&|j| f64::from(j == place && counts(j)), STEP), grad_at(place), 1.0);
        }
        for seed in 0..DIRECTIONS.min(count as u64) {
            let mut random = Random::new(1000 + seed);
            let direction: Vec<f64> = (0..count).map(|j| if counts(j) { random.normal() } else { 0.0 }).collect();
            let got = direction.iter().enumerate().map(|(j, d)| d * grad_at(j)).sum();
            // A direction sums up `count` places.
            tried(slope(&|j| direction[j], STEP), got, 1.0 / count as f64);
        }
        // Where the tried places have no slope, that of the others is the measure.
        let mean = (0..count).map(|j| grad_at(j).powi(2)).sum::<f64>() / count.max(1) as f64;
        let scale = f64::max(norm, mean * PLACES.min(count) as f64).sqrt();
        verdicts.push(GradVerdict {
            operand: o.name,
            error: if scale > 0.0 { error.sqrt() / scale } else { error.sqrt() },
            allowed,
        });
    }
    Ok(verdicts)
}
