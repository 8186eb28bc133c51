//! Reductions over one dimension.

// The getter `len` is that of a reduced extent, not of a container.
#![allow(clippy::len_without_is_empty)]

mod cases;
mod cpu;
mod cuda;
mod grad;
mod reference;
mod wgpu;

use super::problem::{choice, problem};
use super::{Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, first, run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

choice! {
    /// What becomes of the values.
    pub enum Kind {
        /// Their sum.
        Sum = "sum",
        /// Their sum over their number.
        Mean = "mean",
        /// The largest; NaN if there is one.
        Max = "max",
        /// The smallest; NaN if there is one.
        Min = "min",
        /// The root of the sum of their squares.
        Norm2 = "norm2",
    }
}

problem! {
    /// `out[o, i] = kind over j of x[o, j, i]`, in f32.
    pub struct Reduce("reduce") {
        /// What becomes of the values.
        kind: Kind = Kind::Sum,
        /// Of the operand.
        dtype: DType = DType::F32,
        /// The product of the dimensions before the reduced one.
        outer: usize = 1,
        /// The reduced extent.
        len: usize = 1,
        /// The product of the dimensions behind the reduced one.
        inner: usize = 1,
    }
}

impl Reduce {
    fn checked(self) -> Result<Reduce> {
        if !self.dtype.is_float() {
            return Err(Error::problem("reduce", format!("takes floats, got {}; cast first", self.dtype)));
        }
        if self.len == 0 && !matches!(self.kind, Kind::Sum | Kind::Norm2) {
            return Err(Error::problem("reduce", format!("the {} of no values does not exist", self.kind)));
        }
        Shape::new(&[self.outer, self.len, self.inner])?;
        Ok(self)
    }
}

impl Op for Reduce {
    const NAME: &'static str = "reduce";

    fn inputs(&self) -> Inputs {
        [Operand::new("x", self.dtype, &[self.outer, self.len, self.inner])].into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", DType::F32, &[self.outer, self.inner])].into()
    }
    /// One per value, two for the norm.
    fn flops(&self) -> u64 {
        let each = if self.kind == Kind::Norm2 { 2 } else { 1 };
        each * (self.outer * self.len * self.inner) as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::reduce(self, inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        match self.kind {
            Kind::Sum | Kind::Mean => (0, 0),
            Kind::Max | Kind::Min | Kind::Norm2 => (1, 1),
        }
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![grads[0].as_ref().map(|out| grad::grad(saved, out)).transpose()?])
    }
}

/// `kind` over dimension `dim`, which stays with extent 1. The result is f32 whatever the dtype of `x`.
///
/// # Errors
/// No such dimension, `x` is not of a float dtype, or there are no values of which to take a mean or an extreme.
pub fn reduce(kind: Kind, x: &Tensor, dim: usize) -> Result<Tensor> {
    let shape = x.shape();
    let Some(&len) = shape.get(dim) else {
        return Err(Error::problem("reduce", format!("{x} has no dimension {dim}")));
    };
    let (outer, inner) = (shape[..dim].iter().product(), shape[dim + 1..].iter().product());
    let op = Reduce { kind, dtype: x.dtype(), outer, len, inner }.checked()?;
    let mut kept = x.layout().shape.to_vec();
    kept[dim] = 1;
    first(run(&op, x.device(), &[Some(&x.contiguous()?.reshape(&[outer, len, inner])?)])?).reshape(&kept)
}

macro_rules! functions {
    ($($(#[$meta:meta])* $name:ident = $Kind:ident;)*) => {$(
        $(#[$meta])*
        /// over dimension `dim`, which stays with extent 1. The result is f32.
        ///
        /// # Errors
        /// As [`reduce`].
        pub fn $name(x: &Tensor, dim: usize) -> Result<Tensor> {
            reduce(Kind::$Kind, x, dim)
        }
    )*};
}

functions! {
    /// The sum
    sum = Sum;
    /// The mean
    mean = Mean;
    /// The largest value (NaN if there is one)
    max = Max;
    /// The smallest value (NaN if there is one)
    min = Min;
    /// The 2-norm
    norm2 = Norm2;
}
