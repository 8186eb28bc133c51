//! Vocabularies as plain data, text piece by piece, and chat templates, through the public interface.
#![cfg(feature = "text")]

use lapidary::text::{ChatTemplate, Message, TokenKind, Tokenizer, Vocab};
use lapidary::{Error, Result};
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

fn message<T>(result: Result<T>) -> String {
    result.err().expect("it should be refused").to_string()
}

/// A vocabulary of the Llama 2 kind: marks, all bytes, then these pieces, each of a lower score than the one before.
fn sentence_pieces(pieces: &[&str]) -> Vocab {
    let marks = ["<unk>", "<s>", "</s>"].map(String::from);
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let tokens: Vec<String> = marks.into_iter().chain(bytes).chain(pieces.iter().map(|p| p.to_string())).collect();
    let kind = |id: usize| match id {
        0 => TokenKind::Unknown,
        1 | 2 => TokenKind::Control,
        3..259 => TokenKind::Byte,
        _ => TokenKind::Normal,
    };
    Vocab {
        model: "llama".into(),
        scores: (0..tokens.len()).map(|id| 259.0 - id as f32).collect(),
        kinds: (0..tokens.len()).map(kind).collect(),
        tokens,
        bos_id: Some(1),
        eos_id: Some(2),
        unknown_id: Some(0),
        ..Vocab::default()
    }
}

/// Merged first: what comes first.
const PIECES: &[&str] = &[
    "▁t",
    "he",
    "in",
    "▁the",
    "er",
    "▁▁",
    "▁▁▁▁",
    "on",
    "▁in",
    "the",
    "ing",
    "▁ther",
    "é",
    "▁",
    "t",
    "h",
    "e",
    "i",
    "n",
    "g",
    "r",
    "o",
    "<",
    ">",
    "s",
];

fn byte_level(pre: &str) -> Vocab {
    let tokens = ["<|end|>", "a", "b", "Ġ", "1", "2", "Ã", "©", "ab", "Ġa", "Ġab", "12", "<tool>"];
    let mut kinds = vec![TokenKind::Normal; tokens.len()];
    (kinds[0], kinds[12]) = (TokenKind::Control, TokenKind::UserDefined);
    Vocab {
        model: "gpt2".into(),
        pre: Some(pre.into()),
        tokens: tokens.map(String::from).into(),
        kinds,
        merges: ["a b", "Ġ a", "Ġ ab", "1 2"].map(String::from).into(),
        eos_id: Some(0),
        ..Vocab::default()
    }
}

fn opened(vocab: &Vocab) -> Result<Tokenizer> {
    Tokenizer::from_vocab("file.gguf", vocab)
}

/// SentencePiece's own rule: the neighbours of the highest score become one, the leftmost of equal ones, until none do.
fn merged_one_by_one(vocab: &Vocab, text: &str) -> Vec<u32> {
    let id = |text: &str| vocab.tokens.iter().position(|token| token == text);
    let mut symbols: Vec<String> = text.replace(' ', "▁").chars().map(String::from).collect();
    loop {
        let pairs = symbols.windows(2).enumerate().filter_map(|(at, pair)| {
            let id = id(&pair.concat()).filter(|&id| vocab.kinds[id] == TokenKind::Normal)?;
            Some((at, vocab.scores[id]))
        });
        let best = pairs.reduce(|best, pair| if pair.1 > best.1 { pair } else { best });
        let Some((at, _)) = best else { break };
        let right = symbols.remove(at + 1);
        symbols[at].push_str(&right);
    }
    let bytes = |symbol: &String| symbol.bytes().map(|byte| 3 + u32::from(byte)).collect();
    symbols.iter().flat_map(|symbol| id(symbol).map_or_else(|| bytes(symbol), |id| vec![id as u32])).collect()
}

