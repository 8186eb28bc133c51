//! Conversations as one text, by the Jinja templates that checkpoints bring along.

use super::beside::Beside;
use super::python::{strftime, write_json};
use super::{Message, Tokenizer};
use crate::error::{Error, Result};
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, context};
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Steps that a template may take before it is stopped: templates come from strangers.
const FUEL: u64 = 5_000_000;

/// Templates of families that publish none, by name.
const BUILT_IN: &[(&str, &str)] = &[("vicuna", VICUNA), ("llama-2", LLAMA_2), ("plain", PLAIN)];

/// Vicuna 1.1: <https://github.com/lm-sys/FastChat/blob/main/docs/vicuna_weights_version.md>.
const VICUNA: &str = "\
{%- if messages[0].role == 'system' -%}
    {{- messages[0].content + ' ' -}}
    {%- set messages = messages[1:] -%}
{%- else -%}
    {{- 'A chat between a curious user and an artificial intelligence assistant. ' -}}
    {{- 'The assistant gives helpful, detailed, and polite answers to the user\\'s questions. ' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{- 'USER: ' + message.content + ' ' -}}
    {%- elif message.role == 'assistant' -%}
        {{- 'ASSISTANT: ' + message.content + '</s>' -}}
    {%- else -%}
        {{- raise_exception('after a system message at most, roles are user and assistant, not ' + message.role) -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
";

/// Llama 2: <https://github.com/meta-llama/llama/blob/main/llama/generation.py>, `chat_completion`.
const LLAMA_2: &str = "\
{%- set lines = namespace(system='') -%}
{%- if messages[0].role == 'system' -%}
    {%- set lines.system = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' -%}
    {%- set messages = messages[1:] -%}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'user' and loop.index0 % 2 == 0 -%}
        {{- '<s>[INST] ' + (lines.system + message.content).strip() + ' [/INST]' -}}
        {%- set lines.system = '' -%}
    {%- elif message.role == 'assistant' and loop.index0 % 2 == 1 -%}
        {{- ' ' + message.content.strip() + ' </s>' -}}
    {%- else -%}
        {{- raise_exception('roles must alternate: user, assistant, user, …') -}}
    {%- endif -%}
{%- endfor -%}
";

/// For models that continue texts: the contents, one a line.
const PLAIN: &str = "{%- for message in messages -%}{{- message.content -}}{%- if not loop.last -%}{{- '\\n' -}}{%- endif -%}{%- endfor -%}";

/// A template that makes one text of a conversation, for the model to continue.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    /// Where it comes from, for messages.
    origin: String,
    source: String,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// A template. `origin` says in messages where it comes from.
    ///
    /// # Errors
    /// [`Error::Media`] with the line where it is no Jinja.
    pub fn new(origin: impl Into<String>, source: &str) -> Result<ChatTemplate> {
        let (bos_token, eos_token) = (String::new(), String::new());
        let template = ChatTemplate { origin: origin.into(), source: without_marks(source), bos_token, eos_token };
        environment().template_from_str(&template.source).map_err(|e| template.failed(e))?;
        Ok(template)
    }

    /// The template of a folder: `chat_template.jinja`, or `chat_template` in `tokenizer_config.json`, which may be a list
    /// of named ones; then the one named `default` is taken. `None` if there is none.
    ///
    /// # Errors
    /// A file cannot be read, there are several templates and no default, or [`new`](ChatTemplate::new) refuses it.
    pub fn open(folder: impl AsRef<Path>) -> Result<Option<ChatTemplate>> {
        let path = folder.as_ref().join("chat_template.jinja");
        if path.exists() {
            let source = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
            return ChatTemplate::new(path.display().to_string(), &source).map(Some);
        }
        let config = Beside::open(&path, "tokenizer_config.json")?;
        let Some(value) = config.key("chat_template") else { return Ok(None) };
        let source = match value.as_array() {
            None => value.as_str(),
            Some(named) => named.iter().find(|t| t["name"] == "default").and_then(|t| t["template"].as_str()),
        };
        let source =
            source.ok_or_else(|| config.wrong("chat_template", "a template, or a list with one named `default`"))?;
        ChatTemplate::new(config.path().display().to_string(), source).map(Some)
    }

    /// A template of a family that publishes none: `vicuna` (version 1.1: LLaVA, ShareGPT4V, MiniGPT-4), `llama-2`
    /// (chats of Llama 2), or `plain` (contents, one a line, without marks).
    ///
    /// # Errors
    /// [`Error::Config`] with the names that are known.
    pub fn built_in(name: &str) -> Result<ChatTemplate> {
        let Some((_, source)) = BUILT_IN.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = BUILT_IN.iter().map(|(known, _)| *known).collect();
            return Err(Error::Config(format!("no chat template `{name}`; known are {}", known.join(", "))));
        };
        ChatTemplate::new(format!("`{name}`"), source)
    }

    /// Sets what the template calls `bos_token` and `eos_token`.
    pub fn with_tokens(self, tokenizer: &Tokenizer) -> ChatTemplate {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
        ChatTemplate { bos_token: text(tokenizer.bos_id()), eos_token: text(tokenizer.eos_id()), ..self }
    }

    /// The template itself.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation; with `add_generation_prompt` it ends where the assistant is to speak. It holds all begin
    /// and end tokens that belong to it: [encode](Tokenizer::encode) it without special ones.
    ///
    /// # Errors
    /// [`Error::Media`] with what the template raises, or what is wrong with it and where.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let message = |m: &Message| context! { role => m.role, content => m.content };
        let environment = environment();
        let template = environment.template_from_str(&self.source).map_err(|e| self.failed(e))?;
        let text = template.render(context! {
            messages => messages.iter().map(message).collect::<Vec<Value>>(),
            add_generation_prompt,
            bos_token => self.bos_token,
            eos_token => self.eos_token,
            tools => (),
            documents => (),
        });
        text.map_err(|e| self.failed(e))
    }

    fn failed(&self, e: minijinja::Error) -> Error {
        let line = e.line().map_or(String::new(), |line| format!(", line {line}"));
        let why = e.detail().map_or_else(|| e.kind().to_string(), |detail| format!("{}: {detail}", e.kind()));
        Error::Media(format!("chat template of {}{line}: {why}", self.origin))
    }
}

/// What templates are written for: Jinja as `transformers` sets it up, with Python's methods of texts and lists.
fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_fuel(Some(FUEL));
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_function("raise_exception", |why: String| {
        Err::<Value, _>(minijinja::Error::new(ErrorKind::InvalidOperation, why))
    });
    env.add_function("strftime_now", |format: String| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        strftime(&format, now).map_err(|why| minijinja::Error::new(ErrorKind::InvalidOperation, why))
    });
    env.add_filter("tojson", |value: Value, options: Kwargs| {
        let (indent, _letters) =
            (options.get::<Option<usize>>("indent")?, options.get::<Option<bool>>("ensure_ascii")?);
        options.assert_all_used()?;
        let mut out = String::new();
        write_json(&value, indent, 0, &mut out)?;
        Ok::<_, minijinja::Error>(out)
    });
    env
}

/// Blocks that mark what the assistant says, for training, say nothing here.
fn without_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        out.push_str(before);
        out.push_str("{%");
        rest = tag;
        let Some((inside, _)) = tag.split_once("%}") else { break };
        let instead = match inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => inside.replace("generation", "if true"),
            "endgeneration" => inside.replace("endgeneration", "endif"),
            _ => continue,
        };
        out.push_str(&instead);
        rest = &tag[inside.len()..];
    }
    out + rest
}
