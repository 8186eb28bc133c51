//! A step of the AdamW optimiser (Loshchilov and Hutter, arXiv 1711.05101), in PyTorch's arithmetic, in place.

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, run_into};
use crate::device::Device;
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// With `step_params = [lr, correction1, correction2, grad_scale]` and `g = grad_scale · grad[i]`:
    ///
    /// - `param[i] *= 1 - lr · weight_decay`,
    /// - `m[i] += (1 - beta1) · (g - m[i])`, `v[i] = beta2 · v[i] + (1 - beta2) · g²`,
    /// - `param[i] -= lr / correction1 · m[i] / (√v[i] / √correction2 + eps)`,
    /// - `weight[i] = param[i]` rounded to bf16.
    ///
    /// Operands: grad [n], step_params \[4\], both f32. Results: param, m, v [n] f32, in place; weight [n] bf16.
    pub struct AdamW("adamw") {
        /// Parameters.
        n: usize = 1,
        /// How much of the mean of the gradients stays.
        beta1: Scalar = Scalar(0.9),
        /// How much of the mean of their squares stays.
        beta2: Scalar = Scalar(0.999),
        /// Added to the divisor.
        eps: Scalar = Scalar(1e-8),
        /// By how much a parameter shrinks, times the learning rate.
        weight_decay: Scalar = Scalar(0.01),
        /// Whether there is a copy in bf16.
        weight: bool = false,
    }
}

impl AdamW {
    fn checked(self) -> Result<AdamW> {
        let fail = |why: String| Err(Error::problem("adamw", why));
        if let Some(beta) = [self.beta1, self.beta2].iter().find(|b| !(0.0..1.0).contains(&b.0)) {
            return fail(format!("betas are at least 0 and below 1, got {beta}"));
        }
        if let Some(x) = [self.eps, self.weight_decay].iter().find(|x| !x.0.is_finite() || x.0 < 0.0) {
            return fail(format!("eps and weight_decay are at least 0, got {x}"));
        }
        Shape::new(&[self.n])?;
        Ok(self)
    }
}

/// 1 - beta of the decimal number that was meant: the f32 nearest to 0.999 is off by so much that the difference, a
/// thousandth, would err by 1e-5.
fn complement(beta: Scalar) -> f64 {
    1.0 - beta.to_string().parse().unwrap_or(f64::from(beta.0))
}

impl Op for AdamW {
    const NAME: &'static str = "adamw";

    fn inputs(&self) -> Inputs {
        let positive = Fill::Affine { scale: 0.03, offset: 0.5 };
        [Operand::new("grad", DType::F32, &[self.n]), Operand::new("step_params", DType::F32, &[4]).fill(positive)]
            .into()
    }
    fn outputs(&self) -> Outputs {
        let positive = Fill::Affine { scale: 0.1, offset: 1.0 };
        [
            Operand::new("param", DType::F32, &[self.n]).in_place(),
            Operand::new("m", DType::F32, &[self.n]).in_place(),
            Operand::new("v", DType::F32, &[self.n]).in_place().fill(positive),
            Operand::new("weight", DType::BF16, &[self.n]).only_if(self.weight),
        ]
        .into()
    }
    /// As the formulas have them.
    fn flops(&self) -> u64 {
        15 * self.n as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::adamw(self, inputs)
    }
}

/// What does not change from step to step; the default is PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// How much of the mean of the gradients stays.
    pub beta1: f32,
    /// How much of the mean of their squares stays.
    pub beta2: f32,
    /// Added to the divisor.
    pub eps: f32,
    /// By how much a parameter shrinks, times the learning rate.
    pub weight_decay: f32,
}

impl Default for Options {
    fn default() -> Self {
        Options { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

impl Options {
    /// What all parameters share in step number `step` (from 1 on): the learning rate, the corrections `1 - beta^step` for
    /// means that began at zero, and what gradients are multiplied by (clipping, accumulation).
    ///
    /// # Errors
    /// Memory is short.
    pub fn step_params(&self, device: &Device, lr: f32, step: u64, grad_scale: f32) -> Result<Tensor> {
        let correction = |beta: f32| (1.0 - (1.0 - complement(Scalar(beta))).powf(step as f64)) as f32;
        let params = [lr, correction(self.beta1), correction(self.beta2), grad_scale];
        Tensor::from_slice(device, &params, &[4])
    }
}

/// What a step updates; all of one shape.
pub struct State<'a> {
    /// f32: the parameter itself.
    pub param: &'a mut Tensor,
    /// f32: the mean of the gradients.
    pub m: &'a mut Tensor,
    /// f32: the mean of their squares.
    pub v: &'a mut Tensor,
    /// bf16: becomes the rounded parameter.
    pub weight: Option<&'a mut Tensor>,
}

/// Updates a parameter by its gradient (f32, of its shape). `step_params` are those of
/// [`Options::step_params`].
///
/// # Errors
/// Shapes or dtypes do not fit, a number of `options` is out of range, or somebody else holds the memory of what is updated
/// ([`Error::Aliased`]).
pub fn adamw(state: State<'_>, grad: &Tensor, step_params: &Tensor, options: &Options) -> Result<()> {
    let n = grad.count();
    let op = AdamW {
        n,
        beta1: Scalar(options.beta1),
        beta2: Scalar(options.beta2),
        eps: Scalar(options.eps),
        weight_decay: Scalar(options.weight_decay),
        weight: state.weight.is_some(),
    }
    .checked()?;
    let updated = [Some(state.param), Some(state.m), Some(state.v), state.weight];
    let mut whole = Vec::with_capacity(updated.len());
    for tensor in updated.into_iter().flatten() {
        if tensor.shape() != grad.shape() {
            return Err(Error::problem("adamw", format!("{tensor} is not of the shape of the gradient {grad}")));
        }
        whole.push(tensor.as_mut()?);
    }
    let mut outs = whole.iter_mut().map(|t| t.reshape(&[n])).collect::<Result<Vec<_>>>()?;
    let flat = grad.contiguous()?.reshape(&[n])?;
    run_into(&op, grad.device(), &[Some(&flat), Some(step_params)], &mut outs)
}
