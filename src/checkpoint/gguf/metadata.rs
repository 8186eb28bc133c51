//! The metadata of a file, decoded when they are asked for.

use super::cursor::Cursor;
use super::value::{Kind, List, MAX_DEPTH, Value};
use crate::checkpoint::safetensors::shown;
use crate::{Error, Result};
use serde_json::{Map, Number, Value as Json, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// The metadata of a file and the bytes that they lie in. Its methods fail with the file and the key in the message
/// where a value has another type, and give `None` where there is no such key.
#[derive(Clone, Copy)]
pub struct Metadata<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    values: &'a BTreeMap<String, Value>,
}

impl<'a> Metadata<'a> {
    /// The metadata of the file that `bytes` are the content of, from which `values` were [parsed](super::parse).
    pub fn new(path: &'a Path, bytes: &'a [u8], values: &'a BTreeMap<String, Value>) -> Metadata<'a> {
        Metadata { path, bytes, values }
    }

    /// The file.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.values.keys().map(String::as_str)
    }

    /// A value.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.values.get(key)
    }

    /// What `found` makes of a value, or an error that says what was `want`ed.
    fn typed<T>(&self, key: &str, want: &str, found: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match found(value) {
            Some(found) => Ok(Some(found)),
            None => Err(self.wrong(key, want)),
        }
    }

    /// A key whose value is not what it must be.
    pub fn wrong(&self, key: &str, want: &str) -> Error {
        let have = self.get(key).map_or("absent".into(), |value| self.text_of(value));
        Error::file(self.path, format!("metadata key `{key}` must be {want}, is {have}"))
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a text of UTF-8", |value| match value {
            Value::Text(range) => self.utf8(range),
            _ => None,
        })
    }

    /// A whole number that is not negative.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |value| match value {
            Value::Unsigned(n) => usize::try_from(*n).ok(),
            Value::Signed(n) => usize::try_from(*n).ok(),
            _ => None,
        })
    }

    /// A token's id.
    pub fn id(&self, key: &str) -> Result<Option<u32>> {
        let id = self.size(key)?.map(u32::try_from);
        id.transpose().map_err(|_| self.wrong(key, "an id of 32 bits"))
    }

    /// A finite number. One that is stored as f32 becomes the f64 of its shortest decimal text: 1e-5, not
    /// 9.999999747378752e-6.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a finite number", |value| match value {
            Value::Unsigned(n) => Some(*n as f64),
            Value::Signed(n) => Some(*n as f64),
            Value::F32(x) => widened(*x),
            Value::F64(x) => x.is_finite().then_some(*x),
            _ => None,
        })
    }

    /// Yes or no.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        self.typed(key, "a list of texts of UTF-8", |value| match value {
            Value::List(list) if list.kind == Kind::Text => {
                self.items(list).map(|item| self.utf8(&item.text()?)).collect()
            }
            _ => None,
        })
    }

    /// A list of floats.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.typed(key, "a list of f32", |value| match value {
            Value::List(list) if list.kind == Kind::F32 => self.items(list).map(Item::f32).collect(),
            _ => None,
        })
    }

    /// A list of whole numbers that fit i32.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.typed(key, "a list of integers that fit i32", |value| match value {
            Value::List(list) => self.items(list).map(Item::i32).collect(),
            _ => None,
        })
    }

    fn utf8(&self, range: &Range<usize>) -> Option<&'a str> {
        str::from_utf8(self.bytes.get(range.clone())?).ok()
    }

    fn items(&self, list: &'a List) -> impl Iterator<Item = Item> + use<'a> {
        // The values were walked through when the file was opened: they are all there.
        let mut at = Cursor::new(self.bytes.get(..list.range.end).unwrap_or_default());
        let opened = at.skip(list.range.start, "").is_ok();
        let kind = list.kind;
        (0..if opened { list.len } else { 0 })
            .map_while(move |_| Value::read_as(&mut at, kind, MAX_DEPTH).ok())
            .map(Item)
    }

    /// A value as text on one line; long lists and texts are cut.
    pub fn text_of(&self, value: &Value) -> String {
        const LONGEST: usize = 8;
        match value {
            Value::Text(range) => shown(&self.lossy(range)),
            Value::List(list) => {
                let first: Vec<String> = self.items(list).take(LONGEST).map(|item| self.text_of(&item.0)).collect();
                let more = if list.len > LONGEST { format!(", … ({})", list.len) } else { String::new() };
                format!("[{}{more}]", first.join(", "))
            }
            Value::Unsigned(n) => n.to_string(),
            Value::Signed(n) => n.to_string(),
            Value::F32(x) => x.to_string(),
            Value::F64(x) => x.to_string(),
            Value::Bool(flag) => flag.to_string(),
        }
    }

    /// All of them as JSON. Lists longer than `longest` become objects that tell their type and length.
    pub fn to_json(&self, longest: usize) -> Map<String, Json> {
        self.values.iter().map(|(key, value)| (key.clone(), self.json_of(value, longest))).collect()
    }

    fn json_of(&self, value: &Value, longest: usize) -> Json {
        let number = |x: Option<f64>| x.and_then(Number::from_f64).map_or(Json::Null, Json::Number);
        match value {
            Value::Text(range) => Json::String(self.lossy(range)),
            Value::List(list) if list.len > longest => json!({"type": format!("{:?}", list.kind), "length": list.len}),
            Value::List(list) => self.items(list).map(|item| self.json_of(&item.0, longest)).collect(),
            Value::Unsigned(n) => json!(n),
            Value::Signed(n) => json!(n),
            Value::F32(x) => number(widened(*x)),
            Value::F64(x) => number(Some(*x)),
            Value::Bool(flag) => json!(flag),
        }
    }

    fn lossy(&self, range: &Range<usize>) -> String {
        String::from_utf8_lossy(self.bytes.get(range.clone()).unwrap_or_default()).into_owned()
    }
}

/// A value of a list.
struct Item(Value);

impl Item {
    fn text(self) -> Option<Range<usize>> {
        if let Value::Text(range) = self.0 { Some(range) } else { None }
    }

    fn f32(self) -> Option<f32> {
        if let Value::F32(x) = self.0 { Some(x) } else { None }
    }

    fn i32(self) -> Option<i32> {
        match self.0 {
            Value::Unsigned(n) => n.try_into().ok(),
            Value::Signed(n) => n.try_into().ok(),
            _ => None,
        }
    }
}

/// The f64 that the shortest text of a finite f32 reads as: what whoever wrote it most likely meant.
fn widened(x: f32) -> Option<f64> {
    if x.is_finite() { x.to_string().parse().ok() } else { None }
}
