//! The text tower.

use super::config::{ClipConfig, Pooling};
use super::names;
use crate::nn::{Block, LayerNorm, Scope, Taps};
use crate::ops::attention::Options;
use crate::ops::{elementwise, gather};
use crate::{DType, Error, Result, Tensor};

/// Token ids to hidden states.
pub struct TextTower {
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<Block>,
    final_layer_norm: LayerNorm,
    pooling: Pooling,
}

/// What the tower gives.
pub struct TextOutput {
    /// [batch, len, width], after the last norm.
    pub last_hidden_state: Tensor,
    /// The row of the end token, [batch, width].
    pub pooler_output: Tensor,
}

impl TextTower {
    /// From `text_model.…` (transformers) or the top level (open_clip).
    ///
    /// # Errors
    /// A tensor is missing or has another shape, or memory is short.
    pub fn load(scope: &Scope, config: &ClipConfig) -> Result<TextTower> {
        let width = config.text.width;
        let (table, positions, norm) = match config.open_clip {
            false => ("embeddings.token_embedding.weight", "embeddings.position_embedding.weight", "final_layer_norm"),
            true => ("token_embedding.weight", "positional_embedding", "ln_final"),
        };
        Ok(TextTower {
            token_embedding: scope.matrix(table, &[config.vocab_size, width])?,
            position_embedding: scope.vector(positions, &[config.context_length, width])?,
            layers: names::blocks(scope, &config.text, config.open_clip)?,
            final_layer_norm: LayerNorm::load(&scope.sub(norm), width, config.text.eps)?,
            pooling: config.pooling,
        })
    }

    /// Runs on ids, as many rows of `len` as there are. Padding, which follows the end token, changes nothing that is
    /// pooled; with `attention_mask` (1 for a token, same shape) padded places are not attended to either.
    ///
    /// # Errors
    /// No ids, a text longer than the context, an id beyond the vocabulary, or memory is short.
    pub fn forward(
        &self,
        ids: &[u32],
        len: usize,
        attention_mask: Option<&[u32]>,
        taps: &mut Taps,
    ) -> Result<TextOutput> {
        let device = self.token_embedding.device();
        let _span = device.span(|| "text".into());
        let context = self.position_embedding.shape()[0];
        if len == 0 || ids.is_empty() || !ids.len().is_multiple_of(len) || len > context {
            let why = format!("texts must have 1 to {context} tokens each; got {} ids in rows of {len}", ids.len());
            return Err(Error::Config(why));
        }
        if attention_mask.is_some_and(|m| m.len() != ids.len()) {
            return Err(Error::Config("attention_mask must have the shape of the ids".into()));
        }
        let batch = ids.len() / len;
        let rows = Tensor::from_slice(device, ids, &[batch, len])?;
        let tokens = gather::gather(&self.token_embedding, &rows)?.to_dtype(DType::F32)?;
        taps.add(|| "text.tokens".into(), &tokens);
        let mut x = elementwise::add(&tokens, &self.position_embedding.slice(0, 0..len)?)?;
        taps.add(|| "text.embeddings".into(), &x);
        let bytes: Option<Vec<u8>> = attention_mask.map(|m| m.iter().map(|&v| (v != 0) as u8).collect());
        let padding = bytes.map(|m| Tensor::from_slice(device, &m, &[batch, len])).transpose()?;
        let options = Options { causal: true, key_padding: padding.as_ref(), ..Default::default() };
        for (i, layer) in self.layers.iter().enumerate() {
            let _span = device.span(|| format!("layer {i}"));
            x = layer.forward(&x, &options)?;
            taps.add(|| format!("text.block{i}"), &x);
        }
        let last_hidden_state = self.final_layer_norm.forward(&x, DType::F32)?;
        let pooled: Vec<u32> =
            ids.chunks_exact(len).enumerate().map(|(b, row)| (b * len + self.pooled_place(row)) as u32).collect();
        let flat = last_hidden_state.reshape(&[batch * len, x.shape()[2]])?;
        let pooler_output = gather::gather(&flat, &Tensor::from_slice(device, &pooled, &[batch])?)?;
        Ok(TextOutput { last_hidden_state, pooler_output })
    }

    /// The place of the row that stands for a text; the first place if the end token is missing, as in the reference.
    fn pooled_place(&self, row: &[u32]) -> usize {
        let end = match self.pooling {
            Pooling::LargestId => row.iter().copied().max().unwrap_or(0),
            Pooling::First(id) => id,
        };
        row.iter().position(|&id| id == end).unwrap_or(0)
    }
}
