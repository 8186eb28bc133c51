//! Packing a weight, of floats or of quantised blocks, into the panels that matrix kernels read, and unpacking floats.

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, Saved, Tolerance, first, no_grad_of, run};
use crate::dtype::{DType, Format, PANEL_ROWS};
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `rhs` [n, k] in another [`Format`]: floats from plain to `Panels` or back, quantised blocks (u8) to `BlockPanels`.
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
        let (nr, kr, gated) = match (self.from, self.format) {
            (Format::Plain, Format::Panels { nr, kr, gated }) | (Format::Panels { nr, kr, gated }, Format::Plain)
                if self.dtype.is_float() =>
            {
                (nr, kr, gated)
            }
            (Format::Blocks(from), Format::BlockPanels { quant, gated })
                if self.dtype == DType::U8 && from == quant =>
            {
                let values = quant.block_values();
                if !self.k.is_multiple_of(values) {
                    return fail(format!("k = {} is not of whole blocks of {values}", self.k));
                }
                (PANEL_ROWS as u16, 1, gated)
            }
            (from, to) => {
                let why =
                    "packs plain floats into panels or back, and quantised blocks (u8) into block panels of their kind";
                return fail(format!("{why}, got {} from {from} to {to}", self.dtype));
            }
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
        let rhs = Operand::new("rhs", self.dtype, &[self.n, self.k]).format(self.from);
        [if self.from.quant().is_some() { rhs.fill(Fill::Bytes) } else { rhs }].into()
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

/// A weight [n, k] (floats with any strides, or quantised blocks) in another format.
///
/// # Errors
/// Not such a matrix, a format that it cannot be packed into, or memory is short.
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
