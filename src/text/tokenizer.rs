//! Text to ids and back by a checkpoint's `tokenizer.json`, or by a vocabulary from elsewhere.

use super::beside::Beside;
use super::stream::{Pieces, Stream};
use super::{Encoding, Padding, Vocab, build};
use crate::error::{Error, Result};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use tokenizers::{DecoderWrapper, ModelWrapper};

/// A checkpoint's tokeniser.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    pub(super) pieces: Pieces,
    bos_id: Option<u32>,
    eos_id: Option<u32>,
    end_ids: Vec<u32>,
    pad_id: Option<u32>,
    max_length: Option<usize>,
    /// What the vocabulary puts at the end of a word, where the decoder in the file leaves it standing (CLIP).
    word_end: Option<String>,
    /// Whether a text that is too long loses its beginning, not its end.
    cut_left: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, from its own path or its folder, and from the files beside it, as far as there are any:
    /// the padding token, the longest row (`model_max_length`) and the side to cut from `tokenizer_config.json`; begin and
    /// end tokens from there, `special_tokens_map.json`, `generation_config.json` or `config.json`. Fails where a file
    /// cannot be read or is not what it should be.
    ///
    /// The vocabulary of a GGUF file comes with its metadata: see [`models::tokenizer`](crate::models::tokenizer).
    pub fn open(path: impl AsRef<Path>) -> Result<Tokenizer> {
        let path = path.as_ref();
        let path = if path.is_dir() {
            let inside = path.join("tokenizer.json");
            if !inside.exists() {
                let why = "holds no tokenizer.json; SentencePiece and tiktoken files must be converted to one";
                return Err(Error::file(path, why));
            }
            inside
        } else {
            path.to_path_buf()
        };
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        // Merges that contradict the vocabulary make it panic.
        let inner = catch_unwind(|| tokenizers::Tokenizer::from_bytes(bytes));
        let inner = inner.unwrap_or_else(|_| Err("its merges do not fit its vocabulary".into()));
        let mut inner = inner.map_err(|e| Error::file(&path, format!("no tokeniser: {e}")))?;
        // Cutting and padding happen here, not within `encode`, which must give all of a text.
        let own_padding = inner.get_padding().map(|padding| padding.pad_id);
        let own_length = inner.get_truncation().map(|truncation| truncation.max_length);
        inner.with_padding(None).with_truncation(None).map_err(|e| Error::file(&path, e.to_string()))?;
        let mut tokenizer = Tokenizer::new(inner, &path);
        (tokenizer.pad_id, tokenizer.max_length) = (own_padding, own_length);
        tokenizer.configure()?;
        Ok(tokenizer)
    }

    /// A tokeniser of a vocabulary; `path` is the file that it came from, for messages. Fails where the vocabulary
    /// contradicts itself, or is of a kind that is not known.
    pub fn from_vocab(path: impl AsRef<Path>, vocab: &Vocab) -> Result<Tokenizer> {
        let path = path.as_ref();
        let mut tokenizer = Tokenizer::new(build::build(path, vocab)?, path);
        (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) = (vocab.bos_id, vocab.eos_id, vocab.pad_id);
        vocab.eos_id.iter().chain(&vocab.other_end_ids).for_each(|&id| tokenizer.add_end(id));
        Ok(tokenizer)
    }

    fn new(inner: tokenizers::Tokenizer, path: &Path) -> Tokenizer {
        let word_end = match (inner.get_model(), inner.get_decoder()) {
            (ModelWrapper::BPE(model), Some(DecoderWrapper::ByteLevel(_))) => model.end_of_word_suffix.clone(),
            _ => None,
        };
        let word_end = word_end.filter(|end| !end.is_empty());
        let decoder = inner.get_decoder().and_then(|decoder| serde_json::to_value(decoder).ok()).unwrap_or_default();
        let pieces = if word_end.is_some() { Pieces::Whole } else { Pieces::of(&decoder) };
        Tokenizer {
            inner,
            path: path.to_path_buf(),
            pieces,
            bos_id: None,
            eos_id: None,
            end_ids: Vec::new(),
            pad_id: None,
            max_length: None,
            word_end,
            cut_left: false,
        }
    }

    /// Reads what stands beside the tokeniser's file.
    fn configure(&mut self) -> Result<()> {
        let config = Beside::open(&self.path, "tokenizer_config.json")?;
        let map = Beside::open(&self.path, "special_tokens_map.json")?;
        let token = |key: &str| -> Result<Option<u32>> {
            let text = config.token(key)?.or(map.token(key)?);
            Ok(text.and_then(|text| self.inner.token_to_id(&text)))
        };
        let (bos, eos, pad) = (token("bos_token")?, token("eos_token")?, token("pad_token")?);
        if let Some(length) = config.key("model_max_length") {
            let number = length.as_f64().filter(|n| *n >= 1.0);
            let number = number.ok_or_else(|| config.wrong("model_max_length", "a positive number"))?;
            // Python writes 1e30 for "without limit".
            self.max_length = (number <= f64::from(u32::MAX)).then_some(number as usize);
        }
        self.cut_left = config.key("truncation_side").is_some_and(|side| side == "left");
        self.pad_id = pad.or(self.pad_id);
        (self.bos_id, self.eos_id) = (bos, eos);
        eos.iter().for_each(|&id| self.add_end(id));
        for file in ["generation_config.json", "config.json"] {
            let model = Beside::open(&self.path, file)?;
            let ends = model.ids("eos_token_id")?;
            self.eos_id = self.eos_id.or(ends.first().copied());
            self.bos_id = self.bos_id.or(model.ids("bos_token_id")?.first().copied());
            ends.into_iter().for_each(|id| self.add_end(id));
        }
        Ok(())
    }

    fn add_end(&mut self, id: u32) {
        if !self.end_ids.contains(&id) {
            self.end_ids.push(id);
        }
    }

    /// Sets the most tokens of a row that [`encode_batch`](Self::encode_batch) gives, special ones included.
    pub fn with_max_length(mut self, max_length: usize) -> Tokenizer {
        self.max_length = Some(max_length);
        self
    }

    /// The most tokens of a row, special ones included, if there is a limit.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// The id that fills short rows, if the checkpoint names one.
    pub fn pad_id(&self) -> Option<u32> {
        self.pad_id
    }

    /// The id before a text, if the checkpoint names one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos_id
    }

    /// The id after a text, if the checkpoint names one.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_id
    }

    /// All ids that end what a model says: the one after a text, and others such as the end of its turn.
    pub fn end_ids(&self) -> &[u32] {
        &self.end_ids
    }

    /// The text of an id as the vocabulary writes it, such as `</s>` or `Ġthe`; for chat templates and lists.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.token(id, false)
    }

    /// As the decoder gets it, unless it is a special token that is skipped.
    pub(super) fn token(&self, id: u32, skip_special: bool) -> Option<String> {
        let added = self.inner.get_added_vocabulary();
        let token = added.simple_id_to_token(id).or_else(|| self.inner.id_to_token(id))?;
        if skip_special && added.is_special_token(&token) { None } else { Some(token) }
    }

    /// The id of a token, such as `</s>`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A text's ids, all of them however many, with begin and end tokens if `add_special`.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        Ok(self.encoded(text, add_special)?.get_ids().to_vec())
    }

    /// A batch's ids, with special tokens. A text that is too long loses words at its end (or its beginning, where the
    /// configuration says so), never its begin and end tokens. Fails where padding is needed and no token is known.
    pub fn encode_batch<T: AsRef<str>>(&self, texts: &[T], padding: Padding) -> Result<Encoding> {
        let row = |text: &T| {
            let encoded = self.encoded(text.as_ref(), true)?;
            Ok(shortened(encoded.get_ids(), encoded.get_special_tokens_mask(), self.max_length, self.cut_left))
        };
        Encoding::padded(&texts.iter().map(row).collect::<Result<Vec<_>>>()?, padding, self.pad_id)
    }

    /// The text of ids, without begin, end and other special tokens if `skip_special`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let text = self.inner.decode(ids, skip_special).map_err(|e| self.failed("decode", e))?;
        Ok(match &self.word_end {
            Some(end) => text.replace(end, " ").trim().to_owned(),
            None => text,
        })
    }

    /// The text of ids that come one by one; special tokens add nothing if `skip_special`.
    pub fn stream(&self, skip_special: bool) -> Stream<'_> {
        Stream::new(self, skip_special)
    }

    fn encoded(&self, text: &str, add_special: bool) -> Result<tokenizers::Encoding> {
        self.inner.encode_fast(text, add_special).map_err(|e| self.failed("encode", e))
    }

    fn failed(&self, what: &str, why: tokenizers::Error) -> Error {
        Error::file(&self.path, format!("cannot {what}: {why}"))
    }
}

