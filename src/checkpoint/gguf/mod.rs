//! One `.gguf` file: a count of metadata and of tensors, typed metadata, what lies where, and the data, little endian.
//!
//! The format, versions 2 and 3: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Files come from strangers:
//! every number is checked against the bytes that are there before it is used, and nothing is allocated by what a file
//! claims. Metadata stay where they lie and are read when they are asked for.

mod config;
mod cursor;
mod metadata;
mod names;
mod value;

pub use config::config;
pub use metadata::Metadata;
pub use names::published_names;
pub use value::{Kind, List, Value};

use super::file::Entry;
use super::safetensors::shown;
use super::stored::{Foreign, StoredDType};
use crate::{Error, Quant, Result};
use cursor::Cursor;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry::{Occupied, Vacant};
use std::path::Path;

/// What a file begins with.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// The most dimensions of a tensor.
const MAX_DIMS: u32 = 4;
/// Data of tensors begin at multiples of this, unless `general.alignment` says another.
const ALIGNMENT: usize = 32;
/// The fewest bytes that a key with its value can take.
const LEAST_KEY: usize = 8 + 4 + 1;
/// The fewest bytes that can say what a tensor is.
const LEAST_TENSOR: usize = 8 + 4 + 4 + 8;

/// A checked header: its tensors lie in the file, aligned, and do not overlap.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// The version of the format.
    pub version: u32,
    /// The metadata, by key.
    pub metadata: BTreeMap<String, Value>,
    /// The tensors, by the names in the file. (Their extents are outermost first, unlike in the file.)
    pub tensors: BTreeMap<String, Entry>,
}

/// Reads the header of a file whose content is `bytes`; `path` is for messages only.
///
/// # Errors
/// [`Error::File`] that says what is wrong with the first thing that is.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Index> {
    parse_header(path, bytes).map_err(|why| Error::file(path, why))
}

fn parse_header(path: &Path, bytes: &[u8]) -> Result<Index, String> {
    let mut at = Cursor::new(bytes);
    if at.take(4, "the letters GGUF at the start")? != MAGIC {
        return Err(format!("a GGUF file begins with the letters GGUF, not with bytes {:02x?}", &bytes[..4]));
    }
    let version = at.u32("the version")?;
    match version {
        2 | 3 => {}
        _ if matches!(version.swap_bytes(), 1..=3) => {
            return Err("it is a big-endian file; only little-endian ones can be read".into());
        }
        _ => return Err(format!("it is of version {version}; known are 2 and 3")),
    }
    let tensors = at.u64("the number of tensors")?;
    let keys = at.u64("the number of metadata keys")?;
    let keys = at.fits(keys, LEAST_KEY, "metadata keys")?;
    let mut metadata = BTreeMap::new();
    for i in 0..keys {
        let key = at.text(&format!("the name of metadata key {i}"))?;
        let value = Value::read(&mut at).map_err(|why| format!("metadata key {}: {why}", shown(key)))?;
        match metadata.entry(key.to_string()) {
            Vacant(place) => place.insert(value),
            Occupied(_) => return Err(format!("metadata key {} stands twice", shown(key))),
        };
    }
    let tensors = at.fits(tensors, LEAST_TENSOR, "tensors")?;
    let mut infos = BTreeMap::new();
    for i in 0..tensors {
        let name = at.text(&format!("the name of tensor {i}"))?;
        let info = Info::read(&mut at).map_err(|why| format!("tensor {}: {why}", shown(name)))?;
        match infos.entry(name.to_string()) {
            Vacant(place) => place.insert(info),
            Occupied(_) => return Err(format!("tensor {} stands twice", shown(name))),
        };
    }
    let alignment = alignment(&Metadata::new(path, bytes, &metadata))?;
    // Where nothing has data, the file may end before the padding.
    let start = at.at().checked_next_multiple_of(alignment).unwrap_or(usize::MAX).min(bytes.len());
    let mut tensors = BTreeMap::new();
    for (name, info) in infos {
        match info.entry(start, bytes.len(), alignment) {
            Ok(entry) => tensors.insert(name, entry),
            Err(why) => return Err(format!("tensor {}: {why}", shown(&name))),
        };
    }
    disjoint(&tensors)?;
    Ok(Index { version, metadata, tensors })
}

fn alignment(metadata: &Metadata<'_>) -> Result<usize, String> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(ALIGNMENT) };
    match value {
        Value::Unsigned(n) if n.is_power_of_two() => usize::try_from(*n).map_err(|e| e.to_string()),
        _ => Err(format!("`general.alignment` must be a power of two, is {}", metadata.text_of(value))),
    }
}

/// What the file says of a tensor.
struct Info {
    dtype: StoredDType,
    shape: Vec<usize>,
    offset: u64,
}

