//! A model's folder as it is published: its configuration, its weights, and what it says about preprocessing.

use super::{Checkpoint, Weights};
use crate::{Error, Result};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Larger configuration files are refused.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// An opened folder.
#[derive(Clone)]
pub struct Folder {
    path: PathBuf,
    config: Value,
    preprocessor: Option<String>,
}

impl Folder {
    /// Reads `config.json` (or `open_clip_config.json`) and `preprocessor_config.json`, if there is one.
    ///
    /// # Errors
    /// There is no configuration, or a file cannot be read or is not JSON.
    pub fn open(path: impl AsRef<Path>) -> Result<Folder> {
        let path = path.as_ref().to_path_buf();
        if !path.is_dir() {
            return Err(Error::file(&path, "expected a model's folder, with config.json and weights"));
        }
        let names = ["config.json", "open_clip_config.json"];
        let file = names.iter().map(|n| path.join(n)).find(|p| p.is_file());
        let file = file.ok_or_else(|| Error::file(&path, "the folder has no config.json or open_clip_config.json"))?;
        let text = read_text(&file)?;
        let config = serde_json::from_str(&text).map_err(|e| Error::file(&file, format!("not JSON: {e}")))?;
        let preprocessor = path.join("preprocessor_config.json");
        let preprocessor = if preprocessor.is_file() { Some(read_text(&preprocessor)?) } else { None };
        Ok(Folder { path, config, preprocessor })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The text of `preprocessor_config.json`.
    pub fn preprocessor(&self) -> Option<&str> {
        self.preprocessor.as_deref()
    }

    /// The weights, under no prefix.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn weights(&self) -> Result<Weights> {
        Ok(Checkpoint::open(&self.path)?.weights())
    }
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if bytes > MAX_JSON_BYTES {
        return Err(Error::file(path, format!("{bytes} bytes is too large for a configuration")));
    }
    fs::read_to_string(path).map_err(|e| Error::io(path, e))
}
