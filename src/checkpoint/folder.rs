//! A model as it is published: its configuration, its weights, and what it says about preprocessing; in a folder, or in
//! one GGUF file.

use super::file::is_gguf;
use super::{Checkpoint, TensorFile, Weights, find, gguf};
use crate::{Error, Result};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Larger configuration files are refused.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// An opened folder, or a GGUF file in the place of one.
#[derive(Clone)]
pub struct Folder {
    path: PathBuf,
    config: Value,
    preprocessor: Option<String>,
    /// The GGUF file, where there is one: everything then comes from it.
    gguf: Option<Checkpoint>,
}

impl Folder {
    /// Reads `config.json` (or `open_clip_config.json`) and `preprocessor_config.json`, if there is one. Of a `.gguf`
    /// file, and of a folder whose only weights are one, reads the file's metadata instead, from which comes a
    /// configuration of the same kind ([`gguf::config`]).
    ///
    /// # Errors
    /// There is no configuration, or a file cannot be read or is not what it should be.
    pub fn open(path: impl AsRef<Path>) -> Result<Folder> {
        let path = path.as_ref().to_path_buf();
        let weights = if path.is_dir() { find(&path).ok() } else { Some(path.clone()) };
        if let Some(file) = weights.filter(|file| is_gguf(file)) {
            let checkpoint = Checkpoint::open(&file)?;
            if let [file] = checkpoint.files()
                && let Some(metadata) = file.gguf()
            {
                let config = gguf::config(&metadata, file.tensors())?;
                return Ok(Folder { path, config, preprocessor: None, gguf: Some(checkpoint) });
            }
        }
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
        Ok(Folder { path, config, preprocessor, gguf: None })
    }

    /// The folder or file.
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
        match &self.gguf {
            Some(checkpoint) => Ok(checkpoint.weights()),
            None => Ok(Checkpoint::open(&self.path)?.weights()),
        }
    }

    /// The metadata of the GGUF file, where there is one.
    pub fn gguf(&self) -> Option<gguf::Metadata<'_>> {
        self.gguf.as_ref()?.files().first().and_then(TensorFile::gguf)
    }
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if bytes > MAX_JSON_BYTES {
        return Err(Error::file(path, format!("{bytes} bytes is too large for a configuration")));
    }
    fs::read_to_string(path).map_err(|e| Error::io(path, e))
}
