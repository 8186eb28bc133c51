//! Llama: a decoder of text, and the trunk of LLaVA, MiniGPT-4, CogVLM, LWM and AnyGPT.
//!
//! Papers: arXiv 2302.13971, 2307.09288 (Llama 2), 2407.21783 (Llama 3). Layout of checkpoints: `LlamaForCausalLM` of
//! transformers (meta-llama/Llama-2-7b-hf), either generation of `config.json`; GGUF files of architecture `llama`.

mod config;

pub use config::LlamaConfig;

use crate::nn::{
    CallInputs, CausalLm, DecoderBlock, DeviceTokens, Embedding, Feed, Keys, KvCache, Linear, Prompt, RmsNorm,
    Rotation, Scope, Taps, Tokens,
};
use crate::ops::cross_entropy;
use crate::ops::recomputed;
use crate::ops::rope::Pairs;
use crate::{DType, Device, Error, Result, Tensor};
use serde_json::Value;
use std::sync::Arc;

/// The model.
pub struct Llama {
    config: LlamaConfig,
    embed_tokens: Embedding,
    layers: Vec<Arc<DecoderBlock>>,
    norm: RmsNorm,
    lm_head: Linear,
    /// What frequencies are divided by, if anything.
    rope_factors: Option<Vec<f32>>,
    compute: DType,
}

/// What a forward pass may be told.
#[derive(Default)]
pub struct Call<'a> {
    /// [batch, len]; 0, 1, … from the cache's length on if not given.
    pub position_ids: Option<&'a [u32]>,
    /// [batch, len] of this call's tokens: 0 for padding.
    pub attention_mask: Option<&'a [u32]>,
    /// Keys and values of earlier calls, to which this one's are added.
    pub cache: Option<&'a mut KvCache>,
    /// Logits are wanted of so many last places only.
    pub last: Option<usize>,
    /// In training: the tape keeps what goes into a block only, and computes the block again on the way back.
    pub recompute: bool,
}

impl Llama {
    /// From a checkpoint and its `config.json`.
    ///
    /// # Errors
    /// A configuration or a tensor is wrong or missing, or memory is short.
    pub fn load(scope: &Scope, config: &Value) -> Result<Llama> {
        let config = LlamaConfig::from_json(config)?;
        let model = scope.sub("model");
        let c = &config.block;
        let embed_tokens = Embedding::load(&model.sub("embed_tokens"), config.vocab_size, c.width)?;
        // Some exports have both although they are tied.
        let head = match scope.contains("lm_head.weight") && !config.tie_word_embeddings {
            true => scope.sub("lm_head"),
            false => model.sub("embed_tokens"),
        };
        let rope_factors = match &config.rope_factors {
            Some(name) => Some(scope.vector(name, &[c.head_dim / 2])?.to_vec::<f32>()?),
            None => None,
        };
        Ok(Llama {
            rope_factors,
            layers: (0..config.num_hidden_layers)
                .map(|i| DecoderBlock::load(&model.at("layers", i), c).map(Arc::new))
                .collect::<Result<_>>()?,
            norm: RmsNorm::load(&model.sub("norm"), c.width, c.eps)?,
            lm_head: Linear::load(&head, c.width, config.vocab_size, false)?,
            compute: scope.precision().compute,
            embed_tokens,
            config,
        })
    }

    /// The sizes.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Token vectors of rows of `len` ids, [rows, len, width].
    ///
    /// # Errors
    /// No ids, or one that is not in the vocabulary.
    pub fn embed(&self, ids: &[u32], len: usize) -> Result<Tensor> {
        self.embed_tokens.forward(&self.embed_tokens.ids(ids, len, &mut Feed::default())?)
    }

    /// Hidden states after the last norm, [batch, len, width], of token vectors `x` of that shape.
    ///
    /// # Errors
    /// A shape does not fit, or memory is short.
    pub fn hidden(&self, x: &Tensor, call: &mut Call<'_>, taps: &mut Taps) -> Result<Tensor> {
        let inputs = self.inputs(DeviceTokens::Vectors(x.clone()), call, &mut Feed::default())?;
        let hidden = self.blocks(&inputs, call, taps)?;
        if let Some(cache) = &mut call.cache {
            cache.end(x.shape()[1]);
        }
        Ok(hidden)
    }

