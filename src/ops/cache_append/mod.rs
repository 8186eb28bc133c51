//! Writing new rows behind those that a cache already holds: keys and values of a decoder.

// The getter `len` is that of a sequence, not of a container.
#![allow(clippy::len_without_is_empty)]

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::problem::problem;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, Tolerance, run_into};
use crate::Cost;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `cache[b, index[b] + i] = x[b, i]`, in place; f32 rows are rounded to the cache's dtype. Rows that do not fit behind
    /// `index[b]` are an error.
    ///
    /// Operands: x [batch, len, width], index [batch] u32. Results: cache [batch, capacity, width], in place.
    pub struct CacheAppend("cache_append") {
        /// Of x: that of the cache, or f32.
        dtype: DType = DType::F32,
        /// Of the cache: a float.
        cache: DType = DType::F32,
        /// Sequences.
        batch: usize = 1,
        /// New rows of a sequence.
        len: usize = 1,
        /// Rows that the cache has for a sequence.
        capacity: usize = 1,
        /// Values in a row.
        width: usize = 1,
    }
}

impl CacheAppend {
    fn checked(self) -> Result<CacheAppend> {
        let fail = |why: String| Err(Error::problem("cache_append", why));
        if !self.cache.is_float() || (self.dtype != self.cache && self.dtype != DType::F32) {
            return fail(format!("puts rows of floats, as they are or from f32, got {} to {}", self.dtype, self.cache));
        }
        if self.len > self.capacity {
            return fail(format!("{} rows are more than the capacity {}", self.len, self.capacity));
        }
        Shape::new(&[self.batch, self.capacity, self.width])?;
        Ok(self)
    }
}

impl Op for CacheAppend {
    const NAME: &'static str = "cache_append";

    fn inputs(&self) -> Inputs {
        let places = u32::try_from(self.capacity - self.len).unwrap_or(u32::MAX).saturating_add(1);
        [
            Operand::new("x", self.dtype, &[self.batch, self.len, self.width]),
            Operand::new("index", DType::U32, &[self.batch]).fill(Fill::Below(places)),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("cache", self.cache, &[self.batch, self.capacity, self.width]).in_place()].into()
    }
    fn flops(&self) -> u64 {
        0
    }
    /// Only the new rows are written, and nothing of the cache is read.
    fn cost(&self) -> Cost {
        let values = (self.batch * self.len * self.width) as u64;
        Cost { flops: 0, bytes_read: self.inputs().bytes(), bytes_written: values * self.cache.bytes() as u64 }
    }
    fn tolerance(&self) -> Tolerance {
        Tolerance::Exact
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::cache_append(self, inputs)
    }
}

/// Writes `x` [batch, len, …] into `cache` [batch, capacity, …], whose dtype is that of `x` unless `x` is f32, from row
/// `index[b]` (u32 [batch]) of each sequence on. Slices of a fused tensor are taken as they lie.
///
/// # Errors
/// Rows do not fit behind an index ([`Error::Index`]), shapes or dtypes do not fit, or somebody else holds the cache's
/// memory ([`Error::Aliased`]).
pub fn cache_append(cache: &mut Tensor, x: &Tensor, index: &Tensor) -> Result<()> {
    let (&[batch, capacity, ref row @ ..], &[_, len, ref new @ ..]) = (cache.shape(), x.shape()) else {
        return Err(Error::problem("cache_append", format!("takes [batch, rows, …], got {cache} and {x}")));
    };
    if row != new {
        return Err(Error::problem("cache_append", format!("rows of {x} are not those of {cache}")));
    }
    let width = row.iter().product();
    let op = CacheAppend { dtype: x.dtype(), cache: cache.dtype(), batch, len, capacity, width }.checked()?;
    let rows = [x.shape()[0], len, width];
    let rows = x.reshape(&rows).or_else(|_| x.contiguous()?.reshape(&rows))?;
    let mut whole = cache.as_mut()?;
    run_into(&op, x.device(), &[Some(&rows), Some(index)], &mut [whole.reshape(&[batch, capacity, width])?])
}
