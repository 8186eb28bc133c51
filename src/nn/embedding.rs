//! A table of token vectors.

use super::{Feed, Scope};
use crate::ops::gather;
use crate::{DType, Device, Error, Result, Tensor};

/// Rows by token id.
pub struct Embedding {
    table: Tensor,
    count: usize,
}

impl Embedding {
    /// `weight` [count, width], kept as stored: only rows that are asked for are read.
    ///
    /// # Errors
    /// The tensor is missing or has another shape.
    pub fn load(scope: &Scope, count: usize, width: usize) -> Result<Embedding> {
        Ok(Embedding { table: scope.matrix("weight", &[count, width])?, count })
    }

    /// The table: a tied output projection has the same weight.
    pub fn table(&self) -> &Tensor {
        &self.table
    }

    /// The device.
    pub fn device(&self) -> &Device {
        self.table.device()
    }

    /// Rows of `len` ids, u32 [rows, len] on the device.
    ///
    /// # Errors
    /// No ids, ids that are not whole rows, or one that is not in the table.
    pub fn ids(&self, ids: &[u32], len: usize, feed: &mut Feed) -> Result<Tensor> {
        if ids.is_empty() || len == 0 || !ids.len().is_multiple_of(len) {
            return Err(Error::Config(format!("{} token ids do not make rows of {len}; give at least one", ids.len())));
        }
        if let Some(place) = ids.iter().position(|&id| id as usize >= self.count) {
            let (id, count) = (ids[place], self.count);
            return Err(Error::Config(format!("token id {id} at place {place} is not in the vocabulary of {count}")));
        }
        feed.put(self.device(), ids, &[ids.len() / len, len])
    }

    /// The vectors of `ids` [rows, len], f32 [rows, len, width].
    ///
    /// # Errors
    /// Memory is short.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        gather::gather_as(&self.table, ids, DType::F32)
    }
}
