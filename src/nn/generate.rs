//! Writing on: prompts in pieces, then a token at a time, greedily, drawn or by beams.

use super::beam::Beams;
use super::recorded::Steps;
use super::sampler::Sampling;
use super::{CacheStep, Feed, KvCache, Rotation};
use crate::ops::argmax::argmax;
use crate::ops::concat::concat;
use crate::ops::reduce;
use crate::{DType, Device, Error, Result, Tensor, no_grad};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What goes into a decoder: ids, or vectors that stand for them (pictures between words).
#[derive(Clone, Copy)]
pub enum Tokens<'a> {
    /// [batch, len]
    Ids(&'a [u32]),
    /// [batch, len, width] f32
    Vectors(&'a Tensor),
}

/// Tokens of a batch of sequences, padded on the left to one length.
#[derive(Clone, Copy)]
pub struct Prompt<'a> {
    pub tokens: Tokens<'a>,
    pub len: usize,
    /// [batch, len]
    pub position_ids: Option<&'a [u32]>,
    /// [batch, len]: 0 for padding.
    pub attention_mask: Option<&'a [u32]>,
}

/// A decoder that predicts the next token.
pub trait CausalLm {
    fn device(&self) -> &Device;
    fn vocab_size(&self) -> usize;
    /// The most tokens of a sequence.
    fn context_length(&self) -> usize;
    /// Bytes of weights that every step reads.
    fn weight_bytes(&self) -> usize;
    /// An empty cache for so many sequences.
    fn new_cache(&self, batch: usize) -> KvCache;
    /// Makes room in the cache, and brings to the device what [`launch`](CausalLm::launch) reads.
    ///
    /// # Errors
    /// A token is not in the vocabulary, a shape does not fit, or memory is short.
    fn prepare(&self, prompt: &Prompt<'_>, cache: &mut KvCache, feed: &mut Feed) -> Result<CallInputs>;
    /// The scores that follow the last of the tokens, f32 [batch, vocab_size], by launches and nothing else; the caller
    /// [ends](KvCache::end) the cache's step.
    ///
    /// # Errors
    /// Memory is short.
    fn launch(&self, inputs: &CallInputs, cache: &mut KvCache) -> Result<Tensor>;
    /// Adds tokens to the cache and gives the scores that follow the last of them, f32 [batch, vocab_size].
    ///
    /// # Errors
    /// A token is not in the vocabulary, a shape does not fit, or memory is short.
    fn last_logits(&self, prompt: &Prompt<'_>, cache: &mut KvCache) -> Result<Tensor> {
        let inputs = self.prepare(prompt, cache, &mut Feed::default())?;
        let logits = self.launch(&inputs, cache)?;
        cache.end(prompt.len);
        Ok(logits)
    }
}

/// What a call of a decoder reads on the device beside weights and the cache.
pub struct CallInputs {
    pub tokens: DeviceTokens,
    pub rotation: Rotation,
    pub step: Option<CacheStep>,
    /// u8 [batch, len], 0 for padding, where there is no cache to keep it.
    pub key_padding: Option<Tensor>,
}

/// [`Tokens`] on the device.
pub enum DeviceTokens {
    /// u32 [batch, len]
    Ids(Tensor),
    /// [batch, len, width] f32
    Vectors(Tensor),
}

/// How to write on.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// The most tokens to add.
    pub max_new_tokens: usize,
    /// Tokens that end a sequence.
    pub eos_ids: Vec<u32>,
    /// What fills a sequence that has ended before others.
    pub pad_id: u32,
    pub sampling: Sampling,
    /// Sequences that are pursued at a time; 1 for no search.
    pub num_beams: usize,
    /// The power of its length by which a beam's score is divided.
    pub length_penalty: f32,
    /// Tokens of a prompt that are taken at a time.
    pub prefill_chunk: usize,
}

impl Default for GenerateOptions {
    fn default() -> GenerateOptions {
        GenerateOptions {
            max_new_tokens: 128,
            eos_ids: Vec::new(),
            pad_id: 0,
            sampling: Sampling::default(),
            num_beams: 1,
            length_penalty: 1.0,
            prefill_chunk: 512,
        }
    }
}

