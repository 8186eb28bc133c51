//! Rotary position embeddings (Su et al., arXiv 2104.09864): pairs of values of each head are turned by angles that grow
//! with the position, on one axis or on up to three.

// The getter `len` is that of a sequence, not of a container.
#![allow(clippy::len_without_is_empty)]

mod cases;
mod cpu;
mod cuda;
mod grad;
mod reference;
mod wgpu;

use super::concat::Parts;
use super::problem::{choice, problem};
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, Saved, first, run};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

choice! {
    /// Which values of a head make pair j.
    pub enum Pairs {
        /// Values j and j + rotary_dim/2.
        Halves = "halves",
        /// Values 2j and 2j + 1.
        Interleaved = "interleaved",
    }
}

problem! {
    /// With `angle = positions[axis(j), b, i] · inv_freq[j]` rounded to f32, `c = factor · cos(angle)` and
    /// `s = factor · sin(angle)`, pair j of every head becomes
    ///
    /// `(first, second) = (first · c - second · s, second · c + first · s)`
    ///
    /// (`inverse`: with `-s`). The first `sections[0]` pairs belong to axis 0, the next `sections[1]` to axis 1, and so on.
    /// Values from `rotary_dim` on stay as they are. Computed in f32 and rounded once.
    ///
    /// Operands: x [batch, len, heads, head_dim], positions [axes, positions_batch, len], inv_freq [rotary_dim/2] f32.
    /// Results: out [batch, len, heads, head_dim].
    pub struct Rope("rope") {
        /// Of x: a float.
        dtype: DType = DType::F32,
        /// Of the result: a float.
        out: DType = DType::F32,
        /// Of the positions: u32, i32 or f32.
        positions: DType = DType::U32,
        /// Sequences.
        batch: usize = 1,
        /// Places of a sequence.
        len: usize = 1,
        /// Heads of a place.
        heads: usize = 1,
        /// Values of a head.
        head_dim: usize = 64,
        /// `batch`, or 1 for positions that all sequences share.
        positions_batch: usize = 1,
        /// Which values make a pair.
        pairs: Pairs = Pairs::Halves,
        /// Values of a head that are turned; 0 stands for all.
        rotary_dim: usize = 0,
        /// How many pairs belong to each axis, such as `8x12x12`; 0 stands for one axis with all.
        sections: Parts = Parts::of(&[0]),
        /// What cosines and sines are multiplied by.
        factor: Scalar = Scalar(1.0),
        /// Turns back: the transpose.
        inverse: bool = false,
    }
}

/// The most axes.
const MAX_AXES: usize = 3;

impl Rope {
    /// Checks, and puts numbers in place of the zeros that stand for all.
    fn checked(mut self) -> Result<Rope> {
        let fail = |why: String| Err(Error::problem("rope", why));
        let Rope { batch, len, heads, head_dim, positions_batch, .. } = self;
        if !self.dtype.is_float() || !self.out.is_float() {
            return fail(format!("takes and gives floats, got {} and {}", self.dtype, self.out));
        }
        if !matches!(self.positions, DType::U32 | DType::I32 | DType::F32) {
            return fail(format!("positions are u32, i32 or f32, got {}", self.positions));
        }
        if positions_batch != 1 && positions_batch != batch {
            return fail(format!("positions_batch must be 1 or the batch {batch}, is {positions_batch}"));
        }
        if self.rotary_dim == 0 {
            self.rotary_dim = head_dim;
        }
        let rotary_dim = self.rotary_dim;
        if rotary_dim == 0 || rotary_dim > head_dim || !rotary_dim.is_multiple_of(2) {
            return fail(format!("rotary_dim must be even, at least 2 and at most {head_dim}, is {rotary_dim}"));
        }
        if *self.sections == [0] {
            self.sections = Parts::of(&[rotary_dim / 2]);
        }
        let total = self.sections.iter().try_fold(0usize, |n, &s| n.checked_add(s));
        if self.sections.len() > MAX_AXES || total != Some(rotary_dim / 2) {
            let why = format!("{} pairs on one to three axes, got sections {}", rotary_dim / 2, self.sections);
            return fail(why);
        }
        if !self.factor.0.is_finite() {
            return fail(format!("factor must be finite, got {}", self.factor));
        }
        Shape::new(&[batch, len, heads, head_dim])?;
        Shape::new(&[self.sections.len(), positions_batch, len])?;
        Ok(self)
    }