impl Info {
    fn read(at: &mut Cursor<'_>) -> Result<Info, String> {
        let dims = at.u32("its number of dimensions")?;
        if dims > MAX_DIMS {
            return Err(format!("it has {dims} dimensions; {MAX_DIMS} are the most"));
        }
        let mut shape = Vec::new();
        for _ in 0..dims {
            let extent = at.u64("its extents")?;
            let fits = usize::try_from(extent).ok().filter(|&n| n <= isize::MAX as usize);
            shape.push(fits.ok_or_else(|| format!("an extent of {extent} is too large"))?);
        }
        shape.reverse();
        let code = at.u32("its type")?;
        let dtype = dtype(code).ok_or_else(|| format!("its type {code} is unknown"))?;
        Ok(Info { dtype, shape, offset: at.u64("its offset")? })
    }

    /// With its place in a file of `len` bytes whose data begin at `start`.
    fn entry(self, start: usize, len: usize, alignment: usize) -> Result<Entry, String> {
        let Info { dtype, shape, offset } = self;
        let values = dtype.block_values();
        if !shape.last().copied().unwrap_or(1).is_multiple_of(values) {
            return Err(format!("rows of {dtype} are made of blocks of {values} values, the shape is {shape:?}"));
        }
        let bytes = dtype.bytes_of(&shape).ok_or_else(|| format!("a shape of {shape:?} overflows"))?;
        if !offset.is_multiple_of(alignment as u64) {
            return Err(format!("its offset {offset} is not a multiple of the alignment {alignment}"));
        }
        let place = usize::try_from(offset).ok().and_then(|offset| {
            let from = start.checked_add(offset)?;
            Some(from..from.checked_add(bytes)?).filter(|range| range.end <= len)
        });
        let range = place.ok_or_else(|| {
            let data = len - start;
            format!("{bytes} bytes at offset {offset} lie outside of the data, which have {data} bytes")
        })?;
        Ok(Entry { dtype, shape, range })
    }
}

/// No byte may belong to two tensors. (There may be padding between them.)
fn disjoint(tensors: &BTreeMap<String, Entry>) -> Result<(), String> {
    let mut spans: Vec<_> = tensors.iter().filter(|(_, e)| !e.range.is_empty()).collect();
    spans.sort_by_key(|(_, e)| (e.range.start, e.range.end));
    for pair in spans.windows(2) {
        let [(first, a), (second, b)] = pair else { continue };
        if b.range.start < a.range.end {
            let (first, second) = (shown(first), shown(second));
            return Err(format!("tensors {first} and {second} overlap at byte {} of the file", b.range.start));
        }
    }
    Ok(())
}

/// The element type of a number in a file. Those without a [`Quant`] can be listed and measured only.
fn dtype(code: u32) -> Option<StoredDType> {
    let foreign = |name, block_values, block_bytes| StoredDType::Foreign(Foreign { name, block_values, block_bytes });
    Some(match code {
        0 => StoredDType::F32,
        1 => StoredDType::F16,
        24 => StoredDType::I8,
        25 => StoredDType::I16,
        26 => StoredDType::I32,
        27 => StoredDType::I64,
        28 => StoredDType::F64,
        30 => StoredDType::BF16,
        2 => StoredDType::Blocks(Quant::Q4_0),
        3 => StoredDType::Blocks(Quant::Q4_1),
        8 => StoredDType::Blocks(Quant::Q8_0),
        12 => StoredDType::Blocks(Quant::Q4_K),
        14 => StoredDType::Blocks(Quant::Q6_K),
        6 => foreign("q5_0", 32, 22),
        7 => foreign("q5_1", 32, 24),
        9 => foreign("q8_1", 32, 36),
        10 => foreign("q2_k", 256, 84),
        11 => foreign("q3_k", 256, 110),
        13 => foreign("q5_k", 256, 176),
        15 => foreign("q8_k", 256, 292),
        16 => foreign("iq2_xxs", 256, 66),
        17 => foreign("iq2_xs", 256, 74),
        18 => foreign("iq3_xxs", 256, 98),
        19 => foreign("iq1_s", 256, 50),
        20 => foreign("iq4_nl", 32, 18),
        21 => foreign("iq3_s", 256, 110),
        22 => foreign("iq2_s", 256, 82),
        23 => foreign("iq4_xs", 256, 136),
        29 => foreign("iq1_m", 256, 56),
        34 => foreign("tq1_0", 256, 54),
        35 => foreign("tq2_0", 256, 66),
        39 => foreign("mxfp4", 32, 17),
        40 => foreign("nvfp4", 64, 36),
        41 => foreign("q1_0", 128, 18),
        _ => return None,
    })
}
