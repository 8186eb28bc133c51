//! The index of a checkpoint in several files: `*.safetensors.index.json`, whose `weight_map` names each tensor's file.

use super::file::TensorFile;
use super::safetensors::{MAX_HEADER_BYTES, shown};
use crate::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

/// Reads an index: tensor names to file names, which are known to stay inside the index's folder. `path` is for
/// messages only.
///
/// # Errors
/// [`Error::File`] that says what is wrong.
pub fn parse(path: &Path, json: &[u8]) -> Result<BTreeMap<String, String>> {
    let fail = |why: String| Err(Error::file(path, why));
    let mut json: Value = match serde_json::from_slice(json) {
        Ok(json) => json,
        Err(e) => return fail(format!("the index is not JSON: {e}")),
    };
    let Some(Value::Object(map)) = json.get_mut("weight_map").map(Value::take) else {
        return fail("the index has no `weight_map`, or not as an object".into());
    };
    let mut shards = BTreeMap::new();
    for (name, shard) in map {
        let Value::String(shard) = shard else {
            return fail(format!("the shard of tensor {} is not a string", shown(&name)));
        };
        let inside = Path::new(&shard).components().all(|c| matches!(c, Component::Normal(_)));
        if !inside || shard.is_empty() || shard.contains('\0') {
            return fail(format!(
                "shard {} of tensor {} is not a file inside of the folder",
                shown(&shard),
                shown(&name)
            ));
        }
        shards.insert(name, shard);
    }
    Ok(shards)
}

/// Opens all shards of an index. Returns them with the tensors' places among them.
pub(super) fn open(path: &Path) -> Result<(Vec<TensorFile>, BTreeMap<String, usize>)> {
    let mut json = Vec::new();
    let limit = MAX_HEADER_BYTES as u64;
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut json));
    if read.map_err(|e| Error::io(path, e))? as u64 > limit {
        return Err(Error::file(path, format!("the index is longer than the {limit} bytes allowed")));
    }
    let (mut files, mut tensors) = (Vec::new(), BTreeMap::new());
    let mut places = BTreeMap::new();
    for (name, shard) in parse(path, &json)? {
        let place = match places.get(&shard) {
            Some(&place) => place,
            None => {
                let file = path.with_file_name(&shard);
                if !file.is_file() {
                    let why = format!("shard {} of tensor {} is missing from the folder", shown(&shard), shown(&name));
                    return Err(Error::file(path, why));
                }
                files.push(TensorFile::open(&file)?);
                places.insert(shard, files.len() - 1);
                files.len() - 1
            }
        };
        if !files[place].tensors().contains_key(&name) {
            let why = format!("it lacks tensor {}, which {} places in it", shown(&name), path.display());
            return Err(Error::file(files[place].path(), why));
        }
        tensors.insert(name, place);
    }
    Ok((files, tensors))
}
