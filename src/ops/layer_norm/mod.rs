//! Layer norm over the last dimension. The oracle and the CPU kernel are those of [`norm`](super::norm).

mod cases;
mod cuda;
mod wgpu;

use super::norm::{self, Norm};
use super::problem::problem;
use super::{Case, Inputs, Op, Outputs, Real, Sample, Saved};
use crate::backend::cpu::simd::Simd;
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::{DType, Scalar};
use crate::error::{Result, Unsupported};
use crate::isa_rows;
use crate::tensor::Tensor;

pub use super::norm::{Normed, Options};

problem! {
    /// `out[r] = (x[r] - mean) / √(variance + eps)`, mean and (biased) variance over the row; then `· weight + bias`, then,
    /// modulated, `· (1 + scale[g]) + shift[g]` with `g = r / (rows / groups)`. With a residual, `x + residual` stands for x
    /// and is a second result, `sum`.
    pub struct LayerNorm("layer_norm") {
        /// Of `x`.
        dtype: DType = DType::F32,
        /// Of the result.
        out: DType = DType::F32,
        /// Rows.
        rows: usize = 1,
        /// Values in a row.
        cols: usize = 1,
        /// Added to the variance.
        eps: Scalar = Scalar(1e-5),
        /// Whether there is a weight.
        weight: bool = false,
        /// Whether there is a bias.
        bias: bool = false,
        /// Whether something is added to `x` first.
        residual: bool = false,
        /// Whether scale and shift follow.
        modulated: bool = false,
        /// Rows of scale and shift.
        groups: usize = 1,
    }
}

impl LayerNorm {
    fn checked(self) -> Result<LayerNorm> {
        self.norm().check("layer_norm")?;
        Ok(self)
    }

    fn norm(&self) -> Norm {
        let LayerNorm { dtype, out, rows, cols, eps, weight, residual, modulated, groups, .. } = *self;
        let (centred, bias) = (true, self.bias);
        Norm { dtype, out, rows, cols, eps, centred, weight, bias, residual, modulated, groups }
    }
}

impl Op for LayerNorm {
    const NAME: &'static str = "layer_norm";

    fn inputs(&self) -> Inputs {
        self.norm().inputs()
    }
    fn outputs(&self) -> Outputs {
        self.norm().outputs()
    }
    fn flops(&self) -> u64 {
        self.norm().flops()
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        norm::reference(&self.norm(), inputs, rows)
    }
    fn keeps(&self) -> (u32, u32) {
        self.keeps_for(!0)
    }
    fn keeps_for(&self, needs: u32) -> (u32, u32) {
        self.norm().keeps(needs)
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        norm::grad(&saved.op.norm(), saved, grads)
    }
}

impl Kernels<Cpu> for LayerNorm {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("layer_norm", supports, launch).takes(norm::cpu::TAKES)];
}

fn supports<S: Simd>(_: &LayerNorm, caps: &Caps) -> Result<(), Unsupported> {
    norm::cpu::supports::<S>(caps)
}

fn launch<S: Simd>(_: &Kernel<Cpu, LayerNorm>, op: &LayerNorm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    norm::cpu::launch::<S, true>(&op.norm(), l)
}

/// Layer norm over the last dimension, in the dtype of `x`; `weight` and `bias` are f32 `[cols]`.
///
/// # Errors
/// `x` is not of a float dtype, or an operand has the wrong shape.
pub fn layer_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f32) -> Result<Tensor> {
    Ok(with(x, &Options { weight, bias, eps, ..Options::default() })?.out)
}

/// As [`layer_norm`], with residual, modulation and the result's dtype.
///
/// # Errors
/// As [`layer_norm`].
pub fn with(x: &Tensor, o: &Options<'_>) -> Result<Normed> {
    let Norm { dtype, out, rows, cols, eps, weight, bias, residual, modulated, groups, .. } =
        norm::describe(x, o, true);
    let op = LayerNorm { dtype, out, rows, cols, eps, weight, bias, residual, modulated, groups }.checked()?;
    norm::normed(&op, x, o)
}

#[cfg(test)]
mod tests {
    use crate::{Device, Tensor};

    /// No digits are lost where the mean is large, whatever lies first in the row.
    #[test]
    fn deviations_are_exact_far_from_zero() {
        let device = Device::cpu().unwrap();
        for cols in [5, 64, 200, 9001] {
            let noise = |j: usize| ((j * 7919) % 1000) as f32 / 500.0 - 1.0;
            for (mean, outliers, outlier) in
                [(0.0, 0, 0.0), (1e4, 0, 0.0), (-3e3, 3, 1e4), (0.0, 100, 1e3), (1e4, cols, 1e4)]
            {
                let value = |j: usize| if j < outliers { outlier } else { mean + noise(j) };
                // Three equal rows: the first and the last ones of a part are worked on differently.
                let row: Vec<f32> = (0..cols).map(value).collect();
                let x = Tensor::from_slice(&device, &row.repeat(3), &[3, cols]).unwrap();
                let y: Vec<f32> = super::layer_norm(&x, None, None, 1e-5).unwrap().to_vec().unwrap();
                let exact: Vec<f64> = row.iter().map(|&v| v as f64).collect();
                let mean = exact.iter().sum::<f64>() / cols as f64;
                let variance = exact.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / cols as f64;
                let deviation = (variance + 1e-5).sqrt();
                // The mean is a number of 24 bits.
                let bound = 2e-6 + mean.abs() * 1.2e-7 / deviation;
                for (y, v) in y.iter().zip(exact.iter().cycle()) {
                    let want = (v - mean) / deviation;
                    assert!(
                        (*y as f64 - want).abs() <= bound * want.abs().max(1.0),
                        "{cols} {mean} {outliers}: {y} {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_spoils_its_row_alone() {
        let device = Device::cpu().unwrap();
        for value in [f32::NAN, f32::INFINITY] {
            let mut x: Vec<f32> = (0..5 * 100).map(|i| (i % 17) as f32).collect();
            x[2 * 100 + 70] = value;
            let x = Tensor::from_slice(&device, &x, &[5, 100]).unwrap();
            let y: Vec<f32> = super::layer_norm(&x, None, None, 1e-5).unwrap().to_vec().unwrap();
            for (r, row) in y.chunks(100).enumerate() {
                assert!(row.iter().all(|y| y.is_finite() == (r != 2)), "{value} {r}");
            }
        }
    }
}
