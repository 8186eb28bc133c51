//! From a vocabulary as plain data to a working tokeniser. Vocabularies come from strangers' files: all that the tokeniser
//! takes for granted is checked here.

use super::vocab::{TokenKind, Vocab};
use crate::error::{Error, Result};
use std::path::Path;
use tokenizers::decoders::{byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders, strip::Strip};
use tokenizers::models::bpe::{BPE, Merges, Vocab as Ids};
use tokenizers::normalizers::{Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::{SpecialToken, TemplateProcessing};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
};

/// Longer tokens are refused: finding the ways to merge one takes the square of its length.
const LONGEST_TOKEN: usize = 1024;

/// What SentencePiece writes for a blank.
const BLANK: &str = "▁";

/// How text is cut into words before byte-level BPE. All of them lose no byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    /// GPT-2's expression, which [`ByteLevel`] brings along.
    Gpt2,
    /// The same, with every digit by itself.
    Gpt2Digits,
    /// An expression, and whether a whole word that is a token is taken without looking at merges.
    Expression(&'static str, bool),
}

/// Llama 3: words with the mark before them, up to three digits, marks with the line ends behind them.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2: as Llama 3, with every digit by itself.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's Tekken: as Qwen 2, with words cut where small letters are followed by capitals.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// By the names that files give them; `default` is what files without a name get.
const WORDS: &[(Words, &[&str])] = &[
    (Words::Gpt2, &["default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4"]),
    (Words::Gpt2Digits, &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"]),
    (Words::Expression(LLAMA3, true), &["llama-bpe", "llama3", "llama-v3", "falcon3"]),
    (Words::Expression(LLAMA3, false), &["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"]),
    (Words::Expression(QWEN2, false), &["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"]),
    (Words::Expression(TEKKEN, true), &["tekken"]),
];

/// Makes a tokeniser; `path` is for messages only.
pub(super) fn build(path: &Path, vocab: &Vocab) -> Result<Tokenizer> {
    let ids = checked(vocab).map_err(|why| Error::file(path, format!("its vocabulary: {why}")))?;
    let fail = |e: tokenizers::Error| Error::file(path, format!("its vocabulary makes no tokeniser: {e}"));
    let unsupported = |what: String| Error::NotSupported(format!("{}: {what}", path.display()));
    let (mut tokenizer, add_bos) = match vocab.model.as_str() {
        "gpt2" => {
            let pre = vocab.pre.as_deref().unwrap_or("default");
            let words = WORDS.iter().find(|(_, names)| names.contains(&pre)).map(|(words, _)| *words);
            let words = words.ok_or_else(|| {
                let known: Vec<&str> = WORDS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
                unsupported(format!("cutting text into words in the way of `{pre}`; known are {}", known.join(", ")))
            })?;
            let merges = pairs(vocab, &ids).map_err(|why| Error::file(path, why))?;
            (byte_level(ids, merges, words).map_err(fail)?, matches!(words, Words::Expression(_, true)))
        }
        "llama" => (sentence_pieces(vocab, ids).map_err(fail)?, true),
        other => return Err(unsupported(format!("a vocabulary of the kind `{other}`; known are gpt2 and llama"))),
    };
    let added = vocab.tokens.iter().zip(&vocab.kinds).filter_map(|(token, kind)| match kind {
        TokenKind::Control | TokenKind::Unknown => Some(AddedToken::from(token.as_str(), true)),
        TokenKind::UserDefined => Some(AddedToken::from(token.as_str(), false).normalized(false)),
        _ => None,
    });
    tokenizer.add_tokens(added).map_err(fail)?;
    let bos = vocab.bos_id.filter(|_| vocab.add_bos.unwrap_or(add_bos));
    let eos = vocab.eos_id.filter(|_| vocab.add_eos.unwrap_or(false));
    if bos.is_some() || eos.is_some() {
        tokenizer.with_post_processor(Some(frame(vocab, bos, eos).map_err(|why| Error::file(path, why))?));
    }
    Ok(tokenizer)
}

/// The tokens' ids, if the lists belong together.
fn checked(vocab: &Vocab) -> Result<Ids, String> {
    let count = vocab.tokens.len();
    if count == 0 || u32::try_from(count).is_err() {
        return Err(format!("it has {count} tokens"));
    }
    for (what, len) in [("scores", vocab.scores.len()), ("kinds of tokens", vocab.kinds.len())] {
        if len != count && len != 0 {
            return Err(format!("it has {count} tokens, but {len} {what}"));
        }
    }
    let known =
        [("bos", vocab.bos_id), ("eos", vocab.eos_id), ("unknown", vocab.unknown_id), ("padding", vocab.pad_id)];
    for (what, id) in known {
        if let Some(id) = id.filter(|&id| id as usize >= count) {
            return Err(format!("the {what} token is {id}, of {count} tokens"));
        }
    }
    for (what, wants, id) in [("bos", vocab.add_bos, vocab.bos_id), ("eos", vocab.add_eos, vocab.eos_id)] {
        if wants == Some(true) && id.is_none() {
            return Err(format!("texts are to get a token {what}, which is not given"));
        }
    }
    let mut ids = Ids::default();
    for (id, token) in (0..).zip(&vocab.tokens) {
        if token.len() > LONGEST_TOKEN {
            return Err(format!("token {id} has {} bytes, more than {LONGEST_TOKEN}", token.len()));
        }
        // A place without text can be decoded (to nothing) and never encoded.
        if !token.is_empty()
            && let Some(first) = ids.insert(token.clone(), id)
        {
            return Err(format!("tokens {first} and {id} are both `{}`", token.escape_debug()));
        }
    }
    Ok(ids)
}

/// The merges in pairs, of tokens that exist and make one that exists.
fn pairs(vocab: &Vocab, ids: &Ids) -> Result<Merges, String> {
    let pair = |(rank, merge): (usize, &String)| {
        // The first of two tokens may itself be a blank where bytes are not written as letters.
        let split = merge.char_indices().skip(1).find(|&(_, c)| c == ' ').map(|(at, _)| at);
        let pair = split.map(|at| (&merge[..at], &merge[at + 1..]));
        let known = |(a, b): &(&str, &str)| {
            ids.contains_key(*a) && ids.contains_key(*b) && ids.contains_key(&[*a, *b].concat())
        };
        let pair = pair.filter(known).map(|(a, b)| (a.to_string(), b.to_string()));
        pair.ok_or_else(|| {
            format!("merge {rank} of its vocabulary, `{}`, is not of two tokens into one", merge.escape_debug())
        })
    };
    vocab.merges.iter().enumerate().map(pair).collect()
}

fn byte_level(ids: Ids, merges: Merges, words: Words) -> tokenizers::Result<Tokenizer> {
    let whole_words = matches!(words, Words::Expression(_, true));
    let model = BPE::builder().vocab_and_merges(ids, merges).ignore_merges(whole_words).build()?;
    let mut tokenizer = Tokenizer::new(model);
    let bytes = |own_words| ByteLevel::new(false, true, own_words);
    let steps: Vec<PreTokenizerWrapper> = match words {
        Words::Gpt2 => vec![bytes(true).into()],
        Words::Gpt2Digits => vec![Digits::new(true).into(), bytes(true).into()],
        Words::Expression(expression, _) => {
            let expression = SplitPattern::Regex(expression.into());
            vec![Split::new(expression, SplitDelimiterBehavior::Isolated, false)?.into(), bytes(false).into()]
        }
    };
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(steps)));
    tokenizer.with_decoder(Some(bytes(true)));
    Ok(tokenizer)
}

