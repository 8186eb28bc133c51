//! Putting tensors one behind the other along a dimension.

mod cases;
mod cpu;
mod cuda;
mod parts;
mod reference;
mod wgpu;

pub use parts::Parts;

use super::problem::problem;
use super::{Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, Tolerance, first, run};
use crate::backend::MAX_IN;
use crate::dtype::{DType, Format};
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `out[o, start_p + j, i] = x_p[o, j, i]` with `start_p` the sum of the parts before p.
    pub struct Concat("concat") {
        /// Of operands and result.
        dtype: DType = DType::F32,
        /// The product of the dimensions before the joined one.
        outer: usize = 1,
        /// The operands' extents along the joined dimension, such as `3x4x5`.
        parts: Parts = Parts::of(&[1, 1]),
        /// The product of the dimensions behind the joined one.
        inner: usize = 1,
    }
}

impl Concat {
    fn checked(self) -> Result<Concat> {
        let total = self.parts.iter().try_fold(0usize, |n, &p| n.checked_add(p));
        let total = total.ok_or_else(|| Error::problem("concat", format!("parts {} are too long", self.parts)))?;
        Shape::new(&[self.outer, total, self.inner])?;
        // Parts of extent 0 count as 1 in the product that bounds a shape; so do the dimensions around them.
        self.parts.iter().try_for_each(|&p| Shape::new(&[self.outer, p, self.inner]).map(drop))?;
        Ok(self)
    }

    /// The extent of the result along the joined dimension.
    pub fn total(&self) -> usize {
        self.parts.iter().sum()
    }
}

impl Op for Concat {
    const NAME: &'static str = "concat";

    fn inputs(&self) -> Inputs {
        const NAMES: [&str; MAX_IN] = ["x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11"];
        let operand = |i: usize| match self.parts.get(i) {
            Some(&p) => Operand::new(NAMES[i], self.dtype, &[self.outer, p, self.inner]),
            None => Operand::new(NAMES[i], self.dtype, &[0]).only_if(false),
        };
        std::array::from_fn::<Operand, MAX_IN, _>(operand).into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", self.dtype, &[self.outer, self.total(), self.inner])].into()
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
        reference::concat(self, inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        (0, 0)
    }
    /// Each operand's part, as a view.
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(out) = &grads[0] else { return Ok(Vec::new()) };
        Ok(out.split(1, &saved.op.parts)?.into_iter().map(Some).collect())
    }
}

/// Tensors one behind the other along dimension `dim`. More than twelve are joined in several steps; one alone is given
/// back as it is. Of quantised blocks, rows can be joined.
///
/// # Errors
/// There is none, dtypes, formats or the other dimensions differ, or there is no such dimension.
pub fn concat(tensors: &[&Tensor], dim: usize) -> Result<Tensor> {
    let fail = |why: String| Err(Error::problem("concat", why));
    let Some(first) = tensors.first() else { return fail("needs at least one tensor".into()) };
    let shape = first.layout().shape;
    if dim >= shape.len() {
        return fail(format!("{first} has no dimension {dim}"));
    }
    for t in tensors {
        let same = |d: usize| d == dim || t.shape()[d] == shape[d];
        if t.dtype() != first.dtype()
            || t.format() != first.format()
            || t.shape().len() != shape.len()
            || !(0..shape.len()).all(same)
        {
            return fail(format!("{first} and {t} do not fit along dimension {dim}"));
        }
    }
    if tensors.len() == 1 {
        return Ok((*first).clone());
    }
    if let (Format::Blocks(quant), true) = (first.format(), dim + 1 < shape.len()) {
        let bytes: Vec<Tensor> = tensors.iter().map(|t| t.as_block_bytes()).collect::<Result<_>>()?;
        return concat(&bytes.iter().collect::<Vec<_>>(), dim)?.as_blocks(quant);
    }
    if tensors.len() > MAX_IN {
        let joined: Vec<Tensor> = tensors.chunks(MAX_IN).map(|group| concat(group, dim)).collect::<Result<_>>()?;
        return concat(&joined.iter().collect::<Vec<_>>(), dim);
    }
    step(tensors, dim, &shape)
}

/// One launch.
fn step(tensors: &[&Tensor], dim: usize, shape: &Shape) -> Result<Tensor> {
    let (outer, inner) = (shape[..dim].iter().product(), shape[dim + 1..].iter().product());
    let parts: Vec<usize> = tensors.iter().map(|t| t.shape()[dim]).collect();
    let op = Concat { dtype: tensors[0].dtype(), outer, parts: Parts::of(&parts), inner }.checked()?;
    let flat = |t: &&Tensor| {
        let dims = [outer, t.shape()[dim], inner];
        t.reshape(&dims).or_else(|_| t.contiguous()?.reshape(&dims))
    };
    let views: Vec<Tensor> = tensors.iter().map(flat).collect::<Result<_>>()?;
    let refs: Vec<Option<&Tensor>> = views.iter().map(Some).collect();
    let mut dims = shape.to_vec();
    dims[dim] = op.total();
    first(run(&op, tensors[0].device(), &refs)?).reshape(&dims)
}
