//! Residual vector quantisation, decoding: the sum of the chosen vectors of all levels.

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, Saved, concat, first, run, scatter_add};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `out[i] = Σ_l codebooks[l, codes[l, i]]`.
    ///
    /// Operands: codes [levels, n] u32, codebooks [levels, size, dim] f32. Results: out [n, dim] f32.
    pub struct RvqDecode("rvq_decode") {
        /// Vectors.
        n: usize = 1,
        /// Width of a vector.
        codebook_dim: usize = 1,
        /// Vectors of a codebook.
        codebook_size: usize = 1,
        /// Levels.
        num_quantizers: usize = 1,
    }
}

impl RvqDecode {
    fn checked(self) -> Result<RvqDecode> {
        if self.codebook_size == 0 || u32::try_from(self.codebook_size).is_err() {
            return Err(Error::problem("rvq_decode", format!("a codebook of {} vectors", self.codebook_size)));
        }
        Shape::new(&[self.num_quantizers, self.codebook_size, self.codebook_dim])?;
        Shape::new(&[self.num_quantizers, self.n, self.codebook_dim]).map(|_| self)
    }
}

impl Op for RvqDecode {
    const NAME: &'static str = "rvq_decode";

    fn inputs(&self) -> Inputs {
        let size = self.codebook_size;
        [
            Operand::new("codes", DType::U32, &[self.num_quantizers, self.n]).fill(Fill::Below(size as u32)),
            Operand::new("codebooks", DType::F32, &[self.num_quantizers, size, self.codebook_dim]),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", DType::F32, &[self.n, self.codebook_dim])].into()
    }
    fn flops(&self) -> u64 {
        (self.num_quantizers * self.n * self.codebook_dim) as u64
    }
    fn cost(&self) -> crate::Cost {
        // Of the codebooks only the rows that are chosen are read.
        let (rows, width) = ((self.num_quantizers * self.n) as u64, 4 * self.codebook_dim as u64);
        crate::Cost { flops: self.flops(), bytes_read: rows * (4 + width), bytes_written: self.n as u64 * width }
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::rvq_decode(self, inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        (1, 0)
    }
    /// Each vector of a codebook gets the gradients of all that it is a part of.
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let (op, codes, Some(out)) = (&saved.op, saved.input(0), &grads[0]) else { return Ok(vec![None; 2]) };
        let level = |l: usize| {
            let codes = codes.slice(0, l..l + 1)?.reshape(&[op.n])?;
            scatter_add::scatter_add(out, &codes, op.codebook_size)?.reshape(&[1, op.codebook_size, op.codebook_dim])
        };
        let levels: Vec<Tensor> = (0..op.num_quantizers).map(level).collect::<Result<_>>()?;
        let codebooks = match levels.is_empty() {
            true => Tensor::zeros(out.device(), DType::F32, &[0, op.codebook_size, op.codebook_dim])?,
            false => concat::concat(&levels.iter().collect::<Vec<_>>(), 0)?,
        };
        Ok(vec![None, Some(codebooks)])
    }
}

/// Codes [levels, n] u32 and codebooks [levels, size, dim] f32 to vectors [n, dim].
///
/// # Errors
/// Shapes or dtypes do not fit, or a code is not below the size.
pub fn decode(codes: &Tensor, codebooks: &Tensor) -> Result<Tensor> {
    let (&[levels, n], &[_, codebook_size, codebook_dim]) = (codes.shape(), codebooks.shape()) else {
        let why = format!("takes codes [levels, n] and codebooks [levels, size, dim], got {codes} and {codebooks}");
        return Err(Error::problem("rvq_decode", why));
    };
    let op = RvqDecode { n, codebook_dim, codebook_size, num_quantizers: levels }.checked()?;
    Ok(first(run(&op, codes.device(), &[Some(codes), Some(codebooks)])?))
}
