//! Group norm: the channels of a picture in groups.

mod cases;
mod cpu;
mod cuda;
mod grad;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, first, run};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `out = (x - mean) / √(variance + eps) · weight[c] + bias[c]`, mean and (biased) variance over the `channels / groups`
    /// channels of a group and all their `inner` places (Wu and He, 1803.08494); then `out · σ(out)` if asked.
    pub struct GroupNorm("group_norm") {
        /// Of `x`.
        dtype: DType = DType::F32,
        /// Of the result.
        out: DType = DType::F32,
        /// Samples.
        batch: usize = 1,
        /// Channels.
        channels: usize = 1,
        /// Places of a channel: height · width, with frames in front if statistics run over them too.
        inner: usize = 1,
        /// Divides `channels`.
        groups: usize = 1,
        /// Added to the variance.
        eps: Scalar = Scalar(1e-5),
        /// Whether there are a weight and a bias.
        affine: bool = false,
        /// Whether SiLU follows.
        silu: bool = false,
    }
}

impl GroupNorm {
    fn checked(self) -> Result<GroupNorm> {
        let fail = |why: String| Err(Error::problem("group_norm", why));
        if !self.dtype.is_float() || !self.out.is_float() {
            return fail(format!("takes and gives floats, got {} and {}", self.dtype, self.out));
        }
        if self.eps.0.is_nan() || self.eps.0 < 0.0 {
            return fail(format!("eps is at least 0, got {}", self.eps));
        }
        if self.groups == 0 || !self.channels.is_multiple_of(self.groups) {
            return fail(format!("{} channels in {} groups of equal size", self.channels, self.groups));
        }
        Shape::new(&[self.batch, self.channels, self.inner])?;
        Ok(self)
    }

    /// Elements over which statistics run.
    fn group_len(&self) -> usize {
        self.channels / self.groups * self.inner
    }
}

impl Op for GroupNorm {
    const NAME: &'static str = "group_norm";

    fn inputs(&self) -> Inputs {
        let x = Operand::new("x", self.dtype, &[self.batch, self.channels, self.inner]);
        [
            x.fill(Fill::Affine { scale: 1.0, offset: 0.5 }),
            Operand::new("weight", DType::F32, &[self.channels])
                .only_if(self.affine)
                .fill(Fill::Affine { scale: 0.2, offset: 1.0 }),
            Operand::new("bias", DType::F32, &[self.channels]).only_if(self.affine),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", self.out, &[self.batch, self.channels, self.inner])].into()
    }
    /// Per element: mean 1, variance 3, the affine map 2, SiLU 4.
    fn flops(&self) -> u64 {
        (6 + 4 * self.silu as u64) * (self.batch * self.channels * self.inner) as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::group_norm(self, inputs)
    }
    fn compose(&self, inputs: &[Option<Tensor>]) -> Option<Result<Vec<Tensor>>> {
        Some(grad::compose(self, inputs).map(|out| vec![out]))
    }
}

/// What else a group norm does; [`Default`]: an eps of 1e-5, no activation, the dtype of `x`.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Added to the variance.
    pub eps: f32,
    /// Whether SiLU follows.
    pub silu: bool,
    /// Of the result; that of `x` if `None`.
    pub dtype: Option<DType>,
}

impl Default for Options {
    fn default() -> Self {
        Options { eps: 1e-5, silu: false, dtype: None }
    }
}

/// Group norm of `x` `[batch, channels, …]`; `affine` is the weight and the bias, f32 `[channels]`.
///
/// # Errors
/// `x` is not of a float dtype or has less than two dimensions, `groups` does not divide its channels, or weight or
/// bias have another shape.
pub fn group_norm(x: &Tensor, groups: usize, affine: Option<(&Tensor, &Tensor)>, o: &Options) -> Result<Tensor> {
    let [batch, channels, ref places @ ..] = *x.shape() else {
        return Err(Error::problem("group_norm", format!("x is [batch, channels, …], got {x}")));
    };
    let op = GroupNorm {
        dtype: x.dtype(),
        out: o.dtype.unwrap_or(x.dtype()),
        batch,
        channels,
        inner: places.iter().product(),
        groups,
        eps: o.eps.into(),
        affine: affine.is_some(),
        silu: o.silu,
    }
    .checked()?;
    let flat = x.contiguous()?.reshape(&[batch, channels, op.inner])?;
    first(run(&op, x.device(), &[Some(&flat), affine.map(|a| a.0), affine.map(|a| a.1)])?).reshape(x.shape())
}
