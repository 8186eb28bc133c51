//! Typed access to the keys of a preprocessing configuration; every complaint names the key.

use super::MAX_SIDE;
use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// A JSON object of settings. A key that is `null` counts as absent.
pub(super) struct Settings<'a> {
    file: &'static str,
    map: &'a Map<String, Value>,
}

impl<'a> Settings<'a> {
    /// The settings of a file, or of a part of it that `file` names.
    pub(super) fn new(file: &'static str, value: &'a Value) -> Result<Settings<'a>> {
        let map = value.as_object().ok_or_else(|| Error::Config(format!("{file} must be a JSON object")))?;
        Ok(Settings { file, map })
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The complaint that a key is not what it must be.
    pub(super) fn wrong(&self, key: &str, want: &str) -> Error {
        let have = self.map.get(key).map_or("absent".into(), |value| {
            let text = value.to_string();
            if text.chars().count() <= 60 { text } else { text.chars().take(60).chain(['…']).collect() }
        });
        Error::Config(format!("{}: `{key}` must be {want}, is {have}", self.file))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let read = |value: &Value| value.as_bool().ok_or_else(|| self.wrong(key, "true or false"));
        self.get(key).map_or(Ok(default), read)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key).map(|value| value.as_str().ok_or_else(|| self.wrong(key, "a string"))).transpose()
    }

    /// A factor that can be multiplied and divided by.
    pub(super) fn factor(&self, key: &str, default: f64) -> Result<f64> {
        let read = |value: &Value| value.as_f64().filter(|x| x.is_finite() && *x > 0.0);
        self.get(key).map_or(Ok(default), |value| read(value).ok_or_else(|| self.wrong(key, "a number above zero")))
    }

    /// One number per channel, or one number for all; with `nonzero`, numbers to divide by.
    pub(super) fn channels(&self, key: &str, default: [f32; 3], nonzero: bool) -> Result<[f32; 3]> {
        let number = |value: &Value| {
            let x = value.as_f64()? as f32;
            (x.is_finite() && (x != 0.0 || !nonzero)).then_some(x)
        };
        let read = |value: &Value| match value.as_array().map(Vec::as_slice) {
            Some([r, g, b]) => Some([number(r)?, number(g)?, number(b)?]),
            Some(_) => None,
            None => number(value).map(|x| [x; 3]),
        };
        let want = if nonzero { "three numbers other than zero" } else { "three numbers" };
        self.get(key).map_or(Ok(default), |value| read(value).ok_or_else(|| self.wrong(key, want)))
    }
}

/// A JSON number as a length that an image can have.
pub(super) fn side(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=MAX_SIDE).contains(n))
}
