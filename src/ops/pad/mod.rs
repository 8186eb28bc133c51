//! Points added around the last three dimensions, and the reverse: what was added summed into where it came from.

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::convolution::check_positive;
pub use super::convolution::{Axes, Padding};
use super::problem::problem;
use super::{Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, Tolerance, first, run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `out[o, i] = x[o, source(i - before)]` along depth, height and width, where the padding's rule says which point stands
    /// in the place of one beyond the ends; or with `fold`, its transpose: `out[o, source(i - before)] += x[o, i]`.
    ///
    /// Operands: x [outer, depth, height, width], with `fold` of the padded extents. Results: out [outer, …] of the padded
    /// extents, with `fold` of `size`.
    pub struct Pad("pad") {
        /// Of operand and result; with `fold` f32.
        dtype: DType = DType::F32,
        /// The product of the dimensions before.
        outer: usize = 1,
        /// Points along each axis without padding.
        size: Axes<1> = Axes::PLAIN,
        /// Points added before each axis.
        before: Axes<0> = Axes::PLAIN,
        /// Points added behind each axis.
        after: Axes<0> = Axes::PLAIN,
        /// What the added points are.
        padding: Padding = Padding::Zeros,
        /// Whether what was added is summed into where it came from.
        fold: bool = false,
    }
}

impl Pad {
    fn checked(self) -> Result<Pad> {
        let fail = |why: &str| Err(Error::problem("pad", why));
        if !self.dtype.is_float() || (self.fold && self.dtype != DType::F32) {
            return fail("takes floats, and to fold f32");
        }
        check_positive("pad", &[("size", *self.size)])?;
        self.padding.check("pad", &self.size, &self.before, &self.after)?;
        let ends = (0..3).all(|i| {
            let padded = self.size[i].checked_add(self.before[i]).and_then(|n| n.checked_add(self.after[i]));
            padded.is_some_and(|n| n <= isize::MAX as usize / 8)
        });
        if !ends {
            return fail("too many points");
        }
        let [d, h, w] = self.padded();
        Shape::new(&[self.outer, d, h, w])?;
        Ok(self)
    }

    /// Points along each axis with padding.
    fn padded(&self) -> [usize; 3] {
        std::array::from_fn(|i| self.size[i] + self.before[i] + self.after[i])
    }

    /// The point that stands at a padded place along an axis.
    fn source(&self, axis: usize, at: usize) -> Option<usize> {
        self.padding.source(at as isize - self.before[axis] as isize, self.size[axis])
    }

    fn shape(&self, padded: bool) -> [usize; 4] {
        let [d, h, w] = if padded { self.padded() } else { *self.size };
        [self.outer, d, h, w]
    }
}

impl Op for Pad {
    const NAME: &'static str = "pad";

    fn inputs(&self) -> Inputs {
        [Operand::new("x", self.dtype, &self.shape(self.fold))].into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", self.dtype, &self.shape(!self.fold))].into()
    }
    /// To fold, an addition for each place.
    fn flops(&self) -> u64 {
        self.fold as u64 * self.shape(true).iter().product::<usize>() as u64
    }
    fn tolerance(&self) -> Tolerance {
        if self.fold { Tolerance::Plain(3.0) } else { Tolerance::Exact }
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::pad(self, inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        (0, 0)
    }
    /// Each is the other's transpose.
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(grad) = &grads[0] else { return Ok(vec![None]) };
        let op = Pad { dtype: DType::F32, fold: !saved.op.fold, ..saved.op };
        Ok(vec![Some(first(run(&op, grad.device(), &[Some(grad)])?))])
    }
}

/// `x` [..., d, h, w] with points added before and behind its last dimensions, of which it may have fewer than three: numbers
/// are for depth, height and width, and those of dimensions that `x` lacks are not looked at.
///
/// # Errors
/// `x` is not of floats, or the padding is wider than its rule allows.
pub fn pad(x: &Tensor, before: [usize; 3], after: [usize; 3], padding: Padding) -> Result<Tensor> {
    let rank = x.shape().len().min(3);
    let (lead, axes) = x.shape().split_at(x.shape().len() - rank);
    let (before, after) = (Axes::innermost(before, rank), Axes::innermost(after, rank));
    let size = Axes::of(axes);
    let op = Pad { dtype: x.dtype(), outer: lead.iter().product(), size, before, after, padding, fold: false };
    apply(op.checked()?, x, lead, rank)
}

/// The transpose of [`pad`]: `x`, f32, of padded extents, to those without padding, each added point summed into the one that
/// it came from (zeros are dropped).
///
/// # Errors
/// Another dtype, or the padding is wider than its rule allows.
pub fn fold(x: &Tensor, before: [usize; 3], after: [usize; 3], padding: Padding) -> Result<Tensor> {
    let rank = x.shape().len().min(3);
    let (lead, axes) = x.shape().split_at(x.shape().len() - rank);
    let (before, after) = (Axes::innermost(before, rank), Axes::innermost(after, rank));
    let mut size: Axes<1> = Axes::of(axes);
    for i in 0..3 {
        let added = before[i].checked_add(after[i]);
        let left = added.and_then(|added| size.0[i].checked_sub(added));
        size.0[i] = left.ok_or_else(|| Error::problem("pad", format!("{x} is smaller than its padding")))?;
    }
    let op = Pad { dtype: x.dtype(), outer: lead.iter().product(), size, before, after, padding, fold: true };
    apply(op.checked()?, x, lead, rank)
}

fn apply(op: Pad, x: &Tensor, lead: &[usize], rank: usize) -> Result<Tensor> {
    let dims = op.shape(op.fold);
    let whole = x.reshape(&dims).or_else(|_| x.contiguous()?.reshape(&dims))?;
    let out = first(run(&op, x.device(), &[Some(&whole)])?);
    out.reshape(&[lead, &op.shape(!op.fold)[4 - rank..]].concat())
}
