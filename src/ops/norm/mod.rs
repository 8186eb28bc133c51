//! What `layer_norm` and `rms_norm` share: one description of a row normalisation, its operands, oracle and CPU kernel.
//! They stay two ops of the catalog; this is no op.

pub(super) mod cpu;
pub(super) mod cuda;
mod grad;
mod reference;
pub(super) mod wgpu;

pub(super) use grad::grad;
pub(super) use reference::reference;

use super::{Inputs, Op, Operand, Outputs, Results, run};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::ops::Fill;
use crate::tensor::Tensor;

/// A normalisation of rows, whichever op asks for it.
#[derive(Clone, Copy)]
pub(super) struct Norm {
    pub dtype: DType,
    pub out: DType,
    pub rows: usize,
    pub cols: usize,
    pub eps: Scalar,
    /// Subtract the mean (layer norm) or not (rms norm).
    pub centred: bool,
    pub weight: bool,
    pub bias: bool,
    pub residual: bool,
    pub modulated: bool,
    pub groups: usize,
}

/// Places of the operands.
pub(super) const X: usize = 0;
pub(super) const WEIGHT: usize = 1;
pub(super) const BIAS: usize = 2;
pub(super) const RESIDUAL: usize = 3;
pub(super) const SCALE: usize = 4;
pub(super) const SHIFT: usize = 5;
/// Places of the results.
pub(super) const OUT: usize = 0;
pub(super) const SUM: usize = 1;

impl Norm {
    pub fn check(&self, op: &'static str) -> Result<()> {
        if !self.dtype.is_float() || !self.out.is_float() {
            return Err(Error::problem(op, format!("takes and gives floats, got {} and {}", self.dtype, self.out)));
        }
        if self.eps.0.is_nan() || self.eps.0 < 0.0 {
            return Err(Error::problem(op, format!("eps is at least 0, got {}", self.eps)));
        }
        if self.groups == 0 || !self.rows.is_multiple_of(self.groups) {
            return Err(Error::problem(op, format!("{} rows in {} groups of equal size", self.rows, self.groups)));
        }
        if !self.modulated && self.groups != 1 {
            return Err(Error::problem(op, "groups belong to a modulated norm"));
        }
        Shape::new(&[self.rows, self.cols])?;
        Shape::new(&[self.groups, self.cols]).map(drop)
    }

    pub fn inputs(&self) -> Inputs {
        let gain = Fill::Affine { scale: 0.2, offset: 1.0 };
        [
            // A mean that is not zero: it is what a variance in one pass would lose digits by.
            Operand::new("x", self.dtype, &[self.rows, self.cols]).fill(Fill::Affine { scale: 1.0, offset: 0.5 }),
            Operand::new("weight", DType::F32, &[self.cols]).only_if(self.weight).fill(gain),
            Operand::new("bias", DType::F32, &[self.cols]).only_if(self.bias),
            Operand::new("residual", DType::F32, &[self.rows, self.cols]).only_if(self.residual),
            Operand::new("scale", DType::F32, &[self.groups, self.cols]).only_if(self.modulated),
            Operand::new("shift", DType::F32, &[self.groups, self.cols]).only_if(self.modulated),
        ]
        .into()
    }

    /// With a residual, the sum stands for x.
    pub fn keeps(&self, needs: u32) -> (u32, u32) {
        // The bias is a part of what the scale multiplies.
        let bias = needs >> SCALE & 1;
        let operands = (!self.residual as u32) << X | 1 << WEIGHT | bias << BIAS | 1 << SCALE;
        (operands, (self.residual as u32) << SUM)
    }

    pub fn outputs(&self) -> Outputs {
        [
            Operand::new("out", self.out, &[self.rows, self.cols]),
            Operand::new("sum", DType::F32, &[self.rows, self.cols]).only_if(self.residual),
        ]
        .into()
    }

    /// Per element: sum (layer norm: two more for the mean), square, scale; then each operand's share.
    pub fn flops(&self) -> u64 {
        let per = 3 + 3 * self.centred as u64 + self.weight as u64 + self.bias as u64 + self.residual as u64;
        (per + 2 * self.modulated as u64) * (self.rows * self.cols) as u64
    }
}

/// What a row normalisation may do besides; [`Default`] does nothing besides, with an eps of 1e-5.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// f32 `[cols]`: a factor.
    pub weight: Option<&'a Tensor>,
    /// f32 `[cols]`: an offset (layer norm only).
    pub bias: Option<&'a Tensor>,
    /// f32, the shape of `x`: added to it first; the sum is a second result.
    pub residual: Option<&'a Tensor>,
    /// Scale and shift, f32 `[groups, cols]`: row r of `x` (all dimensions but the last, flattened) becomes
    /// `norm · (1 + scale[g]) + shift[g]` with `g = r / (rows / groups)`.
    pub modulation: Option<(&'a Tensor, &'a Tensor)>,
    /// Added to the variance (rms norm: to the mean square).
    pub eps: f32,
    /// Of the result; that of `x` if `None`.
    pub dtype: Option<DType>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { weight: None, bias: None, residual: None, modulation: None, eps: 1e-5, dtype: None }
    }
}

/// The results of a normalisation.
#[derive(Clone, Debug)]
pub struct Normed {
    /// The normalised rows, in the shape of `x`.
    pub out: Tensor,
    /// `x + residual` in f32, if there is a residual.
    pub sum: Option<Tensor>,
}

/// The description that operands and options make.
pub(super) fn describe(x: &Tensor, o: &Options<'_>, centred: bool) -> Norm {
    let (rows, cols) = x.layout().shape.rows();
    Norm {
        dtype: x.dtype(),
        out: o.dtype.unwrap_or(x.dtype()),
        rows,
        cols,
        eps: o.eps.into(),
        centred,
        weight: o.weight.is_some(),
        bias: o.bias.is_some(),
        residual: o.residual.is_some(),
        modulated: o.modulation.is_some(),
        groups: o.modulation.map_or(1, |(scale, _)| scale.layout().shape.rows().0),
    }
}

/// Runs an op made from [`describe`].
pub(super) fn normed<O: Op>(op: &O, x: &Tensor, o: &Options<'_>) -> Result<Normed> {
    let rows = |t: &Tensor| {
        let (rows, cols) = t.layout().shape.rows();
        t.reshape(&[rows, cols]).or_else(|_| t.contiguous()?.reshape(&[rows, cols]))
    };
    let (flat, residual) = (rows(x)?, o.residual.map(rows).transpose()?);
    let (scale, shift) = (o.modulation.map(|m| rows(m.0)).transpose()?, o.modulation.map(|m| rows(m.1)).transpose()?);
    let operands = [Some(&flat), o.weight, o.bias, residual.as_ref(), scale.as_ref(), shift.as_ref()];
    let [out, sum, ..]: Results = run(op, x.device(), &operands)?;
    let back = |t: Tensor| t.reshape(x.shape());
    let out = out.ok_or_else(|| Error::problem(O::NAME, "gave no result"))?;
    Ok(Normed { out: back(out)?, sum: sum.map(back).transpose()? })
}
