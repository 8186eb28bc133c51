//! Golden cases: folders that pin what a reference implementation computes. Reads and judges them, through the crate's
//! public interface; for `lapidary verify` and the crate's own tests.
//!
//! A case holds `case.json` (family, task, options, the outputs with their limits), a checkpoint laid out as its publisher
//! does it, inputs and expected outputs. An output passes when ‖got - want‖₂ / ‖want‖₂ is within its `rel_l2`, with the
//! same shape and no NaN, or, with `exact`, when every element is equal. `debug.*` outputs are judged if they were
//! computed; all others are owed.

mod clip;
mod llama;
mod ringattention;
mod rvq;
mod training;
mod value;
mod vit;

pub use value::{Outputs, Value};

use crate::checkpoint::{Checkpoint, Folder, Stored};
use crate::media::Image;
use crate::nn::Precision;
use crate::{Device, Error, Result};
use serde_json::Value as Json;
use std::fs;
use std::path::{Path, PathBuf};

/// A case that was read.
pub struct Case {
    folder: PathBuf,
    pub family: String,
    pub task: String,
    options: Json,
    /// Names and limits.
    outputs: Vec<(String, Limit)>,
    inputs: Option<Checkpoint>,
    expected: Checkpoint,
}

/// How close an output must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    Exact,
    RelL2(f64),
}

