//! Arbitrary bytes as a GGUF file: an error at worst; what is accepted lies inside of the file, and all of its metadata
//! can be read.
#![no_main]

use lapidary::checkpoint::gguf;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("fuzz.gguf");
    let Ok(index) = gguf::parse(path, bytes) else { return };
    for (name, entry) in &index.tensors {
        assert_eq!(Some(entry.range.len()), entry.dtype.bytes_of(&entry.shape), "{name}");
        assert!(bytes.get(entry.range.clone()).is_some(), "{name}");
    }
    let metadata = gguf::Metadata::new(path, bytes, &index.metadata);
    assert_eq!(metadata.to_json(usize::MAX).len(), index.metadata.len());
    for key in metadata.keys() {
        metadata.get(key).map(|value| metadata.text_of(value)).expect("the key was listed");
        let _ = (metadata.text(key), metadata.size(key), metadata.number(key), metadata.flag(key));
        let _ = (metadata.texts(key), metadata.floats(key), metadata.integers(key));
    }
    if let Ok(tensors) = gguf::published_names(path, bytes, &index) {
        let _ = gguf::config(&metadata, &tensors);
    }
});
