//! Reading `config.json`: typed values with defaults, and errors that name the key.

use crate::ops::activation::Activation;
use crate::{Error, Result};
use serde_json::Value;

/// An object of a configuration, and its path for messages.
#[derive(Clone)]
pub(crate) struct Config<'a> {
    value: &'a Value,
    /// Values here win: old CLIP configurations repeat themselves under another key.
    overrides: Option<&'a Value>,
    path: String,
}

/// Sizes beyond this are no model's.
const MAX_SIZE: u64 = 1 << 24;

impl<'a> Config<'a> {
    pub fn new(value: &'a Value) -> Config<'a> {
        Config { value, overrides: None, path: String::new() }
    }

    /// An object inside; an empty one if it is absent.
    pub fn sub(&self, key: &str) -> Config<'a> {
        let value = self.value.get(key).unwrap_or(&Value::Null);
        Config { value, overrides: None, path: format!("{}{key}.", self.path) }
    }

    /// The same with another object of the parent whose values win.
    pub fn overridden_by(self, parent: &Config<'a>, key: &str) -> Config<'a> {
        Config { overrides: parent.value.get(key), ..self }
    }

    /// A value, unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        let found = self.overrides.and_then(|o| o.get(key)).or_else(|| self.value.get(key));
        found.filter(|v| !v.is_null())
    }

    fn wrong(&self, key: &str, want: &str) -> Error {
        let have = self.get(key).map_or("absent".to_string(), Value::to_string);
        Error::Config(format!("`{}{key}` must be {want}, is {have}", self.path))
    }

    /// A positive size.
    pub fn size(&self, key: &str, default: usize) -> Result<usize> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v
                .as_u64()
                .filter(|n| (1..=MAX_SIZE).contains(n))
                .map(|n| n as usize)
                .ok_or_else(|| self.wrong(key, "a positive integer")),
        }
    }

    /// A size without default.
    pub fn required_size(&self, key: &str) -> Result<usize> {
        match self.get(key) {
            Some(_) => self.size(key, 0),
            None => Err(self.wrong(key, "given")),
        }
    }

    /// An integer meaning a square, or [height, width].
    pub fn sides(&self, key: &str, default: usize) -> Result<[usize; 2]> {
        let Some(Value::Array(list)) = self.get(key) else {
            return Ok([self.size(key, default)?; 2]);
        };
        let side = |v: &Value| v.as_u64().filter(|n| (1..=MAX_SIZE).contains(n)).map(|n| n as usize);
        match list.as_slice() {
            [h, w] => side(h).zip(side(w)).map(|(h, w)| [h, w]),
            _ => None,
        }
        .ok_or_else(|| self.wrong(key, "a positive integer or [height, width]"))
    }

    /// A finite number.
    pub fn number(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v.as_f64().filter(|x| x.is_finite()).ok_or_else(|| self.wrong(key, "a number")),
        }
    }

    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| self.wrong(key, "true or false")),
        }
    }

    /// Token ids: a number or a list of them; none if it is absent.
    pub fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let one = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        match self.get(key) {
            None => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(one).collect(),
            Some(value) => one(value).map(|id| vec![id]),
        }
        .ok_or_else(|| self.wrong(key, "a token id or a list of them"))
    }

    /// An activation under the name that published configurations give it.
    pub fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        let name = match self.get(key) {
            None => default,
            Some(v) => v.as_str().ok_or_else(|| self.wrong(key, "the name of an activation"))?,
        };
        Ok(match name {
            "gelu" | "gelu_python" => Activation::GeluErf,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate" => Activation::GeluTanh,
            "quick_gelu" => Activation::QuickGelu,
            "relu" => Activation::Relu,
            "silu" | "swish" => Activation::Silu,
            "tanh" => Activation::Tanh,
            "sigmoid" => Activation::Sigmoid,
            _ => return Err(self.wrong(key, "gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu, silu or tanh")),
        })
    }
}

/// The names of classes by number, from `id2label`.
pub(crate) fn labels(config: &Config<'_>) -> Vec<String> {
    let Some(Value::Object(map)) = config.get("id2label") else { return Vec::new() };
    let mut labels = vec![String::new(); map.len()];
    for (id, name) in map {
        if let (Ok(id), Some(name)) = (id.parse::<usize>(), name.as_str())
            && let Some(slot) = labels.get_mut(id)
        {
            *slot = name.to_string();
        }
    }
    labels
}