/// An output that was judged.
#[derive(Clone, Debug)]
pub struct Judged {
    pub name: String,
    pub limit: Limit,
    /// ‖got - want‖₂ / ‖want‖₂
    pub rel_l2: f64,
    /// The largest difference of an element.
    pub max_abs: f64,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// What came of a case.
#[derive(Debug)]
pub enum Outcome {
    /// Every owed output was computed.
    Judged(Vec<Judged>),
    /// Its family, task or one of its owed outputs cannot be computed yet.
    Unsupported(String),
}

impl Outcome {
    /// Whether every output passed.
    pub fn passed(&self) -> bool {
        matches!(self, Outcome::Judged(rows) if rows.iter().all(|r| r.failure.is_none()))
    }
}

/// The folders of all cases at or below a path, sorted.
///
/// # Errors
/// There is none, or a folder cannot be read.
pub fn find(path: &Path) -> Result<Vec<PathBuf>> {
    fn walk(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
        if path.join("case.json").is_file() {
            found.push(path.to_path_buf());
            return Ok(());
        }
        if depth > 6 {
            return Ok(());
        }
        for entry in fs::read_dir(path).map_err(|e| Error::io(path, e))? {
            let entry = entry.map_err(|e| Error::io(path, e))?;
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                walk(&entry.path(), depth + 1, found)?;
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(path, 0, &mut found)?;
    found.sort();
    if found.is_empty() { Err(Error::file(path, "no case.json here or below")) } else { Ok(found) }
}

impl Case {
    /// Reads a case's description and maps its tensors.
    ///
    /// # Errors
    /// A file is missing or wrong.
    pub fn open(folder: &Path) -> Result<Case> {
        let path = folder.join("case.json");
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let json: Json = serde_json::from_str(&text).map_err(|e| Error::file(&path, format!("not JSON: {e}")))?;
        let text = |key: &str| {
            let value = json.get(key).and_then(Json::as_str);
            value.map(str::to_string).ok_or_else(|| Error::file(&path, format!("`{key}` must be a text")))
        };
        let outputs = json.get("outputs").and_then(Json::as_object);
        let outputs = outputs.ok_or_else(|| Error::file(&path, "`outputs` must be an object"))?;
        let limit = |(name, v): (&String, &Json)| match (v.get("exact"), v.get("rel_l2").and_then(Json::as_f64)) {
            (Some(Json::Bool(true)), _) => Ok((name.clone(), Limit::Exact)),
            (_, Some(rel_l2)) => Ok((name.clone(), Limit::RelL2(rel_l2))),
            _ => Err(Error::file(&path, format!("output `{name}` needs `exact` or `rel_l2`"))),
        };
        let inputs = folder.join("inputs.safetensors");
        let empty = inputs.is_file() && fs::metadata(&inputs).is_ok_and(|m| m.len() == 0);
        Ok(Case {
            family: text("family")?,
            task: text("task")?,
            options: json.get("options").cloned().unwrap_or(Json::Null),
            outputs: outputs.iter().map(limit).collect::<Result<_>>()?,
            inputs: if inputs.is_file() && !empty { Some(Checkpoint::open(&inputs)?) } else { None },
            expected: Checkpoint::open(folder.join("expected.safetensors"))?,
            folder: folder.to_path_buf(),
        })
    }

    /// Computes the case on a device and judges its outputs.
    ///
    /// # Errors
    /// The model cannot be loaded or run; what is merely not there yet is [`Outcome::Unsupported`].
    pub fn run(&self, device: &Device, precision: Precision) -> Result<Outcome> {
        let computed = match (self.family.as_str(), self.task.as_str()) {
            ("vit", _) => vit::compute(self, device, precision),
            ("clip", _) => clip::compute(self, device, precision),
            ("llama", _) => llama::compute(self, device, precision),
            ("ringattention", _) => ringattention::compute(self, device),
            ("rvq", _) => rvq::compute(self, device),
            (family, _) => Err(Error::NotSupported(format!("family {family}"))),
        };
        let got = match computed {
            Ok(got) => got,
            Err(Error::NotSupported(what)) => return Ok(Outcome::Unsupported(what)),
            Err(other) => return Err(other),
        };
        let mask = self.ids_or_none("attention_mask")?;
        let mut rows = Vec::new();
        for (name, limit) in &self.outputs {
            match got.get(name) {
                Some(value) => {
                    let want = self.expected.get(name)?;
                    let value = value.without_padding(mask.as_deref(), &want)?;
                    rows.push(value.judge(name, *limit, &want)?);
                }
                None if name.starts_with("debug.") => {}
                None => return Ok(Outcome::Unsupported(format!("output `{name}` of {} {}", self.family, self.task))),
            }
        }
        Ok(Outcome::Judged(rows))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn checkpoint(&self) -> PathBuf {
        self.folder.join("checkpoint")
    }

    fn wants(&self, output: &str) -> bool {
        self.outputs.iter().any(|(name, _)| name == output)
    }

    fn unsupported(&self) -> Error {
        Error::NotSupported(format!("task {} of family {}", self.task, self.family))
    }

    fn has_input(&self, name: &str) -> bool {
        self.inputs.as_ref().is_some_and(|c| c.contains(name))
    }

    /// An input tensor.
    fn input(&self, name: &str) -> Result<Stored> {
        let inputs = self.inputs.as_ref();
        inputs.ok_or_else(|| Error::file(&self.folder, format!("the case has no input `{name}`")))?.get(name)
    }

    /// An input of ids, cast from i64 with a range check, and the length of a row.
    fn ids(&self, name: &str) -> Result<(Vec<u32>, usize)> {
        let stored = self.input(name)?;
        Ok((stored.to_vec::<u32>()?, stored.shape.last().copied().unwrap_or(1)))
    }

    /// As [`ids`](Case::ids), of an input that a case may lack.
    fn ids_or_none(&self, name: &str) -> Result<Option<Vec<u32>>> {
        if self.has_input(name) { self.ids(name).map(|(ids, _)| Some(ids)) } else { Ok(None) }
    }

    /// A special token: from the options, else `generation_config.json`, else `config.json`; there may be several.
    fn token_ids(&self, key: &str, folder: &Folder) -> Result<Vec<u32>> {
        let path = self.checkpoint().join("generation_config.json");
        let generation: Json = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| Error::file(&path, format!("not JSON: {e}")))?,
            Err(_) => Json::Null,
        };
        let places = [&self.options, &generation, folder.config()];
        let found = places.iter().find_map(|json| json.get(key).filter(|v| !v.is_null()));
        let one = |v: &Json| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = match found {
            None => Some(Vec::new()),
            Some(Json::Array(list)) => list.iter().map(one).collect(),
            Some(value) => one(value).map(|id| vec![id]),
        };
        ids.ok_or_else(|| Error::file(&self.folder, format!("`{key}` must be a token id or a list of them")))
    }

    fn flag(&self, key: &str) -> bool {
        self.options.get(key).and_then(Json::as_bool).unwrap_or(false)
    }

    fn size(&self, key: &str) -> Result<usize> {
        let value = self.options.get(key).and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok());
        value.ok_or_else(|| Error::file(&self.folder, format!("option `{key}` must be an integer")))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.options.get(key).and_then(Json::as_str)
    }

    /// A list of texts, or a single text.
    fn texts(&self, key: &str) -> Option<Vec<String>> {
        match self.options.get(key)? {
            Json::String(one) => Some(vec![one.clone()]),
            Json::Array(list) => list.iter().map(|v| v.as_str().map(str::to_string)).collect(),
            _ => None,
        }
    }

    /// The pictures that options `image` and `images` name.
    fn pictures(&self) -> Result<Option<Vec<Image>>> {
        let Some(names) = self.texts("image").or_else(|| self.texts("images")) else { return Ok(None) };
        names.iter().map(|name| Image::open(self.folder.join(name))).collect::<Result<_>>().map(Some)
    }
}
