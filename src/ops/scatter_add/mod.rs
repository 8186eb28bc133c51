//! Adding up rows by the numbers of those that they go to: the transpose of a gather.

mod cases;
mod cpu;
mod cuda;
mod grad;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, Saved, first, run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `out[r, j] = Σ over i with ids[i] == r of x[i, j]`, in f32 and in the order of i. An id that is not below `count` is an
    /// error.
    ///
    /// Operands: x [n, width], ids [n]. Results: out [count, width] f32.
    pub struct ScatterAdd("scatter_add") {
        /// Of x: a float.
        dtype: DType = DType::F32,
        /// Of the ids: u32 or i32.
        ids: DType = DType::U32,
        /// Rows of the result.
        count: usize = 1,
        /// Values in a row.
        width: usize = 1,
        /// Rows of x.
        n: usize = 1,
    }
}

impl ScatterAdd {
    fn checked(self) -> Result<ScatterAdd> {
        let fail = |why: String| Err(Error::problem("scatter_add", why));
        if !self.dtype.is_float() {
            return fail(format!("adds floats, got {}", self.dtype));
        }
        if !matches!(self.ids, DType::U32 | DType::I32) {
            return fail(format!("ids are u32 or i32, got {}", self.ids));
        }
        if u32::try_from(self.n).is_err() {
            return fail(format!("adds fewer than 2^32 rows, got {}", self.n));
        }
        Shape::new(&[self.count, self.width])?;
        Shape::new(&[self.n, self.width])?;
        Ok(self)
    }
}

impl Op for ScatterAdd {
    const NAME: &'static str = "scatter_add";

    fn inputs(&self) -> Inputs {
        let limit = self.count.min(i32::MAX as usize) as u32;
        [
            Operand::new("x", self.dtype, &[self.n, self.width]),
            Operand::new("ids", self.ids, &[self.n]).fill(Fill::Below(limit)),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", DType::F32, &[self.count, self.width])].into()
    }
    /// One sum for each value.
    fn flops(&self) -> u64 {
        (self.n * self.width) as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::scatter_add(self, inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        grad::KEEPS
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        grad::grad(saved, grads)
    }
}

/// The sums [count, width], in f32, of the rows of `x` [..., width] that have the same id (u32 or i32, [...]); zeros where
/// there is none.
///
/// # Errors
/// An id is not below `count` ([`Error::Index`]), or shapes or dtypes do not fit.
pub fn scatter_add(x: &Tensor, ids: &Tensor, count: usize) -> Result<Tensor> {
    let (n, width) = x.layout().shape.rows();
    if x.shape().is_empty() || ids.shape() != &x.shape()[..x.shape().len() - 1] {
        return Err(Error::problem("scatter_add", format!("takes x [..., width] and ids [...], got {x} and {ids}")));
    }
    let op = ScatterAdd { dtype: x.dtype(), ids: ids.dtype(), count, width, n }.checked()?;
    let rows = x.reshape(&[n, width]).or_else(|_| x.contiguous()?.reshape(&[n, width]))?;
    let ids = ids.contiguous()?.reshape(&[n])?;
    Ok(first(run(&op, x.device(), &[Some(&rows), Some(&ids)])?))
}
