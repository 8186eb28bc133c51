//! Lines of JSON to examples: texts, conversations, prompts with their completions.

use super::data::Example;
use crate::text::{ChatTemplate, Message, Tokenizer};
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// What makes tokens of lines.
pub struct Source<'a> {
    pub tokenizer: &'a Tokenizer,
    /// For conversations.
    pub template: Option<&'a ChatTemplate>,
    /// Put behind a text, if the model has such a token.
    pub eos_id: Option<u32>,
    /// The most tokens of an example. A longer text becomes several; a longer conversation loses its end.
    pub max_len: usize,
}

/// Reads a file of lines such as `{"text": …}`, `{"prompt": …, "completion": …}` or `{"messages": [{"role": …, "content": …}]}`.
/// Of texts every token is a target; of prompts and of what others than the assistant say, none. Empty lines are skipped.
///
/// # Errors
/// The file cannot be read; or a line, which the message names, is not of this form or gives no two tokens.
pub fn read_jsonl(path: &Path, source: &Source<'_>) -> Result<Vec<Example>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let mut examples = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fail = |why: String| Error::file(path, format!("line {}: {why}", number + 1));
        let json: Value = serde_json::from_str(line).map_err(|e| fail(format!("not JSON: {e}")))?;
        source.examples(&json, &mut examples).map_err(|e| fail(e.to_string()))?;
    }
    Ok(examples)
}

impl Source<'_> {
    /// The examples of one line.
    fn examples(&self, json: &Value, out: &mut Vec<Example>) -> Result<()> {
        let text = |key: &str| json.get(key).and_then(Value::as_str);
        if let Some(text) = text("text") {
            let mut ids = self.tokenizer.encode(text, true)?;
            ids.extend(self.eos_id);
            let before = out.len();
            // A piece of one token has nothing to predict.
            out.extend(
                ids.chunks(self.max_len)
                    .filter(|ids| ids.len() > 1)
                    .map(|ids| Example { ids: ids.to_vec(), labels: ids.iter().map(|&id| id as i32).collect() }),
            );
            return match out.len() > before {
                true => Ok(()),
                false => Err(Error::Media("the text has fewer than two tokens".into())),
            };
        }
        if let (Some(prompt), Some(completion)) = (text("prompt"), text("completion")) {
            let mut ids = self.tokenizer.encode(prompt, true)?;
            let given = ids.len();
            ids.extend(self.tokenizer.encode(completion, false)?);
            ids.extend(self.eos_id);
            return self.conversation(ids, |i| i >= given, out);
        }
        if let Some(list) = json.get("messages").and_then(Value::as_array) {
            return self.messages(list, out);
        }
        Err(Error::Media("a line has `text`, `prompt` and `completion`, or `messages`".into()))
    }

    /// A conversation: what the assistant says are the targets.
    fn messages(&self, list: &[Value], out: &mut Vec<Example>) -> Result<()> {
        let template = self.template.ok_or_else(|| {
            Error::Media("the model has no chat template; give `prompt` and `completion` instead of `messages`".into())
        })?;
        let message = |m: &Value| {
            let text = |key: &str| m.get(key).and_then(Value::as_str);
            let both = text("role").zip(text("content"));
            both.map(|(role, content)| Message::new(role, content))
                .ok_or_else(|| Error::Media("a message has a `role` and a `content`, both texts".into()))
        };
        let messages: Vec<Message> = list.iter().map(message).collect::<Result<_>>()?;
        let encode =
            |upto: usize, prompted: bool| self.tokenizer.encode(&template.render(&messages[..upto], prompted)?, false);
        let ids = encode(messages.len(), false)?;
        let mut said: Vec<std::ops::Range<usize>> = Vec::new();
        for (i, m) in messages.iter().enumerate().filter(|(_, m)| m.role == "assistant") {
            let (before, after) = (encode(i, true)?, encode(i + 1, false)?);
            if !ids.starts_with(&before) || !ids.starts_with(&after) {
                let why = format!(
                    "message {i}: the chat template does not grow message by message, so that what \"{}\" said cannot be told apart",
                    m.role
                );
                return Err(Error::NotSupported(why));
            }
            said.push(before.len()..after.len());
        }
        self.conversation(ids, |i| said.iter().any(|range| range.contains(&i)), out)
    }

    /// An example of which the places that `target` names count.
    fn conversation(&self, mut ids: Vec<u32>, target: impl Fn(usize) -> bool, out: &mut Vec<Example>) -> Result<()> {
        ids.truncate(self.max_len);
        let labels = ids.iter().enumerate().map(|(i, &id)| if target(i) { id as i32 } else { -100 }).collect();
        let example = Example { ids, labels };
        if example.targets() == 0 {
            let why = format!("nothing to learn is left within {} tokens; raise --max-len", self.max_len);
            return Err(Error::Media(why));
        }
        out.push(example);
        Ok(())
    }
}
