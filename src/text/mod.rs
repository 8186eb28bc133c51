//! Text as models see it: ids in, ids out.
//!
//! Models take and give token ids and never need a tokeniser. [`Tokenizer`] turns text into ids and back by a
//! checkpoint's `tokenizer.json` or a [`Vocab`], [`Stream`] gives the text of ids that come one by one, [`ChatTemplate`]
//! makes one text of a conversation; they work with the feature `text` only, and say so without it. [`Encoding`] makes a
//! rectangle of rows of different lengths.

#[cfg(not(feature = "text"))]
mod absent;
#[cfg(feature = "text")]
mod beside;
#[cfg(feature = "text")]
mod build;
#[cfg(feature = "text")]
mod chat;
#[cfg(feature = "text")]
mod python;
mod stop;
#[cfg(feature = "text")]
mod stream;
#[cfg(feature = "text")]
mod tokenizer;
mod vocab;

#[cfg(not(feature = "text"))]
pub use absent::{ChatTemplate, Stream, Tokenizer};
pub use stop::StopStrings;
pub use vocab::{TokenKind, Vocab};
#[cfg(feature = "text")]
pub use {chat::ChatTemplate, stream::Stream, tokenizer::Tokenizer};

use crate::error::{Error, Result};

/// What somebody says in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who: `system`, `user` or `assistant`.
    pub role: String,
    /// What.
    pub content: String,
}

impl Message {
    /// What somebody says.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// How long the rows of a batch become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// As long as the longest of them.
    Longest,
    /// This long; a longer row is an error.
    Length(usize),
}

/// A batch of token rows of one length, padded on the right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The ids, `[rows, length]`.
    pub ids: Vec<u32>,
    /// One for a token, zero for padding, `[rows, length]`.
    pub attention_mask: Vec<u32>,
    /// `[rows, length]`.
    pub shape: [usize; 2],
}

impl Encoding {
    /// Makes rows equally long. Fails where a row is longer than a wanted length, and where padding is needed and
    /// `pad_id` is `None`.
    pub fn padded(rows: &[Vec<u32>], padding: Padding, pad_id: Option<u32>) -> Result<Encoding> {
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let length = match padding {
            Padding::Longest => longest,
            Padding::Length(length) if longest <= length => length,
            Padding::Length(length) => {
                return Err(Error::Media(format!(
                    "a text has {longest} tokens where {length} are the most; shorten it"
                )));
            }
        };
        let missing = || Error::Media("texts of different lengths need padding, and no padding token is known".into());
        let (mut ids, mut attention_mask) = (Vec::new(), Vec::new());
        for (i, row) in rows.iter().enumerate() {
            let end = (i + 1) * length;
            ids.extend_from_slice(row);
            attention_mask.resize(ids.len(), 1);
            if ids.len() < end {
                ids.resize(end, pad_id.ok_or_else(missing)?);
                attention_mask.resize(end, 0);
            }
        }
        Ok(Encoding { ids, attention_mask, shape: [rows.len(), length] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_a_rectangle() {
        let rows = [vec![5, 6, 7], vec![8]];
        let batch = Encoding::padded(&rows, Padding::Longest, Some(9)).unwrap();
        assert_eq!((batch.ids, batch.shape), (vec![5, 6, 7, 8, 9, 9], [2, 3]));
        assert_eq!(batch.attention_mask, [1, 1, 1, 1, 0, 0]);
        assert_eq!(Encoding::padded(&rows, Padding::Length(4), Some(0)).unwrap().ids, [5, 6, 7, 0, 8, 0, 0, 0]);
        assert!(Encoding::padded(&rows, Padding::Length(2), Some(0)).is_err());
        assert!(Encoding::padded(&rows, Padding::Longest, None).is_err());
        assert!(Encoding::padded(&rows[..1], Padding::Longest, None).is_ok());
        assert_eq!(Encoding::padded(&[], Padding::Longest, None).unwrap().shape, [0, 0]);
    }
}
