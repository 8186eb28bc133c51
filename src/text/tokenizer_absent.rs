//! What tokenising says in a build without the feature `text`.

use super::{Encoding, Padding};
use crate::error::{Error, Result};
use std::path::Path;

/// Text to ids and back; no value of it exists in this build.
#[derive(Clone, Debug)]
pub enum Tokenizer {}

impl Tokenizer {
    /// Fails: this build has no tokenisers.
    pub fn open(_path: impl AsRef<Path>) -> Result<Tokenizer> {
        Err(Error::NotSupported("tokenising text: built without feature `text`; give token ids".into()))
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
}
