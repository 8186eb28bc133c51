//! Where a layer finds its tensors, and how it computes.

use crate::checkpoint::Weights;
use crate::{DType, Device, Error, Format, Result, Tensor};
use std::fmt;

/// What is rounded where. Accumulators, norms, softmax and the residual stream are f32 whatever it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// The dtype of matrices in memory; `None` for the checkpoint's own.
    pub weights: Option<DType>,
    /// The dtype to which the inputs of matrix products and of attention are rounded.
    pub compute: DType,
}

impl Precision {
    /// Matrices as stored, inputs of products in f32.
    pub const F32: Precision = Precision { weights: None, compute: DType::F32 };

    /// Inputs of products (and matrices) in this dtype.
    ///
    /// # Errors
    /// Not a float.
    pub fn compute_in(dtype: DType) -> Result<Precision> {
        match dtype {
            DType::F32 => Ok(Precision::F32),
            DType::BF16 | DType::F16 => Ok(Precision { weights: Some(dtype), compute: dtype }),
            _ => Err(Error::Config(format!("models compute in f32, bf16 or f16, not in {dtype}"))),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weights = self.weights.map_or("as stored", |d| d.name());
        write!(f, "weights {weights}, compute {}", self.compute)
    }
}

/// A part of a checkpoint, the device to put it on, and the precision to compute in.
#[derive(Clone)]
pub struct Scope {
    weights: Weights,
    device: Device,
    precision: Precision,
}

impl Scope {
    /// The whole of what `weights` shows.
    pub fn new(weights: Weights, device: &Device, precision: Precision) -> Scope {
        Scope { weights, device: device.clone(), precision }
    }

    /// The part under `name`; the same part for an empty name.
    pub fn sub(&self, name: &str) -> Scope {
        if name.is_empty() { self.clone() } else { Scope { weights: self.weights.sub(name), ..self.clone() } }
    }

    /// The part under `name.index`.
    pub fn at(&self, name: &str, index: usize) -> Scope {
        Scope { weights: self.weights.at(name, index), ..self.clone() }
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.weights.contains(name)
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The precision.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// A parameter that is not a matrix of a product (a bias, a norm's weight, a table): in f32.
    ///
    /// # Errors
    /// It is missing or has another shape, or memory is short.
    pub fn vector(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.weights.stored(name, shape)?.tensor_as(&self.device, DType::F32)
    }

    /// A matrix of a product, in the dtype for weights; without one as stored, which may be quantised blocks.
    ///
    /// # Errors
    /// It is missing, has another shape or is not of numbers of a product, or memory is short.
    pub fn matrix(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let stored = self.weights.stored(name, shape)?;
        match self.precision.weights {
            Some(dtype) => stored.tensor_as(&self.device, dtype),
            None => {
                let tensor = stored.tensor(&self.device)?;
                if tensor.dtype().is_float() || matches!(tensor.format(), Format::Blocks(_)) {
                    return Ok(tensor);
                }
                let (want, have) = ("of floats or quantised blocks".to_string(), format!("of {}", stored.dtype.name()));
                Err(Error::WrongTensor { path: stored.path.to_path_buf(), name: stored.name, want, have })
            }
        }
    }

    /// The shape that a tensor has in the file.
    ///
    /// # Errors
    /// It is missing.
    pub fn shape_of(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.weights.stored_any(name)?.shape)
    }
}