    /// Brings to the device what [`blocks`](Llama::blocks) reads.
    fn inputs(&self, tokens: DeviceTokens, call: &mut Call<'_>, feed: &mut Feed) -> Result<CallInputs> {
        let (device, batch, len) = match &tokens {
            DeviceTokens::Ids(ids) => (ids.device().clone(), ids.shape()[0], ids.shape()[1]),
            DeviceTokens::Vectors(x) => match *x.shape() {
                [batch, len, _] => (x.device().clone(), batch, len),
                _ => return Err(Error::Config(format!("token vectors must be [batch, len, width], got {x}"))),
            },
        };
        let rotation = self.rotation(&device, batch, len, call, feed)?;
        let mut padding = |mask: &[u32]| {
            let bytes: Vec<u8> = mask.iter().map(|&m| u8::from(m != 0)).collect();
            feed.put(&device, &bytes, &[batch, len])
        };
        let (step, key_padding) = match &mut call.cache {
            None => (None, call.attention_mask.filter(|m| m.contains(&0)).map(&mut padding).transpose()?),
            Some(cache) => (Some(cache.begin(len, call.attention_mask, feed)?), None),
        };
        Ok(CallInputs { tokens, rotation, step, key_padding })
    }

    /// Hidden states after the last norm, by launches and nothing else.
    fn blocks(&self, inputs: &CallInputs, call: &mut Call<'_>, taps: &mut Taps) -> Result<Tensor> {
        let CallInputs { tokens, rotation, step, key_padding } = inputs;
        let mut x = match tokens {
            DeviceTokens::Ids(ids) => self.embed_tokens.forward(ids)?,
            DeviceTokens::Vectors(x) => x.clone(),
        };
        let (device, len) = (&x.device().clone(), x.shape()[1]);
        let _span = device.span(|| "llama".into());
        for (i, layer) in self.layers.iter().enumerate() {
            let _span = device.span(|| format!("layer {i}"));
            let mut keys = match (&mut call.cache, step) {
                (Some(cache), Some(step)) => Keys::Cached { cache, layer: i, step },
                _ => Keys::Own { key_padding: key_padding.as_ref() },
            };
            x = if call.recompute && step.is_none() {
                recomputed_block(layer, rotation, key_padding.as_ref(), &x)?
            } else if taps.listens() {
                let tap = &mut |t: &Tensor| taps.add(|| format!("block{i}.attn"), t);
                layer.forward(&x, rotation, &mut keys, Some(tap))?
            } else {
                layer.forward(&x, rotation, &mut keys, None)?
            };
            taps.add(|| format!("block{i}"), &x);
        }
        let x = match call.last {
            Some(last) if last < len => x.slice(1, len - last..len)?.contiguous()?,
            _ => x,
        };
        let x = self.norm.forward(&x, DType::F32)?;
        taps.add(|| "norm".into(), &x);
        Ok(x)
    }