    /// What sines are multiplied by.
    fn sine_factor(&self) -> f32 {
        if self.inverse { -self.factor.0 } else { self.factor.0 }
    }
}

impl Op for Rope {
    const NAME: &'static str = "rope";

    fn inputs(&self) -> Inputs {
        let fill = match self.positions {
            DType::F32 => Fill::Affine { scale: 100.0, offset: 0.0 },
            _ => Fill::Below(4096),
        };
        let positions = [self.sections.len(), self.positions_batch, self.len];
        [
            Operand::new("x", self.dtype, &[self.batch, self.len, self.heads, self.head_dim]),
            Operand::new("positions", self.positions, &positions).fill(fill).constant(),
            Operand::new("inv_freq", DType::F32, &[self.rotary_dim / 2]).constant(),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", self.out, &[self.batch, self.len, self.heads, self.head_dim])].into()
    }
    /// Four products and two sums for a pair; cosines and sines, which heads share, are not counted.
    fn flops(&self) -> u64 {
        3 * (self.batch * self.len * self.heads * self.rotary_dim) as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        reference::rope(self, inputs, rows)
    }
    fn keeps(&self) -> (u32, u32) {
        grad::KEEPS
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        grad::grad(saved, grads)
    }
}

/// What a rotation may be told; the default turns halves on one axis and keeps the dtype.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Which values make a pair.
    pub pairs: Pairs,
    /// How many pairs belong to each of up to three axes; empty for one axis.
    pub sections: &'a [usize],
    /// What cosines and sines are multiplied by (yarn's attention factor).
    pub factor: f32,
    /// Turns back.
    pub inverse: bool,
    /// The dtype of the result; that of `x` if `None`.
    pub out: Option<DType>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { pairs: Pairs::Halves, sections: &[], factor: 1.0, inverse: false, out: None }
    }
}

/// `x` [batch, len, heads, head_dim] turned by `positions` times `inv_freq`, in the same shape. `inv_freq` is f32
/// [rotary_dim/2]; `positions` (u32, i32 or f32) is [len], [batch or 1, len] or [axes, batch or 1, len]. Slices of a fused
/// tensor are taken as they lie.
///
/// # Errors
/// Shapes or dtypes do not fit.
pub fn rope(x: &Tensor, positions: &Tensor, inv_freq: &Tensor, options: &Options<'_>) -> Result<Tensor> {
    let fail = |why: String| Err(Error::problem("rope", why));
    let &[batch, len, heads, head_dim] = x.shape() else {
        return fail(format!("takes [batch, len, heads, head_dim], got {x}"));
    };
    let rotary_dim = inv_freq.count().saturating_mul(2);
    let sections = if options.sections.is_empty() { &[rotary_dim / 2] } else { options.sections };
    let (axes, positions_batch) = match *positions.shape() {
        [_] => (1, 1),
        [batch, _] => (1, batch),
        [axes, batch, _] => (axes, batch),
        _ => return fail(format!("positions are [len], [batch, len] or [axes, batch, len], got {positions}")),
    };
    if sections.len() != axes || axes > MAX_AXES || rotary_dim == 0 {
        return fail(format!("sections {sections:?} and inv_freq {inv_freq} do not fit positions {positions}"));
    }
    let op = Rope {
        dtype: x.dtype(),
        out: options.out.unwrap_or(x.dtype()),
        positions: positions.dtype(),
        batch,
        len,
        heads,
        head_dim,
        positions_batch,
        pairs: options.pairs,
        rotary_dim,
        sections: Parts::of(sections),
        factor: Scalar(options.factor),
        inverse: options.inverse,
    }
    .checked()?;
    let positions = positions.contiguous()?.reshape(&[axes, positions_batch, len])?;
    Ok(first(run(&op, x.device(), &[Some(x), Some(&positions), Some(inv_freq)])?))
}
