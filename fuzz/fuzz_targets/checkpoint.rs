//! Arbitrary bytes as a safetensors file and as the index of a sharded one: an error at worst, and what is accepted
//! lies inside of the file.
#![no_main]

use lapidary::checkpoint::{safetensors, sharded};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(index) = safetensors::parse(Path::new("fuzz.safetensors"), bytes) {
        for (name, entry) in &index.tensors {
            assert_eq!(Some(entry.range.len()), entry.dtype.bytes_of(&entry.shape), "{name}");
            assert!(bytes.get(entry.range.clone()).is_some(), "{name}");
        }
    }
    if let Ok(shards) = sharded::parse(Path::new("fuzz.safetensors.index.json"), bytes) {
        assert!(shards.values().all(|shard| !shard.is_empty() && !shard.split('/').any(|part| part == "..")));
    }
});
