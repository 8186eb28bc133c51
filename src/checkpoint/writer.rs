//! Writing safetensors files as a stream: no tensor need ever be in memory as a whole.

use super::safetensors::{METADATA, shown};
use super::stored::StoredDType;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: StoredDType,
    /// Its extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor to be written.
    pub fn new(name: impl Into<String>, dtype: impl Into<StoredDType>, shape: &[usize]) -> TensorSpec {
        TensorSpec { name: name.into(), dtype: dtype.into(), shape: shape.into() }
    }
}

/// Takes the bytes of one tensor, piece by piece.
pub struct Sink<'a> {
    file: &'a mut BufWriter<File>,
    path: &'a Path,
    name: &'a str,
    left: usize,
}

impl Sink<'_> {
    /// Writes the next bytes of the tensor: its elements, little endian, in row-major order.
    ///
    /// # Errors
    /// The disk is full, or these are more bytes than the tensor has.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.left = self.left.checked_sub(bytes.len()).ok_or_else(|| {
            let more = bytes.len() - self.left;
            Error::file(self.path, format!("tensor {} was given {more} bytes too many", shown(self.name)))
        })?;
        self.file.write_all(bytes).map_err(|e| Error::io(self.path, e))
    }
}

/// Writes a file of the given tensors. `fill` is called once for each and hands over its bytes.
///
/// Tensors are laid out (and `fill` is called) in the order of other writers, largest element first, then by name: so
/// all of them are aligned. The file appears under its name when it is complete, and not at all on an error.
///
/// # Errors
/// A name stands twice, a size overflows, `fill` fails or gives another number of bytes, or the disk says no.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = TensorSpec>,
    mut fill: impl FnMut(&TensorSpec, &mut Sink<'_>) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let mut tensors: Vec<TensorSpec> = tensors.into_iter().collect();
    tensors.sort_by(|a, b| b.dtype.bytes().cmp(&a.dtype.bytes()).then_with(|| a.name.cmp(&b.name)));
    let (header, sizes) = header(&tensors).map_err(|why| Error::file(path, why))?;
    let partial = Partial::beside(path);
    let file = File::create_new(&partial.0).map_err(|e| Error::io(&partial.0, e))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let io = |e| Error::io(path, e);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
    file.write_all(header.as_bytes()).map_err(io)?;
    for (tensor, &bytes) in tensors.iter().zip(&sizes) {
        let mut sink = Sink { file: &mut file, path, name: &tensor.name, left: bytes };
        fill(tensor, &mut sink)?;
        if sink.left > 0 {
            let why = format!("tensor {} was given {} of its {bytes} bytes", shown(&tensor.name), bytes - sink.left);
            return Err(Error::file(path, why));
        }
    }
    file.into_inner().map_err(|e| io(e.into_error()))?.sync_all().map_err(io)?;
    fs::rename(&partial.0, path).map_err(io)
}

/// The header, padded to a multiple of eight bytes, and each tensor's size in bytes.
fn header(tensors: &[TensorSpec]) -> Result<(String, Vec<usize>), String> {
    let mut names = BTreeSet::from([METADATA]);
    // `format` is what other loaders ask for before they take a file.
    let mut map = Map::from_iter([(METADATA.into(), json!({"format": "pt"}))]);
    let (mut sizes, mut at) = (Vec::new(), 0usize);
    for tensor in tensors {
        if !names.insert(&tensor.name) {
            return Err(format!("a second tensor {} cannot be written", shown(&tensor.name)));
        }
        let place = tensor.dtype.bytes_of(&tensor.shape).and_then(|bytes| Some((bytes, at.checked_add(bytes)?)));
        let Some((bytes, end)) = place else {
            return Err(format!("tensor {} of shape {:?} is too large", shown(&tensor.name), tensor.shape));
        };
        let Some(dtype) = tensor.dtype.header_name() else {
            return Err(format!(
                "tensor {} of {} cannot be written: the format has no blocks",
                shown(&tensor.name),
                tensor.dtype
            ));
        };
        let entry = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [at, end]});
        map.insert(tensor.name.clone(), entry);
        sizes.push(bytes);
        at = end;
    }
    let mut header = Value::Object(map).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    Ok((header, sizes))
}

/// A file under a name of its own beside its goal; whatever is left of it goes when this is dropped.
struct Partial(PathBuf);

impl Partial {
    fn beside(path: &Path) -> Partial {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}-{}.partial", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        Partial(path.with_file_name(name))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is nothing under this name, and nobody to tell if removal fails.
        let _ = fs::remove_file(&self.0);
    }
}
