//! Weights in files: safetensors in one file or several, and GGUF, mapped and read where they lie; and a writer of the
//! former.
//!
//! A [`Checkpoint`] knows tensors by their published names, [`Weights`] is a view of it under a prefix. What a file says
//! is never trusted: a bad one is an [`Error`] that names the file, the tensor and the number that is wrong.

mod file;
mod folder;
pub mod gguf;
mod load;
mod nearest;
pub mod safetensors;
pub mod sharded;
mod stored;
pub mod synth;
mod view;
mod writer;

pub use file::{Entry, TensorFile};
pub use folder::Folder;
pub use stored::{Foreign, Stored, StoredDType};
pub use view::Weights;
pub use writer::{Sink, TensorSpec, write_safetensors};

use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names that publishers give to the weights of a folder, without extension, in order of preference.
const STEMS: [&str; 5] = ["model", "open_clip_model", "model_base", "codebooks", "diffusion_pytorch_model"];

/// The tensors of one file, or of the shards of one index. Clones share the mapped files.
#[derive(Clone)]
pub struct Checkpoint(Arc<Inner>);

struct Inner {
    path: PathBuf,
    files: Vec<TensorFile>,
    /// Which of the files holds each tensor.
    tensors: BTreeMap<String, usize>,
}

impl Checkpoint {
    /// Opens a `.safetensors` file, a `.safetensors.index.json` with its shards, a `.gguf` file, or a folder that holds
    /// one: under a name that publishers use (`model`, `open_clip_model`, …), or else the only `.safetensors` file there,
    /// or else the only `.gguf` file. Tensors of a GGUF file go by the names of [`gguf::published_names`].
    ///
    /// All headers are read and checked here; the data is mapped, and read when it is used.
    ///
    /// # Errors
    /// There is no such file, several could be meant, a shard or a tensor of one is missing, or a header is wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        let path = if path.is_dir() { find(path)? } else { path.to_path_buf() };
        let (files, tensors) = if path.extension().is_some_and(|e| e == "json") {
            sharded::open(&path)?
        } else {
            let file = TensorFile::open(&path)?;
            let tensors = file.tensors().keys().map(|name| (name.clone(), 0)).collect();
            (vec![file], tensors)
        };
        Ok(Checkpoint(Arc::new(Inner { path, files, tensors })))
    }

    /// The file or index that was opened.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The files that hold the tensors.
    pub fn files(&self) -> &[TensorFile] {
        &self.0.files
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.0.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.tensors.is_empty()
    }

    /// The size of all tensors in bytes.
    pub fn bytes(&self) -> usize {
        self.iter().map(|t| t.bytes.len()).sum()
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.tensors.keys().map(String::as_str)
    }

    /// All tensors, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = Stored> {
        self.names().filter_map(|name| self.find(name))
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.tensors.contains_key(name)
    }

    /// A tensor by its full name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] with up to three names that come near.
    pub fn get(&self, name: &str) -> Result<Stored> {
        self.find(name).ok_or_else(|| Error::MissingTensor {
            path: self.0.path.clone(),
            name: name.into(),
            nearest: nearest::nearest(name, self.names()),
        })
    }

    fn find(&self, name: &str) -> Option<Stored> {
        self.0.files[*self.0.tensors.get(name)?].get(name)
    }
}

/// The weights of a folder.
fn find(folder: &Path) -> Result<PathBuf> {
    for stem in STEMS {
        for extension in ["safetensors", "safetensors.index.json"] {
            let path = folder.join(stem).with_extension(extension);
            if path.is_file() {
                return Ok(path);
            }
        }
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        files.push(entry.map_err(|e| Error::io(folder, e))?.path());
    }
    files.sort();
    for extension in ["safetensors", "gguf"] {
        let found = files.iter().filter(|p| p.extension().is_some_and(|e| e == extension) && p.is_file());
        match found.collect::<Vec<_>>().as_slice() {
            [] => {}
            [path] => return Ok(path.to_path_buf()),
            several => {
                let names = several.iter().filter_map(|p| p.file_name()).map(|n| n.to_string_lossy());
                let names: Vec<_> = names.take(20).collect();
                let (count, names) = (several.len(), names.join(", "));
                let why =
                    format!("the folder holds {count} .{extension} files and no index; open one of them: {names}");
                return Err(Error::file(folder, why));
            }
        }
    }
    Err(Error::file(folder, "the folder holds no .safetensors file and no .gguf file"))
}
