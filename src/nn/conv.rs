//! Convolutions with their bias, and their weights as checkpoints have them.

use super::Scope;
use crate::ops::conv::{self, conv};
use crate::ops::conv_transpose::{self, conv_transpose};
use crate::{DType, Error, Result, Tensor};

/// `y = x ∗ W + b`.
pub struct Conv {
    weight: Tensor,
    bias: Option<Tensor>,
    compute: DType,
    /// How it convolves, as a rule.
    pub options: conv::Options,
}

impl Conv {
    /// `weight` [channels_out, channels_in / groups, kernel…], which may be [normalised](weight), and, if asked for, `bias`
    /// [channels_out].
    ///
    /// # Errors
    /// A tensor is missing or has another shape, or memory is short.
    pub fn load(scope: &Scope, shape: &[usize], bias: bool, options: conv::Options) -> Result<Conv> {
        let weight = weight(scope, shape)?;
        let rows = weight.shape().first().copied().unwrap_or(0);
        let bias = if bias { Some(scope.vector("bias", &[rows])?) } else { None };
        Ok(Conv { weight, bias, compute: scope.precision().compute, options })
    }

    /// `x` [batch, channels_in, …] to [batch, channels_out, …].
    ///
    /// # Errors
    /// The shape does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, &self.options)
    }

    /// As [`forward`](Conv::forward), convolved in another way: where padding depends on the length of `x`, or the first
    /// part of a stream has another padding than the next ones.
    ///
    /// # Errors
    /// The shape does not fit.
    pub fn forward_with(&self, x: &Tensor, options: &conv::Options) -> Result<Tensor> {
        conv(&x.to_dtype(self.compute)?, &self.weight, self.bias.as_ref(), options)
    }
}

/// The transpose of a convolution, plus a bias.
pub struct ConvTranspose {
    weight: Tensor,
    bias: Option<Tensor>,
    compute: DType,
    options: conv_transpose::Options,
}

impl ConvTranspose {
    /// `weight` [channels_in, channels_out / groups, kernel…], which may be [normalised](weight), and, if asked for, `bias`
    /// [channels_out].
    ///
    /// # Errors
    /// A tensor is missing or has another shape, or memory is short.
    pub fn load(scope: &Scope, shape: &[usize], bias: bool, options: conv_transpose::Options) -> Result<ConvTranspose> {
        let weight = weight(scope, shape)?;
        let rows = weight.shape().get(1).map_or(0, |rows| rows * options.groups);
        let bias = if bias { Some(scope.vector("bias", &[rows])?) } else { None };
        Ok(ConvTranspose { weight, bias, compute: scope.precision().compute, options })
    }

    /// `x` [batch, channels_in, …] to [batch, channels_out, …].
    ///
    /// # Errors
    /// The shape does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        conv_transpose(&x.to_dtype(self.compute)?, &self.weight, self.bias.as_ref(), &self.options)
    }
}

/// The weight of a convolution of this shape: `weight`; or, as weight normalisation stores it (Salimans and Kingma 2016, eq. 2),
/// a direction and the length of each of its rows, `weight_v` and `weight_g` or `parametrizations.weight.original1` and
/// `original0`, multiplied here in f64 and stored in the dtype for weights.
///
/// # Errors
/// A tensor is missing or has another shape, or memory is short.
pub fn weight(scope: &Scope, shape: &[usize]) -> Result<Tensor> {
    let [length, direction] = match () {
        () if scope.contains("weight_v") => ["weight_g", "weight_v"],
        () if scope.contains("parametrizations.weight.original1") => {
            ["parametrizations.weight.original0", "parametrizations.weight.original1"]
        }
        () => return scope.matrix("weight", shape),
    };
    let Some(&rows) = shape.first() else { return Err(Error::Config("a weight of a convolution has rows".into())) };
    let mut lengths = vec![1; shape.len()];
    lengths[0] = rows;
    let lengths = scope.vector(length, &lengths)?.to_vec::<f32>()?;
    let mut values = scope.vector(direction, shape)?.to_vec::<f32>()?;
    let row_len = values.len() / rows.max(1);
    for (row, length) in values.chunks_exact_mut(row_len.max(1)).zip(lengths) {
        let norm = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        let factor = f64::from(length) / norm;
        row.iter_mut().for_each(|v| *v = (f64::from(*v) * factor) as f32);
    }
    let weight = Tensor::from_slice(scope.device(), &values, shape)?;
    weight.to_dtype(scope.precision().weights.unwrap_or(DType::F32))
}