#[test]
fn pieces_are_merged_in_the_order_of_their_scores() {
    let vocab = sentence_pieces(PIECES);
    let tokenizer = opened(&vocab).unwrap();
    let parts = ["t", "h", "e", " ", "in", "g", "the", " ther", "é", "€", "    ", "on", "er", "x"];
    let mut state = 1u64;
    for _ in 0..2000 {
        let mut text = String::new();
        for _ in 0..1 + state % 9 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            text.push_str(parts[(state >> 33) as usize % parts.len()]);
        }
        let ids = tokenizer.encode(&text, true).unwrap();
        assert_eq!(ids[0], 1, "a text begins with <s> unless the file says otherwise");
        assert_eq!(ids[1..], merged_one_by_one(&vocab, &format!(" {text}")), "{text:?}");
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        let mut stream = tokenizer.stream(true);
        let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        assert_eq!(pieces.concat() + &stream.finish(), text);
    }
    let plain = Vocab { add_space_prefix: Some(false), add_bos: Some(false), add_eos: Some(true), ..vocab };
    let plain = opened(&plain).unwrap();
    let ids = plain.encode("the", true).unwrap();
    assert_eq!((plain.token_text(ids[0]).as_deref(), ids[1..].to_vec()), (Some("the"), vec![2]));
    assert_eq!(plain.decode(&plain.encode(" the", false).unwrap(), true).unwrap(), " the");
    // Marks in a text are tokens; what is behind one begins anew.
    assert_eq!(tokenizer.encode("the</s>in", false).unwrap(), [262, 2, 267]);
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.end_ids()), (Some(1), Some(2), &[2][..]));
}

#[test]
fn bytes_are_merged_within_words() {
    let tokenizer = opened(&byte_level("smollm")).unwrap();
    let encode = |t: &Tokenizer, text: &str| t.encode(text, true).unwrap();
    assert_eq!(encode(&tokenizer, "ab ab12é"), [8, 10, 4, 5, 6, 7]);
    assert_eq!(encode(&opened(&byte_level("default")).unwrap(), "ab ab12é"), [8, 10, 11, 6, 7]);
    for pre in ["llama-bpe", "gpt-2", "dbrx"] {
        assert_eq!(encode(&opened(&byte_level(pre)).unwrap(), " ab12"), [10, 11], "{pre}");
    }
    for pre in ["qwen2", "tekken"] {
        assert_eq!(encode(&opened(&byte_level(pre)).unwrap(), " ab12"), [10, 4, 5], "{pre}");
    }
    assert_eq!(encode(&tokenizer, "a<tool>b<|end|>"), [1, 12, 2, 0]);
    assert_eq!(tokenizer.decode(&[1, 12, 2, 0], true).unwrap(), "a<tool>b");
    assert_eq!(tokenizer.end_ids(), [0]);
    let ends = Vocab { other_end_ids: vec![12, 0], bos_id: Some(3), add_bos: Some(true), ..byte_level("smollm") };
    let framed = opened(&ends).unwrap();
    assert_eq!((framed.end_ids(), encode(&framed, "a")), (&[0, 12][..], vec![3, 1]));
    // Llama 3 takes a whole word that is a token, even if no merges lead there.
    let mut odd = byte_level("llama-bpe");
    odd.merges.retain(|merge| merge != "Ġ ab");
    assert_eq!(encode(&opened(&odd).unwrap(), " ab"), [10]);
    assert_eq!(encode(&opened(&Vocab { pre: Some("gpt-2".into()), ..odd }).unwrap(), " ab"), [3, 8]);
}

#[test]
fn bad_vocabularies_are_refused() {
    let llama = || sentence_pieces(PIECES);
    let gpt2 = || byte_level("smollm");
    let merges = |merge: &str| Vocab { merges: vec![merge.into()], ..gpt2() };
    let tokens = |at: usize, token: &str| {
        let mut vocab = gpt2();
        vocab.tokens[at] = token.into();
        vocab.merges.clear();
        vocab
    };
    for (vocab, want) in [
        (Vocab { model: "bert".into(), ..gpt2() }, "a vocabulary of the kind `bert`; known are gpt2 and llama"),
        (byte_level("viking"), "in the way of `viking`; known are default, gpt-2"),
        (Vocab { scores: vec![0.0; 3], ..llama() }, "tokens, but 3 scores"),
        (Vocab { scores: Vec::new(), ..llama() }, "it has no scores"),
        (Vocab { kinds: vec![TokenKind::Normal], ..gpt2() }, "it has 13 tokens, but 1 kinds of tokens"),
        (Vocab { tokens: Vec::new(), ..gpt2() }, "it has 0 tokens"),
        (Vocab { bos_id: Some(13), ..gpt2() }, "the bos token is 13, of 13 tokens"),
        (Vocab { pad_id: Some(u32::MAX), ..gpt2() }, "the padding token is 4294967295"),
        (Vocab { add_bos: Some(true), ..gpt2() }, "texts are to get a token bos, which is not given"),
        (tokens(2, "a"), "tokens 1 and 2 are both `a`"),
        (tokens(2, &"x".repeat(2000)), "token 2 has 2000 bytes, more than 1024"),
        (merges("b a"), "merge 0 of its vocabulary, `b a`, is not of two tokens into one"),
        // Both are tokens, and what they make is longer than any token.
        (merges("<tool> <|end|>"), "merge 0 of its vocabulary"),
        (merges("a"), "merge 0 of its vocabulary, `a`"),
        (merges(""), "merge 0 of its vocabulary, ``"),
        (merges("a c"), "merge 0 of its vocabulary, `a c`"),
    ] {
        let have = message(opened(&vocab));
        assert!(have.contains("file.gguf") && have.contains(want), "{want}: {have}");
    }
    // Places without text may repeat; they decode to nothing.
    let mut empty = tokens(2, "");
    empty.tokens[3] = String::new();
    assert_eq!(opened(&empty).unwrap().decode(&[1, 2, 3, 1, 99], true).unwrap(), "aa");
}

