//! Softmax over the last dimension.

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, first, run, softmax_bwd};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `out[i, j] = e^(x[i, j] - m_i) / Σ_j e^(x[i, j] - m_i)` with `m_i` the largest value of row i. A row of `-inf` alone
    /// gives zeros.
    pub struct Softmax("softmax") {
        /// Of operand and result.
        dtype: DType = DType::F32,
        /// Rows.
        rows: usize = 1,
        /// Values in a row.
        cols: usize = 1,
    }
}

impl Softmax {
    fn checked(self) -> Result<Softmax> {
        if !self.dtype.is_float() {
            return Err(Error::problem("softmax", format!("takes floats, got {}", self.dtype)));
        }
        Shape::new(&[self.rows, self.cols])?;
        Ok(self)
    }
}

impl Op for Softmax {
    const NAME: &'static str = "softmax";

    fn inputs(&self) -> Inputs {
        [Operand::new("x", self.dtype, &[self.rows, self.cols])].into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", self.dtype, &[self.rows, self.cols])].into()
    }
    /// Subtract, exponentiate, add and divide: the usual count of 5 with the maximum.
    fn flops(&self) -> u64 {
        5 * (self.rows * self.cols) as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        reference::softmax(self, inputs, rows)
    }
    fn keeps(&self) -> (u32, u32) {
        (0, 1)
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![grads[0].as_ref().map(|dout| softmax_bwd::softmax_bwd(saved.output(0), dout)).transpose()?])
    }
}

/// Softmax over the last dimension.
///
/// # Errors
/// `x` is not of a float dtype.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let (rows, cols) = x.layout().shape.rows();
    let op = Softmax { dtype: x.dtype(), rows, cols }.checked()?;
    let flat = x.reshape(&[rows, cols]).or_else(|_| x.contiguous()?.reshape(&[rows, cols]))?;
    first(run(&op, x.device(), &[Some(&flat)])?).reshape(x.shape())
}

#[cfg(test)]
mod tests {
    use crate::{Device, Tensor};

    /// Masks made of the lowest finite number leave rows of nothing else, which are uniform; those of -inf are zeros.
    #[test]
    fn rows_of_one_value_are_uniform() {
        let device = Device::cpu().unwrap();
        for value in [f32::MIN, f32::MAX, -1e30, 0.0] {
            for cols in [5, 64, 100] {
                let x = Tensor::from_slice(&device, &vec![value; 3 * cols], &[3, cols]).unwrap();
                let y: Vec<f32> = super::softmax(&x).unwrap().to_vec().unwrap();
                assert!(y.iter().all(|y| (y * cols as f32 - 1.0).abs() < 1e-6), "{value} {cols}");
            }
        }
        let x = Tensor::from_slice(&device, &[f32::NEG_INFINITY; 200], &[2, 100]).unwrap();
        assert_eq!(super::softmax(&x).unwrap().to_vec::<f32>().unwrap(), [0.0; 200]);
    }

    /// Exponents are differences from the maximum, whatever its size: products with log2 e must not be rounded apart.
    #[test]
    fn rows_far_from_zero_are_as_exact() {
        let device = Device::cpu().unwrap();
        for largest in [1e3f32, -1e3, 4e6, -4e6, 3e8, 1e9, -1e9, 1.1e9, -1.1e9, 1e30, -1e30, f32::MAX] {
            for cols in [3, 100] {
                // One to 60 units in the last place below the largest.
                let row: Vec<f32> = (0..cols).map(|j| largest - step(largest) * (j % 61) as f32).collect();
                let x = Tensor::from_slice(&device, &row, &[1, cols]).unwrap();
                let y: Vec<f32> = super::softmax(&x).unwrap().to_vec().unwrap();
                let weights: Vec<f64> = row.iter().map(|&v| (v as f64 - largest as f64).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for (y, want) in y.iter().zip(&weights) {
                    assert!(
                        (*y as f64 - want / sum).abs() <= 1e-6 * want / sum + 1e-19,
                        "{largest} {cols}: {y} {}",
                        want / sum
                    );
                }
            }
        }
    }

    /// The distance to the next number towards zero.
    fn step(x: f32) -> f32 {
        x.abs() - f32::from_bits(x.abs().to_bits() - 1)
    }
}
