//! One `.safetensors` file: eight bytes that tell the length of the header (little endian), the header in JSON, the data.
//!
//! The format: <https://huggingface.co/docs/safetensors>. Files come from strangers: every number in the header is
//! checked against the bytes that are there before it is used, and nothing is allocated by what a file claims.

use super::file::Entry;
use super::stored::StoredDType;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

/// Longer headers are refused, as by every reader of the format.
pub const MAX_HEADER_BYTES: usize = 100_000_000;

/// The header's key that is not a tensor.
pub(super) const METADATA: &str = "__metadata__";

/// A checked header: its tensors cover the data of the file without gap or overlap.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// The tensors by name.
    pub tensors: BTreeMap<String, Entry>,
    /// The free-form texts under `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

/// Reads the header of a file whose content is `bytes`; `path` is for messages only.
///
/// # Errors
/// [`Error::File`] that says what is wrong with the first thing that is.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Index> {
    parse_header(bytes).map_err(|why| Error::file(path, why))
}

fn parse_header(bytes: &[u8]) -> Result<Index, String> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(format!("{} bytes are too few for the 8 bytes of header length at the start", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    let Some(length) = usize::try_from(length).ok().filter(|&n| n <= rest.len()) else {
        return Err(format!("a header of {length} bytes is announced, but only {} bytes follow", rest.len()));
    };
    if length > MAX_HEADER_BYTES {
        return Err(format!("its header has {length} bytes, more than the {MAX_HEADER_BYTES} allowed"));
    }
    let (header, data) = rest.split_at(length);
    let header = str::from_utf8(header).map_err(|e| format!("the header is not UTF-8 at byte {}", e.valid_up_to()))?;
    let json = serde_json::from_str(header).map_err(|e| format!("the header is not JSON: {e}"))?;
    let Value::Object(mut map) = json else {
        return Err("the header is not a JSON object".into());
    };
    if let Some(name) = repeated_key(header, map.len()) {
        return Err(format!("{} stands twice in the header", shown(&name)));
    }
    let metadata = map.remove(METADATA).map_or(Ok(BTreeMap::new()), metadata)?;
    let mut tensors = BTreeMap::new();
    for (name, info) in map {
        match entry(&info, data.len()) {
            Ok(entry) => tensors.insert(name, entry),
            Err(why) => return Err(format!("tensor {}: {why}", shown(&name))),
        };
    }
    cover(&tensors, data.len())?;
    for entry in tensors.values_mut() {
        entry.range = entry.range.start + 8 + length..entry.range.end + 8 + length;
    }
    Ok(Index { tensors, metadata })
}

fn metadata(value: Value) -> Result<BTreeMap<String, String>, String> {
    let wrong = || format!("`{METADATA}` is not an object of strings");
    let Value::Object(map) = value else { return Err(wrong()) };
    let text = |(key, value)| if let Value::String(text) = value { Ok((key, text)) } else { Err(wrong()) };
    map.into_iter().map(text).collect()
}

/// A tensor of the header, its range in bytes from the start of the data.
fn entry(info: &Value, data: usize) -> Result<Entry, String> {
    let info = info.as_object().ok_or("its entry is not an object")?;
    let dtype = info.get("dtype").and_then(Value::as_str).ok_or("it has no `dtype`, or not as a string")?;
    let known = StoredDType::PLAIN.iter().copied();
    let Some(dtype) = known.clone().find(|d| d.header_name() == Some(dtype)) else {
        let known: Vec<&str> = known.filter_map(StoredDType::header_name).collect();
        return Err(format!("dtype {} is unknown; known are {}", shown(dtype), known.join(", ")));
    };
    let shape = whole_numbers(info, "shape")?;
    let offsets = whole_numbers(info, "data_offsets")?;
    let &[start, end] = offsets.as_slice() else {
        return Err(format!("`data_offsets` holds {} numbers, not 2", offsets.len()));
    };
    if start > end || end > data {
        return Err(format!("offsets {start}..{end} lie outside of the data, which has {data} bytes"));
    }
    let Some(bytes) = dtype.bytes_of(&shape) else {
        return Err(format!("a shape of {} overflows", shown(&format!("{shape:?}"))));
    };
    if end - start != bytes {
        let shape = shown(&format!("{shape:?}"));
        return Err(format!(
            "{dtype} of shape {shape} takes {bytes} bytes, offsets {start}..{end} hold {}",
            end - start
        ));
    }
    Ok(Entry { dtype, shape, range: start..end })
}

fn whole_numbers(info: &Map<String, Value>, key: &str) -> Result<Vec<usize>, String> {
    let list = info.get(key).and_then(Value::as_array).ok_or_else(|| format!("it has no `{key}`, or not as a list"))?;
    let whole = |v: &Value| {
        let number = v.as_u64().and_then(|n| usize::try_from(n).ok());
        number.ok_or_else(|| format!("`{key}` holds {}, which is not a whole number of 64 bits", shown(&v.to_string())))
    };
    list.iter().map(whole).collect()
}

/// The data must belong to the tensors, each byte to one.
fn cover(tensors: &BTreeMap<String, Entry>, data: usize) -> Result<(), String> {
    let mut spans: Vec<(&Range<usize>, &str)> = tensors.iter().map(|(name, e)| (&e.range, name.as_str())).collect();
    spans.sort_by_key(|(range, _)| (range.start, range.end));
    let (mut at, mut last) = (0, "");
    for (range, name) in spans {
        if range.start < at {
            return Err(format!(
                "tensors {} and {} overlap at byte {} of the data",
                shown(last),
                shown(name),
                range.start
            ));
        }
        if range.start > at {
            return Err(format!("bytes {at}..{} of the data belong to no tensor", range.start));
        }
        (at, last) = (range.end, name);
    }
    if at == data { Ok(()) } else { Err(format!("bytes {at}..{data} of the data belong to no tensor")) }
}

/// A key that a JSON object, already known to be valid with `distinct` keys, repeats. (Parsers keep the last one.)
fn repeated_key(json: &str, distinct: usize) -> Option<String> {
    let keys = outer_keys(json);
    if keys.len() == distinct {
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut names = keys.into_iter().filter_map(|key| serde_json::from_str::<String>(key).ok());
    names.find(|name| !seen.insert(name.clone()))
}

/// The keys of a valid JSON object as they are written, with their quotes.
fn outer_keys(json: &str) -> Vec<&str> {
    let bytes = json.as_bytes();
    let (mut keys, mut text, mut depth, mut at) = (Vec::new(), 0..0, 0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let start = at;
                at += 1;
                while bytes.get(at).is_some_and(|&b| b != b'"') {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                text = start..at + 1;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b':' if depth == 1 => keys.extend(json.get(text.clone())),
            _ => {}
        }
        at += 1;
    }
    keys
}

/// A text of the file, fit for a message: on one line, without control characters, and not endless.
pub(super) fn shown(text: &str) -> String {
    const LIMIT: usize = 120;
    let mut escaped: String = text.chars().take(LIMIT).flat_map(char::escape_debug).collect();
    if text.chars().nth(LIMIT).is_some() {
        escaped.push('…');
    }
    format!("`{escaped}`")
}