    /// Scores of the vocabulary, f32 [.., vocab_size], from hidden states after the last norm.
    ///
    /// # Errors
    /// The shape does not fit.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let _span = hidden.device().span(|| "lm_head".into());
        self.lm_head.forward(hidden)
    }

    /// Logits [batch, len or `last`, vocab_size] of rows of `len` ids.
    ///
    /// # Errors
    /// No ids, one that is not in the vocabulary, masks or positions of another shape, or memory is short.
    pub fn forward(&self, ids: &[u32], len: usize, call: &mut Call<'_>, taps: &mut Taps) -> Result<Tensor> {
        let x = self.embed(ids, len)?;
        taps.add(|| "embed".into(), &x);
        let hidden = self.hidden(&x, call, taps)?;
        self.logits(&hidden)
    }

    /// The mean cross-entropy of the next tokens, [1], and the logits [batch, len, vocab_size]. `labels` [batch, len] stand
    /// beside the tokens themselves (the logits at place t are held against the label at t + 1); -100 is not counted.
    ///
    /// # Errors
    /// As [`forward`](Llama::forward); or there is no label to count, or one beyond the vocabulary.
    pub fn loss(&self, ids: &[u32], labels: &[i32], len: usize, call: &mut Call<'_>) -> Result<(Tensor, Tensor)> {
        if labels.len() != ids.len() || len < 2 {
            let (have, want) = (labels.len(), ids.len());
            return Err(Error::Config(format!(
                "{have} labels for {want} tokens in rows of {len}; rows need two or more"
            )));
        }
        let logits = self.forward(ids, len, call, &mut Taps::none())?;
        // The last place has nothing to predict: instead of cutting the logits, its label is left out.
        let mut shifted = vec![-100; labels.len()];
        for (to, row) in shifted.chunks_exact_mut(len).zip(labels.chunks_exact(len)) {
            to[..len - 1].copy_from_slice(&row[1..]);
        }
        let labels = Tensor::from_slice(logits.device(), &shifted, &[shifted.len()])?;
        let rows = logits.reshape(&[shifted.len(), self.config.vocab_size])?;
        Ok((cross_entropy::mean_loss(&rows, &labels, &Default::default())?, logits))
    }

    /// Positions, frequencies and the way to turn, for `len` tokens of each sequence.
    fn rotation(
        &self,
        device: &Device,
        batch: usize,
        len: usize,
        call: &Call<'_>,
        feed: &mut Feed,
    ) -> Result<Rotation> {
        let past = call.cache.as_ref().map_or(0, |c| c.len());
        let positions = match call.position_ids {
            Some(ids) if ids.len() == batch * len => feed.put(device, ids, &[batch, len])?,
            Some(ids) => {
                let have = ids.len();
                return Err(Error::Config(format!("{have} position_ids for {batch} sequences of {len} tokens")));
            }
            None => {
                let counted: Vec<u32> = (past..past + len).map(|p| p as u32).collect();
                feed.put(device, &counted, &[1, len])?
            }
        };
        let longest = match call.position_ids {
            Some(ids) => ids.iter().max().map_or(0, |&p| p as usize + 1),
            None => past + len,
        };
        let c = &self.config;
        let (mut frequencies, factor) = c.rope.inv_freq(longest)?;
        if let Some(factors) = &self.rope_factors {
            frequencies.iter_mut().zip(factors).for_each(|(f, by)| *f /= by);
        }
        let pairs = if c.rope_interleaved { Pairs::Interleaved } else { Pairs::Halves };
        Ok(Rotation { positions, inv_freq: feed.put(device, &frequencies, &[frequencies.len()])?, pairs, factor })
    }
}

/// A block of which the tape keeps the input only.
fn recomputed_block(
    layer: &Arc<DecoderBlock>,
    rotation: &Rotation,
    key_padding: Option<&Tensor>,
    x: &Tensor,
) -> Result<Tensor> {
    let (layer, rotation, padding) = (layer.clone(), rotation.clone(), key_padding.cloned());
    let results = recomputed(&[x], move |inputs| {
        let mut keys = Keys::Own { key_padding: padding.as_ref() };
        Ok(vec![layer.forward(&inputs[0], &rotation, &mut keys, None)?])
    })?;
    results.into_iter().next().ok_or_else(|| Error::Config("a block gave no result".into()))
}

impl CausalLm for Llama {
    fn device(&self) -> &Device {
        self.embed_tokens.device()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn context_length(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn weight_bytes(&self) -> usize {
        self.layers.iter().map(|l| l.weight_bytes()).sum::<usize>() + self.lm_head.weight_bytes()
    }

    fn new_cache(&self, batch: usize) -> KvCache {
        let c = &self.config.block;
        KvCache::new(self.device(), self.layers.len(), batch, c.heads_kv, c.head_dim, self.compute)
    }

    fn prepare(&self, prompt: &Prompt<'_>, cache: &mut KvCache, feed: &mut Feed) -> Result<CallInputs> {
        let Prompt { tokens, len, position_ids, attention_mask } = *prompt;
        let tokens = match tokens {
            Tokens::Ids(ids) => DeviceTokens::Ids(self.embed_tokens.ids(ids, len, feed)?),
            Tokens::Vectors(x) => DeviceTokens::Vectors(x.clone()),
        };
        self.inputs(tokens, &mut Call { position_ids, attention_mask, cache: Some(cache), ..Call::default() }, feed)
    }

    fn launch(&self, inputs: &CallInputs, cache: &mut KvCache) -> Result<Tensor> {
        let mut call = Call { cache: Some(cache), last: Some(1), ..Call::default() };
        let hidden = self.blocks(inputs, &mut call, &mut Taps::none())?;
        let logits = self.logits(&hidden)?;
        logits.reshape(&[logits.shape()[0], self.config.vocab_size])
    }
}
