//! Keys and values of the tokens that a decoder has seen.
//!
//! Memory grows in blocks, so that one attention problem (and one choice of kernel) serves a whole block of steps: how many
//! keys exist is an operand.

use super::Feed;
use crate::ops::cache_append::cache_append;
use crate::ops::concat::concat;
use crate::ops::gather;
use crate::{DType, Device, Error, Result, Tensor};

/// Tokens by which the capacity grows.
const BLOCK: usize = 256;

/// The cache of a whole decoder, for a batch of sequences that advance together.
pub struct KvCache {
    /// Per layer, keys and values [batch, capacity, heads_kv, head_dim].
    layers: Vec<Option<[Tensor; 2]>>,
    batch: usize,
    heads: usize,
    head_dim: usize,
    dtype: DType,
    device: Device,
    /// Tokens that are there, in every sequence and layer; more while a step is under way.
    len: usize,
    capacity: usize,
    /// Counts how often keys and values went to other memory.
    generation: u64,
    /// For each place of each sequence [batch, len] whether it holds a token, where some are padding.
    padding: Option<Vec<Vec<u8>>>,
}

/// What attention over the cache needs beside its tensors.
pub struct CacheStep {
    /// u32 [batch]: where the step's keys go.
    pub index: Tensor,
    /// u32 [batch]: the keys that exist after it.
    pub lens_k: Tensor,
    /// u8 [batch, capacity]: 0 where there is no token; `None` where all places up to `lens_k` hold one.
    pub key_padding: Option<Tensor>,
}

impl KvCache {
    /// An empty cache.
    pub fn new(device: &Device, layers: usize, batch: usize, heads: usize, head_dim: usize, dtype: DType) -> KvCache {
        KvCache {
            layers: (0..layers).map(|_| None).collect(),
            batch,
            heads,
            head_dim,
            dtype,
            device: device.clone(),
            len: 0,
            capacity: 0,
            generation: 0,
            padding: None,
        }
    }

    /// Tokens that are there.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Changes when keys and values go to other memory: what was recorded with them must not be replayed then.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Bytes of keys and values, unused places included.
    pub fn bytes(&self) -> usize {
        self.layers.iter().flatten().flatten().map(Tensor::bytes).sum()
    }

    /// Forgets the tokens from place `len` on; the memory stays.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        if let Some(rows) = &mut self.padding {
            rows.iter_mut().for_each(|row| row.truncate(len));
        }
    }

    /// Makes room for `len` more tokens. `mask` [batch, len] says which of them are tokens and which are padding. What the
    /// step reads goes through `feed`.
    ///
    /// # Errors
    /// The mask has another length, or memory is short.
    pub fn begin(&mut self, len: usize, mask: Option<&[u32]>, feed: &mut Feed) -> Result<CacheStep> {
        if let Some(mask) = mask {
            if mask.len() != self.batch * len {
                let (have, batch) = (mask.len(), self.batch);
                return Err(Error::Config(format!("a mask of {have} places for {batch} sequences of {len} tokens")));
            }
            if mask.contains(&0) && self.padding.is_none() {
                self.padding = Some(vec![vec![1; self.len]; self.batch]);
            }
        }
        if let Some(rows) = &mut self.padding {
            for (b, row) in rows.iter_mut().enumerate() {
                row.truncate(self.len);
                row.extend((0..len).map(|i| mask.map_or(1, |m| u8::from(m[b * len + i] != 0))));
            }
        }
        self.reserve(self.len + len)?;
        let mut all = |x: usize| feed.put(&self.device, &vec![x as u32; self.batch], &[self.batch]);
        let (index, lens_k) = (all(self.len)?, all(self.len + len)?);
        let key_padding = self.padding.as_ref().map(|rows| {
            let mut flat = Vec::with_capacity(self.batch * self.capacity);
            for row in rows {
                flat.extend_from_slice(row);
                flat.resize(flat.len().next_multiple_of(self.capacity), 0);
            }
            feed.put(&self.device, &flat, &[self.batch, self.capacity])
        });
        Ok(CacheStep { index, lens_k, key_padding: key_padding.transpose()? })
    }

    /// Puts a layer's keys and values [batch, len, heads_kv, head_dim] in their places, and gives all of the layer's.
    ///
    /// # Errors
    /// They have another shape, or do not fit into what [`begin`](KvCache::begin) made room for.
    pub fn append(&mut self, layer: usize, step: &CacheStep, k: &Tensor, v: &Tensor) -> Result<[Tensor; 2]> {
        let slot = self.layers.get_mut(layer).and_then(Option::as_mut);
        let pair =
            slot.ok_or_else(|| Error::Config(format!("the cache has no layer {layer}, or no step was begun")))?;
        for (cache, new) in pair.iter_mut().zip([k, v]) {
            cache_append(cache, new, &step.index)?;
        }
        Ok(pair.clone())
    }

    /// Ends the step that [`begin`](KvCache::begin) began.
    pub fn end(&mut self, len: usize) {
        self.len += len;
    }

    /// Sequence `b` becomes what sequence `from[b]` was: for beams that are given up and others that are split.
    ///
    /// # Errors
    /// There is no such sequence, or memory is short.
    pub fn reorder(&mut self, from: &[usize]) -> Result<()> {
        if let Some(&b) = from.iter().find(|&&b| b >= self.batch) {
            return Err(Error::Config(format!("the cache has {} sequences, no number {b}", self.batch)));
        }
        let ids: Vec<u32> = from.iter().map(|&b| b as u32).collect();
        let ids = Tensor::from_slice(&self.device, &ids, &[ids.len()])?;
        for tensor in self.layers.iter_mut().flatten().flatten() {
            let mut shape = tensor.shape().to_vec();
            let flat = tensor.reshape(&[shape[0], shape[1..].iter().product()])?;
            shape[0] = from.len();
            *tensor = gather::gather(&flat, &ids)?.reshape(&shape)?;
        }
        if let Some(rows) = &mut self.padding {
            *rows = from.iter().map(|&b| rows[b].clone()).collect();
        }
        self.batch = from.len();
        self.generation += 1;
        Ok(())
    }

    /// Makes room for `len` tokens in all, in whole blocks.
    ///
    /// # Errors
    /// Memory is short.
    pub fn reserve(&mut self, len: usize) -> Result<()> {
        if len <= self.capacity && self.layers.iter().all(Option::is_some) {
            return Ok(());
        }
        let capacity = len.next_multiple_of(BLOCK).max(self.capacity);
        self.generation += 1;
        let more = [self.batch, capacity - self.len, self.heads, self.head_dim];
        for slot in &mut self.layers {
            // Zeros, not whatever memory held: what is hidden may still be multiplied by 0.
            let room = Tensor::zeros(&self.device, self.dtype, &more)?;
            *slot = Some(match slot.take().filter(|_| self.len > 0) {
                None => [room, Tensor::zeros(&self.device, self.dtype, &more)?],
                Some([k, v]) => {
                    let grown = |old: &Tensor| concat(&[&old.slice(1, 0..self.len)?, &room], 1);
                    [grown(&k)?, grown(&v)?]
                }
            });
        }
        self.capacity = capacity;
        Ok(())
    }
}
