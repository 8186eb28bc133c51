//! A model's tokeniser and chat template, wherever its files keep them.

use crate::checkpoint::{Folder, gguf};
use crate::text::{ChatTemplate, TokenKind, Tokenizer, Vocab};
use crate::{Error, Result};

/// The tokeniser of a model: of its folder's `tokenizer.json`, or of the metadata of its GGUF file.
///
/// # Errors
/// There is none, it is not what it should be, or its kind is not known.
pub fn tokenizer(folder: &Folder) -> Result<Tokenizer> {
    match folder.gguf() {
        Some(metadata) => Tokenizer::from_vocab(metadata.path(), &vocab(&metadata)?),
        None => Tokenizer::open(folder.path()),
    }
}

/// The chat template of a model, with the begin and end tokens of its tokeniser: of its folder's `tokenizer_config.json` or
/// `chat_template.jinja`, or of the metadata of its GGUF file. `None` if it has none; see [`ChatTemplate::built_in`].
///
/// # Errors
/// A file cannot be read, or the template is none.
pub fn chat_template(folder: &Folder, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>> {
    const KEY: &str = "tokenizer.chat_template";
    let template = match folder.gguf() {
        Some(metadata) => match metadata.text(KEY)? {
            Some(source) => Some(ChatTemplate::new(format!("{} ({KEY})", metadata.path().display()), source)?),
            None => None,
        },
        None => ChatTemplate::open(folder.path())?,
    };
    Ok(template.map(|template| template.with_tokens(tokenizer)))
}

/// The vocabulary in the metadata of a GGUF file.
fn vocab(metadata: &gguf::Metadata<'_>) -> Result<Vocab> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let text = |name: &str| Ok::<_, Error>(metadata.text(&key(name))?.map(String::from));
    let texts =
        |name: &str| Ok::<_, Error>(metadata.texts(&key(name))?.map(|l| l.into_iter().map(String::from).collect()));
    let flag = |name: &str| metadata.flag(&key(name));
    let id = |name: &str| metadata.id(&key(&format!("{name}_token_id")));
    let given = |name: &str| metadata.wrong(&key(name), "given");
    let kinds = metadata.integers(&key("token_type"))?.unwrap_or_default();
    Ok(Vocab {
        model: text("model")?.ok_or_else(|| given("model"))?,
        pre: text("pre")?,
        tokens: texts("tokens")?.ok_or_else(|| given("tokens"))?,
        scores: metadata.floats(&key("scores"))?.unwrap_or_default(),
        kinds: kinds.into_iter().map(TokenKind::of).collect(),
        merges: texts("merges")?.unwrap_or_default(),
        add_bos: flag("add_bos_token")?,
        add_eos: flag("add_eos_token")?,
        add_space_prefix: flag("add_space_prefix")?,
        bos_id: id("bos")?,
        eos_id: id("eos")?,
        other_end_ids: [id("eot")?, id("eom")?].into_iter().flatten().collect(),
        unknown_id: id("unknown")?,
        pad_id: id("padding")?,
    })
}
