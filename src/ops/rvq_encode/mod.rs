//! Residual vector quantisation, encoding: all levels in one call.

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::problem::{choice, problem};
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, Saved, no_grad_of, run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

choice! {
    /// What is nearest.
    pub enum Distance {
        /// The smallest ‖r - e‖².
        Euclidean = "euclidean",
        /// The largest cosine of r and e; the unit vector of e is what is handed on.
        Cosine = "cosine",
    }
}

problem! {
    /// Level by level, with r = x at first: `codes[l] = argmin_k distance(r, codebooks[l, k])` (the lowest k of equals), then
    /// r loses the chosen vector.
    ///
    /// Operands: x [n, dim] f32, codebooks [levels, size, dim] f32. Results: codes [levels, n] u32; quantized [n, dim] f32,
    /// the sum of the chosen vectors; measure [levels, n] f32: ‖r‖ after the level, or with cosines the largest cosine.
    pub struct RvqEncode("rvq_encode") {
        /// Vectors.
        n: usize = 1,
        /// Width of a vector.
        codebook_dim: usize = 1,
        /// Vectors of a codebook.
        codebook_size: usize = 1,
        /// Levels.
        num_quantizers: usize = 1,
        /// What is nearest.
        distance: Distance = Distance::Euclidean,
    }
}

impl RvqEncode {
    fn checked(self) -> Result<RvqEncode> {
        if self.codebook_size == 0 || u32::try_from(self.codebook_size).is_err() {
            return Err(Error::problem("rvq_encode", format!("a codebook of {} vectors", self.codebook_size)));
        }
        Shape::new(&[self.num_quantizers, self.codebook_size, self.codebook_dim])?;
        Shape::new(&[self.num_quantizers, self.n, self.codebook_dim])?;
        let flops = [2, self.num_quantizers, self.n, self.codebook_size, self.codebook_dim];
        match flops.iter().try_fold(1u64, |p, &x| p.checked_mul(x.max(1) as u64)) {
            Some(_) => Ok(self),
            None => Err(Error::problem("rvq_encode", "too many products")),
        }
    }
}

impl Op for RvqEncode {
    const NAME: &'static str = "rvq_encode";

    fn inputs(&self) -> Inputs {
        let (levels, size, dim) = (self.num_quantizers, self.codebook_size, self.codebook_dim);
        [
            Operand::new("x", DType::F32, &[self.n, dim]),
            Operand::new("codebooks", DType::F32, &[levels, size, dim]).fill(Fill::Affine { scale: 0.7, offset: 0.0 }),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [
            Operand::new("codes", DType::U32, &[self.num_quantizers, self.n]),
            Operand::new("quantized", DType::F32, &[self.n, self.codebook_dim]),
            Operand::new("measure", DType::F32, &[self.num_quantizers, self.n]),
        ]
        .into()
    }
    fn flops(&self) -> u64 {
        2 * (self.num_quantizers * self.n * self.codebook_size * self.codebook_dim) as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        reference::rvq_encode(self, inputs, rows)
    }
    fn keeps(&self) -> (u32, u32) {
        (0, 0)
    }
    fn grad(saved: &Saved<Self>, _: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        no_grad_of(&saved.op, "codes are no smooth function of vectors; decode them to train the codebooks")
    }
}

/// What encoding gives.
pub struct Encoded {
    /// [levels, n] u32
    pub codes: Tensor,
    /// [n, dim]: the sum of the chosen vectors.
    pub quantized: Tensor,
    /// [levels, n]: the residual's length after each level, or the largest cosine.
    pub measure: Tensor,
}

/// Vectors [n, dim] f32 by codebooks [levels, size, dim] f32.
///
/// # Errors
/// Shapes or dtypes do not fit, or memory is short.
pub fn encode(x: &Tensor, codebooks: &Tensor, distance: Distance) -> Result<Encoded> {
    let (&[n, codebook_dim], &[num_quantizers, codebook_size, _]) = (x.shape(), codebooks.shape()) else {
        let why = format!("takes x [n, dim] and codebooks [levels, size, dim], got {x} and {codebooks}");
        return Err(Error::problem("rvq_encode", why));
    };
    let op = RvqEncode { n, codebook_dim, codebook_size, num_quantizers, distance }.checked()?;
    match run(&op, x.device(), &[Some(x), Some(codebooks)])? {
        [Some(codes), Some(quantized), Some(measure), _] => Ok(Encoded { codes, quantized, measure }),
        _ => unreachable!("run() returns every result that the problem has"),
    }
}
