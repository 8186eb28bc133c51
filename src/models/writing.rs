//! Text in, text out: a tokenizer and a decoder together.

use crate::nn::{CausalLm, GenerateOptions, Generated, Prompt, Tokens, generate};
use crate::text::{StopStrings, Tokenizer};
use crate::{Error, Result};
use std::ops::ControlFlow;

/// Why the writing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The model gave a token that ends a text.
    Token,
    /// One of the strings to stop at came.
    StopString,
    /// So many tokens were asked for, or the context is full.
    Length,
    /// Whoever listened had enough.
    Listener,
}

impl End {
    /// As APIs name it.
    pub fn name(self) -> &'static str {
        match self {
            End::Token => "eos",
            End::StopString => "stop_string",
            End::Length => "length",
            End::Listener => "cancelled",
        }
    }
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The new text, without special tokens and without what it stopped at.
    pub text: String,
    pub end: End,
    pub generated: Generated,
}

/// Writes on from the ids of one prompt. `on_text` hears pieces of text as they become certain, and may stop the writing.
///
/// # Errors
/// As [`generate`].
pub fn write(
    model: &dyn CausalLm,
    tokenizer: &Tokenizer,
    ids: &[u32],
    options: &GenerateOptions,
    stops: &[String],
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Written> {
    let mut stream = tokenizer.stream(true);
    let mut stops = StopStrings::new(stops.iter().cloned());
    let (mut text, mut cancelled, mut broken) = (String::new(), false, None);
    let mut show = |piece: String, text: &mut String| {
        text.push_str(&piece);
        if !piece.is_empty() && on_text(&piece).is_break() {
            cancelled = true;
        }
    };
    let prompt = Prompt { tokens: Tokens::Ids(ids), len: ids.len(), position_ids: None, attention_mask: None };
    let generated = generate(model, &prompt, 1, options, &mut |step| {
        let Some(id) = step.ids[0] else { return ControlFlow::Break(()) };
        match stream.push(id) {
            Ok(piece) => {
                show(stops.push(&piece), &mut text);
                if stops.found() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
            Err(e) => {
                broken = Some(e);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(e) = broken {
        return Err(e);
    }
    if options.num_beams > 1 {
        // Beams are known at the end only.
        for &id in &generated.ids[0] {
            let piece = stream.push(id)?;
            show(stops.push(&piece), &mut text);
        }
    }
    let rest = stops.push(&stream.finish()) + &stops.finish();
    show(rest, &mut text);
    let last = generated.ids[0].last();
    let end = match last {
        _ if stops.found() => End::StopString,
        Some(id) if options.eos_ids.contains(id) => End::Token,
        _ if cancelled => End::Listener,
        _ => End::Length,
    };
    Ok(Written { text, end, generated })
}

/// What ends a text: the tokenizer's ids and the model's.
pub fn end_ids(tokenizer: &Tokenizer, model: &[u32]) -> Vec<u32> {
    let mut ids = [tokenizer.end_ids(), model].concat();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The ids of a text, or an error that says it has none.
///
/// # Errors
/// The text gives no token, or cannot be encoded.
pub fn encode(tokenizer: &Tokenizer, text: &str, add_special: bool) -> Result<Vec<u32>> {
    let ids = tokenizer.encode(text, add_special)?;
    match ids.is_empty() {
        true => Err(Error::Config("the prompt is empty: give at least one token".into())),
        false => Ok(ids),
    }
}