/// The ids without so many of the unspecial ones, last or first, that at most `max_length` are left.
fn shortened(ids: &[u32], special: &[u32], max_length: Option<usize>, cut_left: bool) -> Vec<u32> {
    let excess = ids.len().saturating_sub(max_length.unwrap_or(usize::MAX));
    let words = special.iter().filter(|&&mark| mark == 0).count();
    let cut = if cut_left { 0..excess } else { words.saturating_sub(excess)..words };
    let mut word = 0;
    let mut keep = |mark: u32| {
        let keeps = mark != 0 || !cut.contains(&word);
        word += usize::from(mark == 0);
        keeps
    };
    ids.iter().zip(special).filter(|&(_, &mark)| keep(mark)).map(|(&id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{
        "version": "1.0", "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "added_tokens": [
            {"id": 0, "content": "<s>", "special": true, "normalized": false,
             "single_word": false, "lstrip": false, "rstrip": false},
            {"id": 1, "content": "</s>", "special": true, "normalized": false,
             "single_word": false, "lstrip": false, "rstrip": false}],
        "post_processor": {"type": "RobertaProcessing", "cls": ["<s>", 0], "sep": ["</s>", 1],
                           "trim_offsets": true, "add_prefix_space": false},
        "truncation": null, "padding": null,
        "model": {"type": "WordLevel", "unk_token": "?",
                  "vocab": {"<s>": 0, "</s>": 1, "?": 2, "a": 3, "b": 4, "c": 5, "d": 6}}}"#;

    fn opened(name: &str, config: Option<&str>) -> Result<Tokenizer> {
        let folder = std::env::temp_dir().join(format!("lapidary-text-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("tokenizer.json"), JSON).unwrap();
        config.iter().for_each(|text| std::fs::write(folder.join("tokenizer_config.json"), text).unwrap());
        let tokenizer = Tokenizer::open(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        tokenizer
    }

    #[test]
    fn there_and_back() {
        let tokenizer = opened("plain", None).unwrap();
        assert_eq!(tokenizer.encode("A x b", true).unwrap(), [0, 3, 2, 4, 1]);
        assert_eq!(tokenizer.encode("a<s>", false).unwrap(), [3, 0]);
        assert_eq!(tokenizer.decode(&[0, 3, 4, 1], true).unwrap(), "a b");
        assert_eq!(tokenizer.encode_batch(&["a", "b"], Padding::Longest).unwrap().ids, [0, 3, 1, 0, 4, 1]);
        assert!(tokenizer.encode_batch(&["a", "a b"], Padding::Longest).is_err());
        assert_eq!((tokenizer.pad_id(), tokenizer.max_length(), tokenizer.token_id("d")), (None, None, Some(6)));
    }

    #[test]
    fn long_texts_keep_their_end_token() {
        let config = r#"{"pad_token": {"content": "?"}, "model_max_length": 4}"#;
        let tokenizer = opened("cut", Some(config)).unwrap();
        let batch = tokenizer.encode_batch(&["a b c d", "d"], Padding::Length(5)).unwrap();
        assert_eq!(batch.ids, [0, 3, 4, 1, 2, 0, 6, 1, 2, 2]);
        assert_eq!(batch.attention_mask, [1, 1, 1, 1, 0, 1, 1, 1, 0, 0]);
        assert_eq!(tokenizer.encode("a b c d", true).unwrap().len(), 6);
        let left = opened("left", Some(r#"{"truncation_side": "left", "model_max_length": 1e30}"#)).unwrap();
        assert_eq!(left.max_length(), None);
        let batch = left.with_max_length(3).encode_batch(&["a b c d"], Padding::Longest).unwrap();
        assert_eq!(batch.ids, [0, 6, 1]);
    }

    #[test]
    fn bad_files_are_refused() {
        assert!(matches!(Tokenizer::open("no/such/folder"), Err(Error::Io { .. })));
        assert!(matches!(opened("json", Some("{")), Err(Error::File { .. })));
        assert!(matches!(opened("pad", Some(r#"{"pad_token": 3}"#)), Err(Error::File { .. })));
        assert!(matches!(opened("length", Some(r#"{"model_max_length": "x"}"#)), Err(Error::File { .. })));
    }
}
