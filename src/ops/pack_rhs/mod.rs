//! Packing a weight into the panels that matrix kernels read, and unpacking it.

mod cases;
mod cpu;
mod reference;

use super::problem::problem;
use super::{
    Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, Tolerance, first, no_gpu_kernels, no_grad_of, run,
};
use crate::dtype::{DType, Format};
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `rhs` [n, k] in another [`Format`]: from plain to panels, or from panels to plain.
    pub struct PackRhs("pack_rhs") {
        /// Of operand and result.
        dtype: DType = DType::F32,
        /// Rows: outputs of the product (with gated panels, of both halves).
        n: usize = 1,
        /// Columns: what the product sums over.
        k: usize = 1,
        /// Of the operand.
        from: Format = Format::Plain,
        /// Of the result.
        format: Format = Format::Panels { nr: 16, kr: 1, gated: false },
    }
}

impl PackRhs {
    fn checked(self) -> Result<PackRhs> {
        let fail = |why: String| Err(Error::problem("pack_rhs", why));
        if !self.dtype.is_float() {
            return fail(format!("packs floats, got {}", self.dtype));
        }
        let (nr, kr, gated) = match (self.from, self.format) {
            (Format::Plain, Format::Panels { nr, kr, gated }) => (nr, kr, gated),
            (Format::Panels { nr, kr, gated }, Format::Plain) => (nr, kr, gated),
            (from, to) => return fail(format!("goes from plain to panels or back, not from {from} to {to}")),
        };
        if gated && !self.n.is_multiple_of(2) {
            return fail(format!("gated panels pair two halves; {} rows cannot be halved", self.n));
        }
        // The padded extents must fit as well as the plain ones.
        Shape::new(&[self.n, self.k])?;
        let grown = |x: usize, to: u16| x.checked_add(2 * to as usize);
        match (grown(self.n, nr), grown(self.k, kr)) {
            (Some(n), Some(k)) => Shape::new(&[n, k]).map(|_| self),
            _ => fail("too many elements".into()),
        }
    }
}

impl Op for PackRhs {
    const NAME: &'static str = "pack_rhs";

    fn inputs(&self) -> Inputs {
        [Operand::new("rhs", self.dtype, &[self.n, self.k]).format(self.from)].into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", self.dtype, &[self.n, self.k]).format(self.format)].into()
    }
    fn flops(&self) -> u64 {
        0
    }
    fn tolerance(&self) -> Tolerance {
        Tolerance::Exact
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::pack_rhs(self, inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        (0, 0)
    }
    fn grad(saved: &Saved<Self>, _: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        no_grad_of(&saved.op, "weights that are trained stay plain")
    }
}

no_gpu_kernels!(PackRhs);

/// A weight [n, k] (any strides) in another format.
///
/// # Errors
/// Not a matrix of floats, or memory is short.
pub fn pack(rhs: &Tensor, format: Format) -> Result<Tensor> {
    convert(rhs, format)
}

/// A weight in panels as the plain matrix [n, k] that it was made from.
///
/// # Errors
/// Not in panels, or memory is short.
pub fn unpack(packed: &Tensor) -> Result<Tensor> {
    convert(packed, Format::Plain)
}

fn convert(rhs: &Tensor, format: Format) -> Result<Tensor> {
    let [n, k] = *rhs.shape() else {
        return Err(Error::problem("pack_rhs", format!("packs a matrix [n, k], got {rhs}")));
    };
    let op = PackRhs { dtype: rhs.dtype(), n, k, from: rhs.format(), format }.checked()?;
    Ok(first(run(&op, rhs.device(), &[Some(rhs)])?))
}
