//! Steps of a decoder that are recorded once and replayed: the host then launches one thing instead of hundreds.

use super::generate::{CausalLm, Prompt};
use super::{Feed, KvCache};
use crate::ops::copy::copy;
use crate::{Recording, Result, Tensor};

/// Runs steps of one token for each sequence; on devices that can, from the second step on by a recording, which serves for as
/// long as the cache's memory stays where it is.
#[derive(Default)]
pub struct Steps {
    feed: Feed,
    /// Of the cache for which the feed was made.
    generation: Option<u64>,
    recorded: Option<(Recording, Tensor)>,
}

impl Steps {
    /// The scores after one more token of each sequence, f32 [batch, vocab_size].
    ///
    /// # Errors
    /// As [`CausalLm::last_logits`].
    pub fn last_logits(&mut self, model: &dyn CausalLm, prompt: &Prompt<'_>, cache: &mut KvCache) -> Result<Tensor> {
        if !model.device().can_record() {
            *self = Steps::default();
            return model.last_logits(prompt, cache);
        }
        cache.reserve(cache.len() + prompt.len)?;
        let generation = Some(cache.generation());
        let seen = self.generation == generation;
        if !seen {
            *self = Steps { generation, ..Steps::default() };
        }
        self.feed.rewind();
        let inputs = model.prepare(prompt, cache, &mut self.feed)?;
        if !seen {
            // What has not run yet may have to be compiled first, which cannot be recorded.
            let logits = model.launch(&inputs, cache)?;
            cache.end(prompt.len);
            return Ok(logits);
        }
        let (recording, logits) = match self.recorded.take() {
            Some(recorded) => recorded,
            None => model.device().record(|| model.launch(&inputs, cache))?,
        };
        recording.replay()?;
        cache.end(prompt.len);
        // The next replay overwrites the result, so that whoever holds one has a copy.
        let copied = copy(&logits)?;
        self.recorded = Some((recording, logits));
        Ok(copied)
    }
}
