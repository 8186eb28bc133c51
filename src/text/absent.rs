//! What tokenising says in a build without the feature `text`.

use super::{Encoding, Message, Padding, Vocab};
use crate::error::{Error, Result};
use std::path::Path;

/// Text to ids and back; no value of it exists in this build.
#[derive(Clone, Debug)]
pub enum Tokenizer {}

fn absent<T>() -> Result<T> {
    Err(Error::NotSupported("tokenising text: built without feature `text`; give token ids".into()))
}

impl Tokenizer {
    /// Fails: this build has no tokenisers.
    pub fn open(_path: impl AsRef<Path>) -> Result<Tokenizer> {
        absent()
    }

    /// Fails: this build has no tokenisers.
    pub fn from_vocab(_path: impl AsRef<Path>, _vocab: &Vocab) -> Result<Tokenizer> {
        absent()
    }

    /// Sets the most tokens of a row.
    pub fn with_max_length(self, _max_length: usize) -> Tokenizer {
        self
    }

    /// The most tokens of a row.
    pub fn max_length(&self) -> Option<usize> {
        match *self {}
    }

    /// The id that fills short rows.
    pub fn pad_id(&self) -> Option<u32> {
        match *self {}
    }

    /// The id before a text.
    pub fn bos_id(&self) -> Option<u32> {
        match *self {}
    }

    /// The id after a text.
    pub fn eos_id(&self) -> Option<u32> {
        match *self {}
    }

    /// All ids that end what a model says.
    pub fn end_ids(&self) -> &[u32] {
        match *self {}
    }

    /// The text of an id as the vocabulary writes it.
    pub fn token_text(&self, _id: u32) -> Option<String> {
        match *self {}
    }

    /// The id of a token.
    pub fn token_id(&self, _token: &str) -> Option<u32> {
        match *self {}
    }

    /// A text's ids.
    pub fn encode(&self, _text: &str, _add_special: bool) -> Result<Vec<u32>> {
        match *self {}
    }

    /// A batch's ids.
    pub fn encode_batch<T: AsRef<str>>(&self, _texts: &[T], _padding: Padding) -> Result<Encoding> {
        match *self {}
    }

    /// The text of ids.
    pub fn decode(&self, _ids: &[u32], _skip_special: bool) -> Result<String> {
        match *self {}
    }

    /// The text of ids that come one by one.
    pub fn stream(&self, _skip_special: bool) -> Stream<'_> {
        match *self {}
    }
}

/// Text from ids that come one by one; no value of it exists in this build.
pub struct Stream<'a>(&'a Tokenizer);

impl Stream<'_> {
    /// The text that an id adds.
    pub fn push(&mut self, _id: u32) -> Result<String> {
        match *self.0 {}
    }

    /// What is held back at the end.
    pub fn finish(&mut self) -> String {
        match *self.0 {}
    }
}

/// One text of a conversation; no value of it exists in this build.
#[derive(Clone, Debug)]
pub enum ChatTemplate {}

impl ChatTemplate {
    /// Fails: this build has no templates.
    pub fn new(_origin: impl Into<String>, _source: &str) -> Result<ChatTemplate> {
        absent()
    }

    /// Fails: this build has no templates.
    pub fn open(_path: impl AsRef<Path>) -> Result<Option<ChatTemplate>> {
        absent()
    }

    /// Fails: this build has no templates.
    pub fn built_in(_name: &str) -> Result<ChatTemplate> {
        absent()
    }

    /// Sets begin and end tokens.
    pub fn with_tokens(self, _tokenizer: &Tokenizer) -> ChatTemplate {
        match self {}
    }

    /// The template itself.
    pub fn source(&self) -> &str {
        match *self {}
    }

    /// The text of a conversation.
    pub fn render(&self, _messages: &[Message], _add_generation_prompt: bool) -> Result<String> {
        match *self {}
    }
}