/// A step, as it is told while it happens.
pub struct Step<'a> {
    /// Counts new tokens from 0.
    pub index: usize,
    /// The new token of each sequence; `None` where it has ended before.
    pub ids: &'a [Option<u32>],
    /// The scores that chose them, f32 [batch, vocab_size].
    pub logits: &'a Tensor,
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Generated {
    /// The new tokens of each sequence, with the one that ended it.
    pub ids: Vec<Vec<u32>>,
    /// Tokens of the prompt, of all sequences, padding not counted.
    pub prompt_tokens: usize,
    /// From the beginning to the scores after the prompt.
    pub prefill: Duration,
    /// All steps after that.
    pub decode: Duration,
    /// Forward passes in `decode`.
    pub decode_steps: usize,
    /// The largest size of the cache in bytes.
    pub cache_bytes: usize,
}

impl Generated {
    /// The new ids as rectangle [batch, steps], as long as the longest, filled with `pad`.
    pub fn padded(&self, pad: u32) -> (Vec<u32>, usize) {
        let steps = self.ids.iter().map(Vec::len).max().unwrap_or(0);
        let mut flat = Vec::with_capacity(steps * self.ids.len());
        for row in &self.ids {
            flat.extend_from_slice(row);
            flat.extend(std::iter::repeat_n(pad, steps - row.len()));
        }
        (flat, steps)
    }
}

