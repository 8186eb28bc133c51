//! Where a layer finds its tensors, and how it computes.

use crate::checkpoint::{StoredDType, Weights};
use crate::{DType, Device, Error, Format, Result, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

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

/// A part of a checkpoint, the device to put it on, and the precision to compute in. In training, some or all tensors are
/// leaves of the tape instead of the checkpoint's.
#[derive(Clone)]
pub struct Scope {
    weights: Weights,
    device: Device,
    precision: Precision,
    trained: Option<Arc<Trained>>,
}

/// What a training step computes with beside the checkpoint.
pub struct Trained {
    /// Leaves by their full names, f32: they stand for the checkpoint's tensors, or are new (adapters).
    pub leaves: BTreeMap<String, Tensor>,
    /// Rank and scale of low-rank adapters.
    pub lora: Option<(usize, f32)>,
    /// Frozen matrices that were packed by an earlier step.
    pub frozen: Arc<Frozen>,
}

/// Packed matrices by the full name of the first that they consist of. A model is put together anew in every step; what
/// does not change is packed once.
#[derive(Default)]
pub struct Frozen(Mutex<HashMap<String, Tensor>>);

impl Scope {
    /// The whole of what `weights` shows.
    pub fn new(weights: Weights, device: &Device, precision: Precision) -> Scope {
        Scope { weights, device: device.clone(), precision, trained: None }
    }

    /// The same with leaves in the place of the checkpoint's tensors.
    pub fn trained(self, trained: Trained) -> Scope {
        Scope { trained: Some(Arc::new(trained)), ..self }
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
        self.weights.contains(name) || self.leaf(name).is_some()
    }

    /// Rank and scale of low-rank adapters, where there may be some.
    pub(super) fn lora(&self) -> Option<(usize, f32)> {
        self.trained.as_ref()?.lora
    }

    /// How a tensor is stored.
    ///
    /// # Errors
    /// It is missing.
    pub fn stored_dtype(&self, name: &str) -> Result<StoredDType> {
        match self.leaf(name) {
            Some(_) => Ok(StoredDType::F32),
            None => Ok(self.weights.stored_any(name)?.dtype),
        }
    }

    /// What `make` makes of the `count` matrices that begin with this scope's `weight`; in training, of frozen ones only
    /// once.
    pub(super) fn prepared(&self, count: usize, make: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let Some(frozen) = self.trained.as_ref().map(|t| &t.frozen) else { return make() };
        let key = format!("{} {count}", self.weights.full("weight"));
        let lock = || frozen.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&key) {
            return Ok(known.clone());
        }
        let made = make()?;
        if !made.has_node() {
            lock().insert(key, made.clone());
        }
        Ok(made)
    }

    fn leaf(&self, name: &str) -> Option<&Tensor> {
        self.trained.as_ref()?.leaves.get(&self.weights.full(name))
    }

    /// A leaf of exactly this shape, if there is one of the name.
    fn leaf_of(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor>> {
        match self.leaf(name) {
            Some(leaf) if leaf.shape() != shape => Err(Error::WrongTensor {
                path: self.weights.checkpoint().path().to_path_buf(),
                name: self.weights.full(name),
                want: format!("of shape {shape:?}"),
                have: format!("trained as one of shape {:?}", leaf.shape()),
            }),
            leaf => Ok(leaf.cloned()),
        }
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
        if let Some(leaf) = self.leaf_of(name, shape)? {
            return Ok(leaf);
        }
        self.weights.stored(name, shape)?.tensor_as(&self.device, DType::F32)
    }

    /// A matrix of a product, in the dtype for weights; without one as stored, which may be quantised blocks.
    ///
    /// # Errors
    /// It is missing, has another shape or is not of numbers of a product, or memory is short.
    pub fn matrix(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        if let Some(leaf) = self.leaf_of(name, shape)? {
            return leaf.to_dtype(self.precision.weights.unwrap_or(DType::F32));
        }
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
        match self.leaf(name) {
            Some(leaf) => Ok(leaf.shape().to_vec()),
            None => Ok(self.weights.stored_any(name)?.shape),
        }
    }
}
