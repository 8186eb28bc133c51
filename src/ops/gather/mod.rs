//! Rows of a table by their numbers: embeddings.

mod cases;
mod cpu;
mod cuda;
mod grad;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, Saved, Tolerance, first, run};
use crate::dtype::{DType, Format};
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `out[i, j] = table[ids[i], j]`. An id that is not below `count` is an error. Of a quantised table, the values of its
    /// blocks as [`quant`](super::quant) defines them.
    pub struct Gather("gather") {
        /// Of the table: a float, or u8 where it is quantised.
        dtype: DType = DType::F32,
        /// Of the table: plain, or quantised blocks.
        format: Format = Format::Plain,
        /// Of the result: the table's, or f32.
        out: DType = DType::F32,
        /// Of the ids: u32 or i32.
        ids: DType = DType::U32,
        /// Rows of the table.
        count: usize = 1,
        /// Values in a row.
        width: usize = 1,
        /// Ids.
        n: usize = 1,
    }
}

impl Gather {
    fn checked(self) -> Result<Gather> {
        match self.format {
            Format::Plain if self.dtype.is_float() && [self.dtype, DType::F32].contains(&self.out) => {}
            Format::Blocks(quant) if self.dtype == DType::U8 && self.out == DType::F32 => {
                let values = quant.block_values();
                if !self.width.is_multiple_of(values) {
                    let why = format!("rows of {} values are not of whole blocks of {values}", self.width);
                    return Err(Error::problem("gather", why));
                }
            }
            _ => {
                let (dtype, format, out) = (self.dtype, self.format, self.out);
                let why = "gives rows of floats as they are or in f32, and of quantised blocks (u8) in f32";
                return Err(Error::problem("gather", format!("{why}, got {dtype} {format} to {out}")));
            }
        }
        if !matches!(self.ids, DType::U32 | DType::I32) {
            return Err(Error::problem("gather", format!("ids are u32 or i32, got {}", self.ids)));
        }
        Shape::new(&[self.count, self.width])?;
        Shape::new(&[self.n, self.width])?;
        Ok(self)
    }
}

impl Op for Gather {
    const NAME: &'static str = "gather";

    fn inputs(&self) -> Inputs {
        let limit = self.count.min(i32::MAX as usize) as u32;
        [
            Operand::new("table", self.dtype, &[self.count, self.width]).format(self.format),
            Operand::new("ids", self.ids, &[self.n]).fill(Fill::Below(limit)),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", self.out, &[self.n, self.width])].into()
    }
    fn flops(&self) -> u64 {
        0
    }
    /// Only the rows that are wanted are read.
    fn cost(&self) -> crate::Cost {
        let (ids, out) = (self.n as u64 * self.ids.bytes() as u64, self.outputs().bytes());
        let rows = (self.format.elements(self.n, self.width) * self.dtype.bytes()) as u64;
        crate::Cost { flops: 0, bytes_read: ids + rows, bytes_written: out }
    }
    fn tolerance(&self) -> Tolerance {
        Tolerance::Exact
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::gather(self, inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        grad::KEEPS
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        grad::grad(saved, grads)
    }
}

/// Rows of `table` [count, width] by `ids` (u32 or i32, of any shape): [..., width], in the table's dtype, of a table of
/// quantised blocks in f32.
///
/// # Errors
/// An id is not below `count` ([`Error::Index`]), or the operands are not as described.
pub fn gather(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let out = if table.format().quant().is_some() { DType::F32 } else { table.dtype() };
    gather_as(table, ids, out)
}

/// As [`gather`], in f32 or the table's dtype.
///
/// # Errors
/// As [`gather`].
pub fn gather_as(table: &Tensor, ids: &Tensor, out: DType) -> Result<Tensor> {
    let &[count, width] = table.shape() else {
        return Err(Error::problem("gather", format!("the table must have two dimensions, is {table}")));
    };
    let n = ids.count();
    let (dtype, format) = (table.dtype(), table.format());
    let op = Gather { dtype, format, out, ids: ids.dtype(), count, width, n }.checked()?;
    let shape = Shape::new(&[ids.shape(), &[width]].concat())?;
    let flat = ids.contiguous()?.reshape(&[n])?;
    first(run(&op, table.device(), &[Some(table), Some(&flat)])?).reshape(&shape)
}