/// Writes on from a prompt of `batch` sequences. `on_step` hears each new token (with beams: nothing until the end) and
/// may stop the writing.
///
/// # Errors
/// An option is out of range, the prompt is empty or longer than the context, or a step fails; nothing is lost then but
/// the call.
pub fn generate(
    model: &dyn CausalLm,
    prompt: &Prompt<'_>,
    batch: usize,
    options: &GenerateOptions,
    on_step: &mut dyn FnMut(&Step<'_>) -> ControlFlow<()>,
) -> Result<Generated> {
    let _pause = no_grad();
    check(model, prompt, batch, options)?;
    let began = Instant::now();
    let mut cache = model.new_cache(batch);
    let (mask, positions) = places(prompt, batch);
    let logits = prefill(model, prompt, batch, &mask, &positions, options.prefill_chunk, &mut cache)?;
    let mut out = Generated {
        ids: vec![Vec::new(); batch],
        prompt_tokens: mask.iter().filter(|&&m| m != 0).count(),
        prefill: began.elapsed(),
        ..Generated::default()
    };
    let began = Instant::now();
    let room = options.max_new_tokens.min(model.context_length() - prompt.len + 1);
    // The place of the next token in each sequence: what was padding does not count.
    let last = |b: usize| positions[(b + 1) * prompt.len - 1] + 1;
    let next: Vec<u32> = (0..batch).map(last).collect();
    let steps = Steps::default();
    let mut run = Run { model, prompt, options, cache, steps, padded: mask.contains(&0), next, out: &mut out };
    if options.num_beams > 1 {
        run.beams(logits, batch, room)?;
    } else {
        run.tokens(logits, batch, room, on_step)?;
    }
    out.decode = began.elapsed();
    Ok(out)
}

fn check(model: &dyn CausalLm, prompt: &Prompt<'_>, batch: usize, options: &GenerateOptions) -> Result<()> {
    let fail = |why: String| Err(Error::Config(why));
    let GenerateOptions { num_beams, prefill_chunk, max_new_tokens, length_penalty, sampling, .. } = options;
    sampling.check()?;
    if prompt.len == 0 || batch == 0 {
        return fail("the prompt is empty: give at least one token".into());
    }
    if let Tokens::Ids(ids) = prompt.tokens
        && ids.len() != batch * prompt.len
    {
        return fail(format!("{} ids for {batch} prompts of {} tokens", ids.len(), prompt.len));
    }
    for list in [prompt.position_ids, prompt.attention_mask].into_iter().flatten() {
        if list.len() != batch * prompt.len {
            return fail(format!("a mask or positions of {} for {batch} prompts of {}", list.len(), prompt.len));
        }
    }
    if prompt.len > model.context_length() {
        let context = model.context_length();
        return fail(format!("the prompt has {} tokens, the context {context}; shorten it", prompt.len));
    }
    if *prefill_chunk == 0 || *max_new_tokens == 0 || !(1..=64).contains(num_beams) || !length_penalty.is_finite() {
        return fail("prefill_chunk and max_new_tokens start at 1, num_beams goes from 1 to 64".into());
    }
    if *num_beams > 1 && !sampling.is_plain() {
        return fail("beams neither draw tokens nor penalise them: leave the temperature at 0".into());
    }
    Ok(())
}

/// The mask and the positions of a prompt's tokens, [batch, len]: given, or counted from the first real token on.
fn places(prompt: &Prompt<'_>, batch: usize) -> (Vec<u32>, Vec<u32>) {
    let mask = prompt.attention_mask.map_or_else(|| vec![1; batch * prompt.len], <[u32]>::to_vec);
    let positions = prompt.position_ids.map(<[u32]>::to_vec).unwrap_or_else(|| {
        let count = |row: &[u32]| {
            let mut seen = 0u32;
            let place = |&m: &u32| {
                seen += u32::from(m != 0);
                seen.saturating_sub(1)
            };
            row.iter().map(place).collect::<Vec<u32>>()
        };
        mask.chunks_exact(prompt.len).flat_map(count).collect()
    });
    (mask, positions)
}

/// The prompt, some columns at a time; gives the scores after its end.
fn prefill(
    model: &dyn CausalLm,
    prompt: &Prompt<'_>,
    batch: usize,
    mask: &[u32],
    positions: &[u32],
    chunk: usize,
    cache: &mut KvCache,
) -> Result<Tensor> {
    let columns = |all: &[u32], from: usize, to: usize| -> Vec<u32> {
        all.chunks_exact(prompt.len).flat_map(|row| row[from..to].iter().copied()).collect()
    };
    let padded = mask.contains(&0);
    let mut logits = None;
    for from in (0..prompt.len).step_by(chunk) {
        let to = (from + chunk).min(prompt.len);
        let (mask, positions) = (columns(mask, from, to), columns(positions, from, to));
        let (ids, vectors);
        let tokens = match prompt.tokens {
            Tokens::Ids(all) => {
                ids = columns(all, from, to);
                Tokens::Ids(&ids)
            }
            Tokens::Vectors(x) => {
                vectors = x.slice(1, from..to)?;
                Tokens::Vectors(&vectors)
            }
        };
        let attention_mask = padded.then_some(mask.as_slice());
        let part = Prompt { tokens, len: to - from, position_ids: Some(&positions), attention_mask };
        logits = Some(model.last_logits(&part, cache)?);
    }
    logits.ok_or_else(|| Error::Config(format!("no tokens in {batch} prompts")))
}

/// Writing after the prompt.
struct Run<'a> {
    model: &'a dyn CausalLm,
    prompt: &'a Prompt<'a>,
    options: &'a GenerateOptions,
    cache: KvCache,
    steps: Steps,
    padded: bool,
    /// The position of each sequence's next token.
    next: Vec<u32>,
    out: &'a mut Generated,
}

