//! The loss of a classifier: the negative logarithm of the probability that softmax gives to each row's label.

mod cases;
mod cpu;
mod cuda;
mod grad;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Results, Sample, Saved, first, run};
use super::{elementwise, labels, reduce};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;
use crate::with_elem;

problem! {
    /// `lse[i] = ln Σ_j e^logits[i, j]` and `loss[i] = weights[i] · (lse[i] - logits[i, labels[i]])`. A row whose label is
    /// negative or `ignore` does not count: it is not read, and both are 0. A label that is not below `classes` is an error.
    ///
    /// Operands: logits [rows, classes], labels [rows], weights [rows] f32. Results: loss [rows], lse [rows], both f32.
    pub struct CrossEntropy("cross_entropy") {
        /// Of the logits: a float.
        dtype: DType = DType::F32,
        /// Of the labels: u32 or i32.
        labels: DType = DType::I32,
        /// Rows.
        rows: usize = 1,
        /// Logits of a row.
        classes: usize = 1,
        /// Whether each row has a weight.
        weights: bool = false,
        /// The label of rows that do not count; negative ones never do.
        ignore: i64 = -100,
    }
}

impl CrossEntropy {
    fn checked(self) -> Result<CrossEntropy> {
        if !self.dtype.is_float() {
            return Err(Error::problem("cross_entropy", format!("takes logits of floats, got {}", self.dtype)));
        }
        labels::check_dtype("cross_entropy", self.labels)?;
        Shape::new(&[self.rows, self.classes])?;
        Ok(self)
    }
}

impl Op for CrossEntropy {
    const NAME: &'static str = "cross_entropy";

    fn inputs(&self) -> Inputs {
        let limit = self.classes.min(i32::MAX as usize) as u32;
        [
            Operand::new("logits", self.dtype, &[self.rows, self.classes]),
            Operand::new("labels", self.labels, &[self.rows]).fill(Fill::Below(limit)),
            Operand::new("weights", DType::F32, &[self.rows]).only_if(self.weights).constant(),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("loss", DType::F32, &[self.rows]), Operand::new("lse", DType::F32, &[self.rows])].into()
    }
    /// The maximum, a difference, an exponential and a sum for each logit.
    fn flops(&self) -> u64 {
        4 * (self.rows * self.classes) as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        reference::cross_entropy(self, inputs, rows)
    }
    fn keeps(&self) -> (u32, u32) {
        grad::KEEPS
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        grad::grad(saved, grads)
    }
}

/// What a loss may be told; by default all rows with a label that is not negative count alike.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// f32, one for each row.
    pub weights: Option<&'a Tensor>,
    /// The label of rows that do not count, besides the negative ones.
    pub ignore: i64,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { weights: None, ignore: -100 }
    }
}

/// The loss of each row of `logits` [..., classes] for its label (u32 or i32, [...]), in f32 and the labels' shape; 0 for
/// rows that do not count.
///
/// # Errors
/// A label is not below the number of classes ([`Error::Index`]), or shapes or dtypes do not fit.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, options: &Options<'_>) -> Result<Tensor> {
    first(launch(logits, labels, options)?).reshape(labels.shape())
}

/// As [`cross_entropy`], with the logarithm of the sum of the exponentials of each row's logits.
///
/// # Errors
/// As [`cross_entropy`].
pub fn cross_entropy_with_lse(logits: &Tensor, labels: &Tensor, options: &Options<'_>) -> Result<(Tensor, Tensor)> {
    let [loss, lse, ..] = launch(logits, labels, options)?;
    let shaped = |t: Option<Tensor>| first([t, None, None, None]).reshape(labels.shape());
    Ok((shaped(loss)?, shaped(lse)?))
}

/// The mean of the losses of the rows that count, weighted: `Σ weights · nll / Σ weights` as a tensor of one value. Labels
/// and weights are read on the host.
///
/// # Errors
/// As [`cross_entropy`]; or no row counts, or the weights of those that do add up to 0.
pub fn mean_loss(logits: &Tensor, labels: &Tensor, options: &Options<'_>) -> Result<Tensor> {
    let total = total_weight(labels, options)?;
    let losses = cross_entropy(logits, labels, options)?;
    let sum = reduce::sum(&losses.reshape(&[losses.count()])?, 0)?;
    elementwise::affine(&sum, (1.0 / total) as f32, 0.0)
}

/// The sum of the weights of the rows that count.
fn total_weight(labels: &Tensor, options: &Options<'_>) -> Result<f64> {
    let fail = |why: &str| Err(Error::problem("cross_entropy", why));
    self::labels::check_dtype("cross_entropy", labels.dtype())?;
    let numbers: Vec<i64> = with_elem!(labels.dtype(), T => {
        labels.detach().contiguous()?.to_vec::<T>()?.into_iter().map(|x| crate::Elem::to_f64(x) as i64).collect()
    });
    let weights = match options.weights {
        Some(weights) => weights.detach().contiguous()?.to_vec::<f32>()?,
        None => vec![1.0; numbers.len()],
    };
    let counts = |label: i64| self::labels::class(label, options.ignore).is_some();
    if !numbers.iter().any(|&label| counts(label)) {
        return fail("no row counts: every label is negative or to be ignored, so there is no mean");
    }
    let total = numbers.iter().zip(weights).filter(|&(&label, _)| counts(label)).map(|(_, w)| f64::from(w)).sum();
    if total == 0.0 { fail("the weights of the rows that count add up to 0, so there is no mean") } else { Ok(total) }
}

fn launch(logits: &Tensor, labels: &Tensor, options: &Options<'_>) -> Result<Results> {
    let (rows, classes) = logits.layout().shape.rows();
    let lead = logits.shape().len().saturating_sub(1);
    if logits.shape().is_empty() || labels.shape() != &logits.shape()[..lead] {
        let why = format!("logits are [..., classes] and labels [...], got {logits} and {labels}");
        return Err(Error::problem("cross_entropy", why));
    }
    let weights = options.weights.map(|w| w.contiguous()?.reshape(&[rows])).transpose()?;
    let op = CrossEntropy {
        dtype: logits.dtype(),
        labels: labels.dtype(),
        rows,
        classes,
        weights: weights.is_some(),
        ignore: options.ignore,
    }
    .checked()?;
    let flat = logits.reshape(&[rows, classes]).or_else(|_| logits.contiguous()?.reshape(&[rows, classes]))?;
    let labels = labels.contiguous()?.reshape(&[rows])?;
    run(&op, logits.device(), &[Some(&flat), Some(&labels), weights.as_ref()])
}
