//! One file of tensors, mapped: of either format.

use super::gguf::{self, Metadata};
use super::safetensors;
use super::stored::{Stored, StoredDType};
use crate::Result;
use crate::backend::cpu::MappedBytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// What a header says of a tensor, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The element type.
    pub dtype: StoredDType,
    /// The extents, outermost first; with `dtype` they tell the length of `range`.
    pub shape: Vec<usize>,
    /// Where the elements lie, in bytes from the start of the file.
    pub range: Range<usize>,
}

/// A mapped file and its header.
pub struct TensorFile {
    path: Arc<Path>,
    bytes: MappedBytes,
    tensors: BTreeMap<String, Entry>,
    header: Header,
}

/// What a header says besides of tensors.
enum Header {
    Safetensors(BTreeMap<String, String>),
    Gguf(BTreeMap<String, gguf::Value>),
}

impl TensorFile {
    /// Maps a file and reads its header. It is read as GGUF if it begins like one or is called `.gguf`, else as
    /// safetensors. Tensors of a GGUF file get the names that [`gguf::published_names`] gives them.
    ///
    /// # Errors
    /// The file cannot be mapped, or its header is wrong.
    pub fn open(path: &Path) -> Result<TensorFile> {
        let bytes = MappedBytes::open(path)?;
        let (tensors, header) = if bytes.starts_with(&gguf::MAGIC) || is_gguf(path) {
            let index = gguf::parse(path, &bytes)?;
            let tensors = gguf::published_names(path, &bytes, &index)?;
            (tensors, Header::Gguf(index.metadata))
        } else {
            let index = safetensors::parse(path, &bytes)?;
            (index.tensors, Header::Safetensors(index.metadata))
        };
        Ok(TensorFile { path: path.into(), bytes, tensors, header })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its header says of its tensors, by name.
    pub fn tensors(&self) -> &BTreeMap<String, Entry> {
        &self.tensors
    }

    /// The free-form texts of a safetensors file; none of a GGUF file.
    pub fn texts(&self) -> Option<&BTreeMap<String, String>> {
        match &self.header {
            Header::Safetensors(texts) => Some(texts),
            Header::Gguf(_) => None,
        }
    }

    /// The metadata of a GGUF file.
    pub fn gguf(&self) -> Option<Metadata<'_>> {
        match &self.header {
            Header::Safetensors(_) => None,
            Header::Gguf(values) => Some(Metadata::new(&self.path, &self.bytes, values)),
        }
    }

    /// A tensor, if it is there.
    pub fn get(&self, name: &str) -> Option<Stored> {
        let Entry { dtype, shape, range } = self.tensors.get(name)?;
        Some(Stored {
            name: name.into(),
            path: self.path.clone(),
            dtype: *dtype,
            shape: shape.clone(),
            bytes: self.bytes.slice(range.clone()),
        })
    }
}

/// Whether a file is called so.
pub(super) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}