#[test]
fn streams_hold_back_what_is_not_a_character() {
    let tokenizer = opened(&sentence_pieces(PIECES)).unwrap();
    let byte = |byte: u8| 3 + u32::from(byte);
    let streamed = |ids: &[u32]| {
        let mut stream = tokenizer.stream(true);
        let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        (pieces, stream.finish())
    };
    let text = |pieces: &[&str]| pieces.iter().map(|p| p.to_string()).collect::<Vec<_>>();
    // A euro sign between pieces; the blank that was put in front of all is gone, others are not.
    let ids = [1, 262, byte(0xe2), byte(0x82), byte(0xac), 262, 2];
    assert_eq!(streamed(&ids), (text(&["", "the", "", "", "€", " the", ""]), String::new()));
    assert_eq!(streamed(&[272, 272, 259]).0, text(&["", " ", " t"]));
    assert_eq!(streamed(&[byte(b' '), 259]).0, text(&["", " t"]));
    // Cut within a character, and one that is none.
    assert_eq!(streamed(&[259, byte(0xf0), byte(0x9f)]), (text(&["t", "", ""]), "\u{fffd}".into()));
    assert_eq!(streamed(&[259, byte(0xe2), 273]), (text(&["t", "", "\u{fffd}t"]), String::new()));
    assert_eq!(streamed(&[byte(0xff), byte(0x80), 273]).0, text(&["\u{fffd}", "\u{fffd}", "t"]));
    assert_eq!(streamed(&[9999, 262]).0, text(&["", "the"]));
}

#[test]
fn streams_take_time_for_new_text_only() {
    let tokenizer = opened(&byte_level("smollm")).unwrap();
    let seconds = |ids: usize| {
        let began = Instant::now();
        let mut stream = tokenizer.stream(true);
        // Half a character that never ends, again and again.
        let text: usize = (0..ids).map(|i| stream.push([6, 1, 9, 6][i % 4]).unwrap().len()).sum();
        assert!(text > ids);
        began.elapsed().as_secs_f64()
    };
    seconds(1000);
    // Were it quadratic, the second would take 256 times as long as the first, not 16 times.
    let (short, long) = (seconds(20_000), seconds(320_000));
    assert!(long < 100.0 * short.max(1e-3), "{short} s, then {long} s");
}

