//! Text from ids that come one by one.

use super::Tokenizer;
use crate::error::Result;
use serde_json::Value;

/// How the tokens of a vocabulary become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pieces {
    /// Each character stands for a byte, in GPT-2's way.
    Bytes,
    /// SentencePiece: `▁` is a blank and `<0x0A>` a byte; so many blanks at the start of the text are dropped.
    Sentence { strip: usize },
    /// Only the tokeniser's decoder knows; every token is whole characters.
    Whole,
}

impl Pieces {
    /// By a decoder, as its tokeniser's file writes it.
    pub(super) fn of(decoder: &Value) -> Pieces {
        let kind = |step: &Value| step["type"].as_str().unwrap_or_default().to_string();
        if kind(decoder) == "ByteLevel" {
            return Pieces::Bytes;
        }
        let Some(steps) = decoder["decoders"].as_array() else { return Pieces::Whole };
        let kinds: Vec<String> = steps.iter().map(kind).collect();
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        let strip = match kinds.as_slice() {
            ["Replace", "ByteFallback", "Fuse"] => Some(0),
            ["Replace", "ByteFallback", "Fuse", "Strip"] => {
                let simple = steps[3]["content"] == " " && steps[3]["stop"] == 0;
                steps[3]["start"].as_u64().filter(|_| simple)
            }
            _ => None,
        };
        let blanks = |step: &Value| step["pattern"]["String"] == "▁" && step["content"] == " ";
        match strip.filter(|_| blanks(&steps[0])) {
            Some(strip) => Pieces::Sentence { strip: strip as usize },
            None => Pieces::Whole,
        }
    }

    /// The bytes of a token.
    fn bytes(self, token: &str) -> Vec<u8> {
        if self == Pieces::Bytes {
            // An added token is written as it is; one that could be read in both ways means bytes.
            let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
            return bytes.unwrap_or_else(|| token.as_bytes().to_vec());
        }
        let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|hex| hex.len() == 2);
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => vec![byte],
            None => token.replace('▁', " ").into_bytes(),
        }
    }
}

/// The byte that a character of a byte-level vocabulary stands for: printable ones for themselves, and the others, in
/// order, for characters from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    Some(match u32::from(c) {
        code @ (33..=126 | 161..=172 | 174..=255) => code as u8,
        code @ 256..=288 => (code - 256) as u8,
        code @ 289..=322 => (code - 289 + 127) as u8,
        323 => 173,
        _ => return None,
    })
}

/// Turns ids into text one by one: the pieces joined are what [`Tokenizer::decode`] makes of all ids. A piece is held
/// back while it ends within a character. An id costs time for its own text only, however many came before.
///
/// (Where bytes are no UTF-8, each wrong sequence becomes one U+FFFD here; some decoders write one for every byte of
/// the run that it stands in.)
pub struct Stream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// Bytes of a character that is not complete.
    held: Vec<u8>,
    /// Blanks that are dropped if the text begins with them.
    strip: usize,
    /// The id before, for [`Pieces::Whole`].
    last: Option<u32>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Stream<'a> {
        let strip = if let Pieces::Sentence { strip } = tokenizer.pieces { strip } else { 0 };
        Stream { tokenizer, skip_special, held: Vec::new(), strip, last: None }
    }

    /// The text that an id adds; empty for a special token that is skipped, and for a part of a character.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let Some(token) = self.tokenizer.token(id, self.skip_special) else { return Ok(String::new()) };
        match self.tokenizer.pieces {
            Pieces::Whole => self.push_whole(id),
            pieces => {
                let mut bytes = pieces.bytes(&token);
                if self.strip > 0 {
                    let blanks = bytes.iter().take(self.strip).take_while(|&&b| b == b' ').count();
                    bytes.drain(..blanks);
                    self.strip = if bytes.is_empty() { self.strip - blanks } else { 0 };
                }
                self.held.extend(bytes);
                Ok(self.complete())
            }
        }
    }

    /// What is held back at the end: nothing, or U+FFFD for a character that stayed incomplete.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        rest
    }

    fn push_whole(&mut self, id: u32) -> Result<String> {
        let last: Vec<u32> = self.last.replace(id).into_iter().collect();
        let before = self.tokenizer.decode(&last, self.skip_special)?;
        let both = self.tokenizer.decode(&[last, vec![id]].concat(), self.skip_special)?;
        match both.strip_prefix(&before) {
            Some(new) => Ok(new.to_string()),
            None => self.tokenizer.decode(&[id], self.skip_special),
        }
    }

    /// Takes all complete characters out of what is held.
    fn complete(&mut self) -> String {
        let (mut text, mut at) = (String::new(), 0);
        while at < self.held.len() {
            let rest = &self.held[at..];
            let (valid, wrong) = match str::from_utf8(rest) {
                Ok(_) => (rest.len(), None),
                Err(e) => (e.valid_up_to(), Some(e.error_len())),
            };
            text.push_str(&String::from_utf8_lossy(&rest[..valid]));
            at += valid;
            match wrong {
                Some(Some(length)) => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    at += length;
                }
                Some(None) => break,
                None => {}
            }
        }
        self.held.drain(..at);
        text
    }
}
