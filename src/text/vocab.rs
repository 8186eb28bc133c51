//! A vocabulary as plain data, from whatever file it came in.

/// What a token is there for. The numbers are those of SentencePiece and GGUF files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// What stands for text that has no token.
    Unknown,
    /// A mark that is no text: begin, end, turns of a chat.
    Control,
    /// A text that is always one token.
    UserDefined,
    /// A place without use.
    Unused,
    /// A byte, written `<0x0A>`.
    Byte,
}

impl TokenKind {
    /// The kind of a number; numbers without meaning are [`TokenKind::Normal`].
    pub fn of(number: i32) -> TokenKind {
        match number {
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        }
    }
}

/// A vocabulary and how text is cut into its tokens, as GGUF files say it. `None` and empty lists where they do not.
#[derive(Clone, Debug, Default)]
pub struct Vocab {
    /// The kind of tokeniser: `gpt2` for byte-level BPE, `llama` for SentencePiece's BPE.
    pub model: String,
    /// The way text is cut into words before BPE: `gpt-2`, `smollm`, `llama-bpe`, …
    pub pre: Option<String>,
    /// The tokens, by id.
    pub tokens: Vec<String>,
    /// Scores of tokens, for `llama`: pieces of a higher one are merged first.
    pub scores: Vec<f32>,
    /// What tokens are there for.
    pub kinds: Vec<TokenKind>,
    /// Pairs of tokens joined by a blank, for `gpt2`, in the order in which they are merged.
    pub merges: Vec<String>,
    /// Whether a text's ids begin with `bos_id`.
    pub add_bos: Option<bool>,
    /// Whether a text's ids end with `eos_id`.
    pub add_eos: Option<bool>,
    /// Whether a blank is put before a text, for `llama`.
    pub add_space_prefix: Option<bool>,
    /// The token before a text.
    pub bos_id: Option<u32>,
    /// The token after a text.
    pub eos_id: Option<u32>,
    /// Other tokens that end what a model says, such as the end of its turn.
    pub other_end_ids: Vec<u32>,
    /// The token for what has none.
    pub unknown_id: Option<u32>,
    /// The token that fills short rows.
    pub pad_id: Option<u32>,
}
