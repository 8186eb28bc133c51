//! JSON files that lie beside a tokeniser's.

use crate::error::{Error, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A JSON file beside the tokeniser's; empty if there is none.
pub(super) struct Beside {
    path: PathBuf,
    json: Value,
}

impl Beside {
    pub fn open(tokenizer: &Path, name: &str) -> Result<Beside> {
        let path = tokenizer.with_file_name(name);
        if !path.exists() {
            return Ok(Beside { path, json: Value::Null });
        }
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let json = serde_json::from_slice(&bytes).map_err(|e| Error::file(&path, format!("no JSON: {e}")))?;
        Ok(Beside { path, json })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn key(&self, name: &str) -> Option<&Value> {
        self.json.get(name).filter(|value| !value.is_null())
    }

    pub fn wrong(&self, name: &str, want: &str) -> Error {
        let have = self.json.get(name).unwrap_or(&Value::Null);
        Error::file(&self.path, format!("`{name}` must be {want}, is {have}"))
    }

    /// A token's text, which may stand in an object that describes it.
    pub fn token(&self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.key(name) else { return Ok(None) };
        let text = value.as_str().or_else(|| value.get("content")?.as_str());
        text.map(|text| Some(text.to_string())).ok_or_else(|| self.wrong(name, "a token"))
    }

    /// An id, or a list of some.
    pub fn ids(&self, name: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match self.key(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(id).collect::<Option<Vec<u32>>>(),
            Some(value) => id(value).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(name, "an id or a list of ids"))
    }
}