impl Run<'_> {
    fn tokens(
        &mut self,
        mut logits: Tensor,
        batch: usize,
        room: usize,
        on_step: &mut dyn FnMut(&Step<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut ended = vec![false; batch];
        for step in 0..room {
            let chosen = self.choose(&logits, step, &ended)?;
            let ids: Vec<Option<u32>> = chosen.iter().zip(&ended).map(|(&id, &end)| (!end).then_some(id)).collect();
            for (b, id) in ids.iter().enumerate() {
                if let Some(id) = id {
                    self.out.ids[b].push(*id);
                    ended[b] = self.options.eos_ids.contains(id);
                }
            }
            self.out.cache_bytes = self.out.cache_bytes.max(self.cache.bytes());
            let stop = on_step(&Step { index: step, ids: &ids, logits: &logits }).is_break();
            if stop || ended.iter().all(|&e| e) || step + 1 == room {
                break;
            }
            logits = self.advance(&chosen)?;
        }
        Ok(())
    }

    fn choose(&self, logits: &Tensor, step: usize, ended: &[bool]) -> Result<Vec<u32>> {
        let (sampling, vocabulary) = (&self.options.sampling, self.model.vocab_size());
        let mut chosen = if sampling.is_plain() {
            greedy(logits)?
        } else {
            let mut scores = logits.to_vec::<f32>()?;
            let rows = scores.chunks_exact_mut(vocabulary).enumerate();
            let draw = |(b, row): (usize, &mut [f32])| sampling.choose(row, &self.seen(b), b, step);
            rows.map(draw).collect::<Result<Vec<u32>>>()?
        };
        for (id, _) in chosen.iter_mut().zip(ended).filter(|(_, ended)| **ended) {
            *id = self.options.pad_id;
        }
        Ok(chosen)
    }

    /// The tokens of a sequence so far, for penalties.
    fn seen(&self, b: usize) -> Vec<u32> {
        let mut seen = Vec::new();
        if let Tokens::Ids(ids) = self.prompt.tokens {
            let row = b * self.prompt.len..(b + 1) * self.prompt.len;
            let real = |&i: &usize| self.prompt.attention_mask.is_none_or(|m| m[i] != 0);
            seen.extend(row.filter(real).map(|i| ids[i]));
        }
        seen.extend_from_slice(&self.out.ids[b]);
        seen
    }

    /// One more token for each sequence.
    fn advance(&mut self, ids: &[u32]) -> Result<Tensor> {
        let ones = vec![1; ids.len()];
        let prompt = Prompt {
            tokens: Tokens::Ids(ids),
            len: 1,
            position_ids: Some(&self.next),
            attention_mask: self.padded.then_some(ones.as_slice()),
        };
        let logits = self.steps.last_logits(self.model, &prompt, &mut self.cache)?;
        self.next.iter_mut().for_each(|p| *p += 1);
        self.out.decode_steps += 1;
        Ok(logits)
    }

    fn beams(&mut self, logits: Tensor, batch: usize, room: usize) -> Result<()> {
        let width = self.options.num_beams;
        let mut search = Beams::new(batch, width, &self.options.eos_ids, self.options.length_penalty);
        // All beams of a sequence begin as the same prompt.
        let copies: Vec<usize> = (0..batch * width).map(|i| i / width).collect();
        self.cache.reorder(&copies)?;
        self.next = copies.iter().map(|&b| self.next[b]).collect();
        let vocabulary = self.model.vocab_size();
        let first = logits.to_vec::<f32>()?;
        let mut scores: Vec<f32> =
            copies.iter().flat_map(|&b| first[b * vocabulary..(b + 1) * vocabulary].iter().copied()).collect();
        for step in 0..room {
            let moves = search.step(&mut scores, vocabulary, self.options.pad_id)?;
            self.out.cache_bytes = self.out.cache_bytes.max(self.cache.bytes());
            if search.done() || step + 1 == room {
                break;
            }
            self.cache.reorder(&moves.from)?;
            self.next = moves.from.iter().map(|&i| self.next[i]).collect();
            scores = self.advance(&moves.ids)?.to_vec::<f32>()?;
        }
        self.out.ids = search.best();
        Ok(())
    }
}

/// The highest of each sequence's scores, in one read: on a GPU a read is what a step waits for.
fn greedy(logits: &Tensor) -> Result<Vec<u32>> {
    let largest = reduce::max(logits, logits.shape().len() - 1)?;
    // Numbers of a vocabulary are exact in f32 up to 2^24.
    let ids = argmax(logits)?.reshape(largest.shape())?.to_dtype(DType::F32)?;
    let both = concat(&[&largest, &ids], 0)?.to_vec::<f32>()?;
    let (largest, ids) = both.split_at(both.len() / 2);
    // A choice among scores that are no numbers would go unseen.
    match largest.iter().position(|x| !x.is_finite()) {
        None => Ok(ids.iter().map(|&id| id as u32).collect()),
        Some(row) => Err(Error::Config(format!(
            "the scores of sequence {row} have a largest value of {}: the weights or the input are broken",
            largest[row]
        ))),
    }
}