/// A folder with these files, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Folder {
        let path = std::env::temp_dir().join(format!("lapidary-text-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        files.iter().for_each(|(file, text)| fs::write(path.join(file), text).unwrap());
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const WORDS: &str = r#"{"version": "1.0", "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
    "added_tokens": [], "post_processor": null, "truncation": null, "padding": null, "model": {"type": "WordLevel",
    "unk_token": "?", "vocab": {"<s>": 0, "</s>": 1, "?": 2, "<turn>": 3, "a": 4, "b": 5}}}"#;

#[test]
fn begin_and_end_tokens_are_found_beside_the_tokeniser() {
    let ids = |name: &str, files: &[(&str, &str)]| {
        let folder = Folder::new(name, &[&[("tokenizer.json", WORDS)], files].concat());
        Tokenizer::open(&folder.0).map(|t| (t.bos_id(), t.eos_id(), t.end_ids().to_vec()))
    };
    let config = ("tokenizer_config.json", r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>"}"#);
    let map = ("special_tokens_map.json", r#"{"bos_token": "a", "eos_token": {"content": "<turn>"}}"#);
    let model = ("config.json", r#"{"bos_token_id": 4, "eos_token_id": [1, 5]}"#);
    let generation = ("generation_config.json", r#"{"eos_token_id": 3}"#);
    assert_eq!(ids("none", &[]).unwrap(), (None, None, vec![]));
    assert_eq!(ids("config", &[config, map]).unwrap(), (Some(0), Some(1), vec![1]));
    assert_eq!(ids("map", &[map]).unwrap(), (Some(4), Some(3), vec![3]));
    assert_eq!(ids("ids", &[model]).unwrap(), (Some(4), Some(1), vec![1, 5]));
    assert_eq!(ids("all", &[config, model, generation]).unwrap(), (Some(0), Some(1), vec![1, 3, 5]));
    let wrong = ids("wrong", &[("generation_config.json", r#"{"eos_token_id": "x"}"#)]);
    assert!(message(wrong).contains(r#"`eos_token_id` must be an id or a list of ids, is "x""#));
    assert!(
        message(ids("token", &[("tokenizer_config.json", r#"{"eos_token": 3}"#)])).contains("must be a token, is 3")
    );

    // Words are whole characters: piece by piece as the decoder joins them.
    let folder = Folder::new("words", &[("tokenizer.json", WORDS)]);
    let tokenizer = Tokenizer::open(&folder.0).unwrap();
    let mut stream = tokenizer.stream(true);
    assert_eq!([4, 5, 4].map(|id| stream.push(id).unwrap()), ["a", " b", " a"]);
}

/// As published with SmolLM2.
const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
/// In the manner of Llama 2: roles are checked, a system message goes into the first turn.
const LLAMA_2: &str = "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate!') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}";
/// In the manner of Llama 3: a filter binds closer than `+`.
const LLAMA_3: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
/// In the manner of Zephyr and TinyLlama: line ends behind blocks are dropped, those behind values are not.
const ZEPHYR: &str = "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}";

fn talk(turns: &[(&str, &str)]) -> Vec<Message> {
    turns.iter().map(|(role, content)| Message::new(*role, *content)).collect()
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new("a test", source).unwrap().with_tokens(&opened(&sentence_pieces(PIECES)).unwrap())
}

#[test]
fn published_templates_give_the_known_texts() {
    let short = talk(&[("user", " Hi \n")]);
    let long = talk(&[("system", "Be brief."), ("user", "1+1?"), ("assistant", "2"), ("user", "Sure?")]);
    for (source, short_text, long_text) in [
        (
            SMOLLM2,
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\n Hi \n<|im_end|>\n<|im_start|>assistant\n",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n",
        ),
        (
            LLAMA_2,
            "<s>[INST] Hi [/INST]",
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n1+1? [/INST] 2 </s><s>[INST] Sure? [/INST]",
        ),
        (
            LLAMA_3,
            "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n1+1?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n2<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nSure?<|eot_id|>",
        ),
        (
            ZEPHYR,
            "<|user|>\n Hi \n</s>\n<|assistant|>\n",
            "<|system|>\nBe brief.</s>\n<|user|>\n1+1?</s>\n<|assistant|>\n2</s>\n<|user|>\nSure?</s>\n",
        ),
    ] {
        assert_eq!(template(source).render(&short, true).unwrap(), short_text);
        assert_eq!(template(source).render(&long, false).unwrap(), long_text);
    }
    let wrong = template(LLAMA_2).render(&talk(&[("assistant", "Hi")]), true);
    let Err(Error::Media(why)) = wrong else { panic!() };
    assert_eq!(why, "chat template of a test, line 1: invalid operation: Roles must alternate!");
}

#[test]
fn families_without_a_template_have_one_here() {
    let built_in = |name: &str| ChatTemplate::built_in(name).unwrap();
    let short = talk(&[("user", "What is this?")]);
    let long = talk(&[("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye")]);
    let system = talk(&[("system", "Be brief."), ("user", "Hi")]);
    let intro = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. ";
    let vicuna = built_in("vicuna");
    assert_eq!(vicuna.render(&short, true).unwrap(), format!("{intro}USER: What is this? ASSISTANT:"));
    assert_eq!(
        vicuna.render(&long, true).unwrap(),
        format!("{intro}USER: Hi ASSISTANT: Hello!</s>USER: Bye ASSISTANT:")
    );
    assert_eq!(vicuna.render(&system, false).unwrap(), "Be brief. USER: Hi ");
    assert!(message(vicuna.render(&talk(&[("tool", "x")]), true)).contains("not tool"));
    let llama = built_in("llama-2");
    assert_eq!(llama.render(&long, true).unwrap(), "<s>[INST] Hi [/INST] Hello! </s><s>[INST] Bye [/INST]");
    assert_eq!(llama.render(&system, true).unwrap(), "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]");
    assert!(message(llama.render(&talk(&[("user", "a"), ("user", "b")]), true)).contains("roles must alternate"));
    assert_eq!(built_in("plain").render(&long, true).unwrap(), "Hi\nHello!\nBye");
    assert!(message(ChatTemplate::built_in("alpaca")).contains("known are vicuna, llama-2, plain"));
}

#[test]
fn templates_find_what_python_has() {
    let messages = talk(&[("user", "  a=1,b=2 "), ("assistant", "x</think>y"), ("user", "z")]);
    for (source, want) in [
        ("{{ messages[0].content.strip().split(',')|join(';') }}", "a=1;b=2"),
        ("{{ messages[1].content.split('</think>')[-1].lstrip('y') ~ messages[1].content.startswith('x') }}", "True"),
        ("{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}{{ v }} {% endfor %}", "b1 a2 "),
        ("{{ {'a': 1}.get('b', 'none') }}{{ 'ab'.upper().replace('A', 'c') }}{{ 'a b'.title() }}", "nonecBA B"),
        ("{{ messages[-1].content }}{{ messages[::-1][2].content|trim }}{{ messages[1:]|length }}", "za=1,b=22"),
        ("{% set n = namespace(i=0) %}{% for m in messages %}{% set n.i = n.i + 1 %}{% endfor %}{{ n.i }}", "3"),
        (
            "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
            "useruser",
        ),
        ("{% for m in messages %}{% if m.role == 'assistant' %}{% break %}{% endif %}{{ m.role }}{% endfor %}", "user"),
        ("{% if tools is not none or documents or system is defined %}x{% endif %}{{ undefined_name }}", ""),
        ("{{ {'b': ['é<', 1.5, true, none], 'a': {}} | tojson }}", r#"{"b": ["é<", 1.5, true, null], "a": {}}"#),
        ("{{ {'a': [1]} | tojson(indent=1) }}", "{\n \"a\": [\n  1\n ]\n}"),
        ("{%- macro say(x) -%}[{{ x }}]{%- endmacro -%}{{ say('hi') }}", "[hi]"),
        ("  {% if true %}\n  a\n  {% endif %}\nb\n", "  a\nb"),
        ("{%- generation -%} a {%- endgeneration -%}{% generation %}b{% endgeneration %}c", "abc"),
        ("{{ strftime_now('%Y') | int > 2023 }}{{ '<b>' }}", "True<b>"),
        ("{{ messages[0].role is string and messages is iterable and messages[0] is mapping }}", "True"),
    ] {
        let have = template(source).render(&messages, false);
        assert_eq!(have.unwrap_or_else(|e| panic!("{source}: {e}")), want, "{source}");
    }
}

#[test]
fn bad_templates_are_refused() {
    let wrong = |source: &str| message(ChatTemplate::new("x.jinja", source));
    let why = wrong("a\n{% if %}");
    assert!(why.starts_with("chat template of x.jinja, line 2: syntax error:"), "{why}");
    assert!(wrong("{{ 'a").contains("line 1"));
    let messages = talk(&[("user", "a")]);
    let fails = |source: &str| message(template(source).render(&messages, true));
    for (source, want) in [
        ("\n{{ messages[3].role.x }}", "line 2: undefined value"),
        ("{{ nothing() }}", "line 1: unknown function: nothing is unknown"),
        ("{{ 'a'.nothing() }}", "unknown method"),
        ("{{ strftime_now('%Q') }}", "the directive %Q is unknown"),
        ("{{ messages | tojson(sort_keys=true) }}", "sort_keys"),
        ("{% for a in range(10000) %}{% for b in range(10000) %}{{ b }}{% endfor %}{% endfor %}", "fuel"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ] {
        let have = fails(source);
        assert!(have.contains(want), "{source}: {have}");
    }
}

#[test]
fn folders_bring_their_template() {
    let open = |name: &str, files: &[(&str, &str)]| {
        let folder = Folder::new(name, files);
        ChatTemplate::open(&folder.0).map(|t| t.map(|t| t.render(&talk(&[("user", "a")]), false).unwrap()))
    };
    assert_eq!(open("no-template", &[]).unwrap(), None);
    assert_eq!(open("null", &[("tokenizer_config.json", r#"{"chat_template": null}"#)]).unwrap(), None);
    let config = ("tokenizer_config.json", r#"{"chat_template": "{{ messages[0].role }}"}"#);
    assert_eq!(open("text", &[config]).unwrap().as_deref(), Some("user"));
    assert_eq!(open("jinja", &[config, ("chat_template.jinja", "j")]).unwrap().as_deref(), Some("j"));
    let list = r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    assert_eq!(open("list", &[("tokenizer_config.json", list)]).unwrap().as_deref(), Some("d"));
    let none = open("no-default", &[("tokenizer_config.json", r#"{"chat_template": []}"#)]);
    assert!(message(none).contains("`chat_template` must be a template, or a list with one named `default`"));
}
