//! The gradient of `layer_norm` and `rms_norm`.

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, Saved, no_grad_of, run};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// The gradient of a row normalisation `out = x̂ · gain + …`, where `x̂ = (x - mean)/√(variance + eps)` (not centred:
    /// `x/√(mean square + eps)`) and `gain[c] = weight[c] · (1 + scale[g, c])`, each factor where it is there, with
    /// `g = r / (rows / groups)`. With `h = dout · gain`, and means over the row:
    ///
    /// `dx = (h - mean(h) - x̂ · mean(h · x̂)) / √(variance + eps) + dsum` (not centred: without mean(h)).
    ///
    /// For the gradients of weight, bias, scale and shift: `products[g] = Σ dout · x̂` and `sums[g] = Σ dout` over the
    /// rows of group g.
    ///
    /// Operands: x [rows, cols], dout [rows, cols] f32, weight [cols] f32, scale [groups, cols] f32, dsum [rows, cols] f32.
    /// Results: dx [rows, cols], products and sums [groups, cols], all f32.
    pub struct NormBwd("norm_bwd") {
        /// Of `x`.
        dtype: DType = DType::F32,
        /// Rows.
        rows: usize = 1,
        /// Values in a row.
        cols: usize = 1,
        /// Added to the variance (not centred: to the mean square).
        eps: Scalar = Scalar(1e-5),
        /// Whether the mean was subtracted: layer norm.
        centred: bool = false,
        /// Whether there is a weight.
        weight: bool = false,
        /// Whether there is a scale.
        modulated: bool = false,
        /// Rows of scale, products and sums.
        groups: usize = 1,
        /// Whether a gradient is added to that of `x`.
        dsum: bool = false,
        /// Whether products are wanted.
        products: bool = false,
        /// Whether sums are wanted.
        sums: bool = false,
    }
}

impl NormBwd {
    fn checked(self) -> Result<NormBwd> {
        let fail = |why: String| Err(Error::problem("norm_bwd", why));
        if !self.dtype.is_float() {
            return fail(format!("takes floats, got {}", self.dtype));
        }
        if self.eps.0.is_nan() || self.eps.0 < 0.0 {
            return fail(format!("eps is at least 0, got {}", self.eps));
        }
        if self.groups == 0 || !self.rows.is_multiple_of(self.groups) {
            return fail(format!("{} rows in {} groups of equal size", self.rows, self.groups));
        }
        Shape::new(&[self.rows, self.cols])?;
        Shape::new(&[self.groups, self.cols])?;
        Ok(self)
    }
}

/// Places of the operands.
pub(super) const X: usize = 0;
pub(super) const DOUT: usize = 1;
pub(super) const WEIGHT: usize = 2;
pub(super) const SCALE: usize = 3;
pub(super) const DSUM: usize = 4;

impl Op for NormBwd {
    const NAME: &'static str = "norm_bwd";

    fn inputs(&self) -> Inputs {
        let gain = Fill::Affine { scale: 0.2, offset: 1.0 };
        [
            Operand::new("x", self.dtype, &[self.rows, self.cols]).fill(Fill::Affine { scale: 1.0, offset: 0.5 }),
            Operand::new("dout", DType::F32, &[self.rows, self.cols]),
            Operand::new("weight", DType::F32, &[self.cols]).only_if(self.weight).fill(gain),
            Operand::new("scale", DType::F32, &[self.groups, self.cols]).only_if(self.modulated),
            Operand::new("dsum", DType::F32, &[self.rows, self.cols]).only_if(self.dsum),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [
            Operand::new("dx", DType::F32, &[self.rows, self.cols]),
            Operand::new("products", DType::F32, &[self.groups, self.cols]).only_if(self.products),
            Operand::new("sums", DType::F32, &[self.groups, self.cols]).only_if(self.sums),
        ]
        .into()
    }
    /// Per element: the statistics (centred: 3, else 2), the two means 4, dx 5, and each operand's and result's share.
    fn flops(&self) -> u64 {
        let shares = [self.weight, self.modulated, self.dsum, self.sums].iter().filter(|&&b| b).count();
        let each = 11 + self.centred as usize + shares + 2 * self.products as usize;
        (each * self.rows * self.cols) as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::norm_bwd(self, inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        (0, 0)
    }
    fn grad(saved: &Saved<Self>, _: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        no_grad_of(&saved.op, "second derivatives are not taken")
    }
}

/// Which sums over rows are computed.
pub(super) struct Wanted {
    pub products: bool,
    pub sums: bool,
}

/// The gradient of x [rows, cols], products and sums.
#[allow(clippy::too_many_arguments)]
pub(super) fn norm_bwd(
    x: &Tensor,
    dout: &Tensor,
    weight: Option<&Tensor>,
    scale: Option<&Tensor>,
    dsum: Option<&Tensor>,
    eps: f32,
    centred: bool,
    wanted: Wanted,
) -> Result<(Tensor, Option<Tensor>, Option<Tensor>)> {
    let (rows, cols) = x.layout().shape.rows();
    let op = NormBwd {
        dtype: x.dtype(),
        rows,
        cols,
        eps: eps.into(),
        centred,
        weight: weight.is_some(),
        modulated: scale.is_some(),
        groups: scale.map_or(1, |scale| scale.shape()[0]),
        dsum: dsum.is_some(),
        products: wanted.products,
        sums: wanted.sums,
    }
    .checked()?;
    let [dx, products, sums, ..] = run(&op, x.device(), &[Some(x), Some(dout), weight, scale, dsum])?;
    Ok((dx.expect("every result that the problem has"), products, sums))
}
