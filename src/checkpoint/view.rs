//! A checkpoint seen under a prefix, so that each layer of a model names its own tensors only.

use super::{Checkpoint, Stored};
use crate::{Error, Result};

/// The tensors of a checkpoint whose names begin with a prefix. Names given to its methods go without it.
#[derive(Clone)]
pub struct Weights {
    checkpoint: Checkpoint,
    prefix: String,
}

impl Weights {
    /// The tensors under `name`, a component or several joined by dots.
    pub fn sub(&self, name: &str) -> Weights {
        Weights { checkpoint: self.checkpoint.clone(), prefix: self.full(name) }
    }

    /// The tensors under `name.index`: one layer of several.
    pub fn at(&self, name: &str, index: usize) -> Weights {
        self.sub(&format!("{name}.{index}"))
    }

    /// The name in the checkpoint of what is `name` here.
    pub fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.into() } else { format!("{}.{name}", self.prefix) }
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Whether there is such a tensor.
    pub fn contains(&self, name: &str) -> bool {
        self.checkpoint.contains(&self.full(name))
    }

    /// A tensor of exactly this shape.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], or [`Error::WrongTensor`] with both shapes.
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored> {
        let stored = self.stored_any(name)?;
        if stored.shape == shape {
            return Ok(stored);
        }
        let (want, have) = (format!("of shape {shape:?}"), format!("of shape {:?}", stored.shape));
        Err(Error::WrongTensor { path: stored.path.to_path_buf(), name: stored.name, want, have })
    }

    /// A tensor of any shape.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn stored_any(&self, name: &str) -> Result<Stored> {
        self.checkpoint.get(&self.full(name))
    }
}

impl Checkpoint {
    /// All tensors, under no prefix.
    pub fn weights(&self) -> Weights {
        Weights { checkpoint: self.clone(), prefix: String::new() }
    }
}