/// SentencePiece's BPE: no words, pieces merged in the order of their scores, bytes for what has no piece.
fn sentence_pieces(vocab: &Vocab, ids: Ids) -> tokenizers::Result<Tokenizer> {
    if vocab.scores.is_empty() {
        return Err("it has no scores".into());
    }
    let merges = merges_by_score(vocab, &ids);
    let mut model = BPE::builder().vocab_and_merges(ids, merges).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = vocab.unknown_id.and_then(|id| vocab.tokens.get(id as usize)).filter(|t| !t.is_empty()) {
        model = model.unk_token(unknown.clone());
    }
    let mut tokenizer = Tokenizer::new(model.build()?);
    let prefix = vocab.add_space_prefix.unwrap_or(true);
    let blanks = Replace::new(" ", BLANK)?;
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if prefix {
        steps.push(Prepend::new(BLANK.into()).into());
    }
    steps.push(blanks.into());
    tokenizer.with_normalizer(Some(Normalizers::new(steps)))?;
    let mut steps: Vec<DecoderWrapper> =
        vec![Replace::new(BLANK, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if prefix {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    tokenizer.with_decoder(Some(Decoders::new(steps)));
    Ok(tokenizer)
}

/// Every way to make a piece of two others; those of the highest score first. (SentencePiece takes the leftmost of equal
/// scores, which an order of pairs cannot say; published vocabularies have no equal scores.)
fn merges_by_score(vocab: &Vocab, ids: &Ids) -> Merges {
    let is_piece = |id: usize| match vocab.kinds.get(id) {
        None | Some(TokenKind::Normal | TokenKind::Unused) => true,
        Some(_) => false,
    };
    let is_part = |text: &str| ids.get(text).is_some_and(|&id| is_piece(id as usize));
    let mut found: Vec<(f32, &str, &str)> = Vec::new();
    let pieces = vocab.tokens.iter().zip(&vocab.scores).enumerate().filter(|(id, _)| is_piece(*id));
    for (token, &score) in pieces.map(|(_, piece)| piece) {
        let splits = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        found.extend(splits.filter(|(a, b)| is_part(a) && is_part(b)).map(|(a, b)| (score, a, b)));
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (b.1.len(), b.2.len()).cmp(&(a.1.len(), a.2.len()))));
    found.into_iter().map(|(_, a, b)| (a.to_string(), b.to_string())).collect()
}

/// Begin and end tokens around a text.
fn frame(vocab: &Vocab, bos: Option<u32>, eos: Option<u32>) -> Result<TemplateProcessing, String> {
    // Pieces go by names of ours: a token's own text might mean something to the template.
    let named = [("bos", bos), ("eos", eos)].into_iter().filter_map(|(name, id)| Some((name, id?)));
    let special = named.map(|(name, id)| {
        let text = vocab.tokens.get(id as usize).cloned().unwrap_or_default();
        SpecialToken::new(name.into(), vec![id], vec![text]).map_err(|e| e.to_string())
    });
    let special = special.collect::<Result<Vec<_>, _>>()?;
    let around = |texts: &[&str]| -> Vec<String> {
        let (front, back) = (bos.map(|_| "bos"), eos.map(|_| "eos"));
        texts.iter().flat_map(|&text| [front, Some(text), back]).flatten().map(String::from).collect()
    };
    let template = TemplateProcessing::builder()
        .try_single(around(&["$A"]))
        .and_then(|t| t.try_pair(around(&["$A", "$B"])))
        .map_err(|e| e.to_string())?
        .special_tokens(special)
        .build();
    template.map_err(|e| e.to_string())
}
