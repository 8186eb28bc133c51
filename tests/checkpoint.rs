//! Checkpoints through the public interface: bad files are errors that say what is wrong, good ones give their values.

use lapidary::checkpoint::synth::Model;
use lapidary::checkpoint::{Checkpoint, StoredDType, TensorSpec, safetensors, sharded, write_safetensors};
use lapidary::{DType, Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("lapidary-checkpoint-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file with these tensors of one extent.
    fn write<T: bytemuck::Pod>(&self, file: &str, dtype: StoredDType, tensors: &[(&str, &[T])]) {
        let specs = tensors.iter().map(|(name, values)| TensorSpec::new(*name, dtype, &[values.len()]));
        let values = |name: &str| tensors.iter().find(|t| t.0 == name).unwrap().1;
        write_safetensors(self.path(file), specs, |t, sink| sink.put(bytemuck::cast_slice(values(&t.name)))).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn message<T>(result: Result<T>) -> String {
    result.err().expect("it should be refused").to_string()
}

/// The files of the fuzzer's corpus, and what the error must say; nothing where they are valid.
const CORPUS: &[(&str, &str)] = &[
    ("valid-two-tensors", ""),
    ("valid-no-tensors", ""),
    ("valid-padded-header", ""),
    ("valid-scalar-and-empty", ""),
    ("valid-unaligned", ""),
    ("valid-escaped-names", ""),
    ("empty", "0 bytes are too few"),
    ("short-length", "4 bytes are too few"),
    ("length-only", "a header of 2 bytes is announced, but only 0 bytes follow"),
    ("length-2-60", "a header of 1152921504606846976 bytes is announced, but only 2 bytes follow"),
    ("length-max", "a header of 18446744073709551615 bytes is announced"),
    ("length-zero", "the header is not JSON"),
    ("header-truncated", "is announced, but only 22 bytes follow"),
    ("header-cut-by-length", "the header is not JSON: EOF"),
    ("data-truncated", "tensor `w`: offsets 0..16 lie outside of the data, which has 15 bytes"),
    ("data-too-long", "bytes 16..17 of the data belong to no tensor"),
    ("data-with-hole", "bytes 2..3 of the data belong to no tensor"),
    ("overlap", "tensors `a` and `b` overlap at byte 4"),
    ("same-range", "tensors `a` and `b` overlap at byte 0"),
    ("offsets-reversed", "offsets 4..0 lie outside"),
    ("offsets-three", "`data_offsets` holds 3 numbers"),
    ("offsets-missing", "it has no `data_offsets`"),
    ("offsets-beyond-u64", "which is not a whole number of 64 bits"),
    ("offsets-max", "offsets 0..18446744073709551615 lie outside"),
    ("size-mismatch", "f32 of shape `[3]` takes 12 bytes, offsets 0..8 hold 8"),
    ("shape-huge", "a shape of `[1099511627776, 1099511627776]` overflows"),
    ("shape-huge-with-zero", "overflows"),
    ("shape-negative", "`shape` holds `-1`"),
    ("shape-fraction", "`shape` holds `1.5`"),
    ("shape-text", "it has no `shape`, or not as a list"),
    ("dtype-unknown", "dtype `F33` is unknown; known are F64, F32"),
    ("dtype-number", "it has no `dtype`, or not as a string"),
    ("dtype-control-characters", "tensor `a\\u{1b}[2J`: dtype `\\u{1b}[31m\\n` is unknown"),
    ("entry-list", "its entry is not an object"),
    ("name-twice", "`a` stands twice"),
    ("metadata-number", "`__metadata__` is not an object of strings"),
    ("metadata-twice", "`__metadata__` stands twice"),
    ("json-list", "the header is not a JSON object"),
    ("json-garbage", "the header is not JSON: EOF"),
    ("json-trailing", "trailing characters"),
    ("json-deep", "recursion limit"),
    ("utf8-bad", "the header is not UTF-8 at byte 2"),
    ("utf8-surrogate", "the header is not JSON"),
    ("index-valid", "is announced"),
    ("index-escape", "is announced"),
];

#[test]
fn the_fuzz_corpus_gets_its_verdicts() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/checkpoint");
    let folder = Folder::new();
    let file = folder.path("model.safetensors");
    // Files that a fuzzer added are not in the table; they must only come back.
    for path in fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()) {
        let bytes = fs::read(path).unwrap();
        let _ = (safetensors::parse(&file, &bytes), sharded::parse(&file, &bytes));
    }
    for (name, want) in CORPUS {
        let bytes = fs::read(corpus.join(name)).unwrap();
        fs::write(&file, &bytes).unwrap();
        let parsed = safetensors::parse(&file, &bytes);
        let opened = Checkpoint::open(&folder.0);
        if want.is_empty() {
            let (parsed, opened) = (parsed.unwrap(), opened.unwrap());
            assert!(opened.names().eq(parsed.tensors.keys()), "{name}");
            assert!(opened.iter().all(|t| t.dtype.bytes_of(&t.shape) == Some(t.bytes.len())), "{name}");
            assert!(
                ::safetensors::SafeTensors::deserialize(&bytes).is_ok(),
                "{name}: the format's own reader disagrees"
            );
            continue;
        }
        let parsed = message(parsed);
        assert!(parsed.starts_with(file.to_str().unwrap()) && parsed.contains(want), "{name}: {parsed}");
        let opened = message(opened);
        assert!(opened == parsed || bytes.is_empty() && opened.contains("empty"), "{name}: {opened}");
    }
}

#[test]
fn values_come_back_whatever_their_alignment() {
    let bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/checkpoint/valid-unaligned")).unwrap();
    let folder = Folder::new();
    fs::write(folder.path("any-name.safetensors"), bytes).unwrap();
    let checkpoint = Checkpoint::open(&folder.0).unwrap();
    assert_eq!(checkpoint.get("b").unwrap().to_vec::<f32>().unwrap(), [2.5]);
    assert_eq!(checkpoint.get("b").unwrap().to_vec::<half::bf16>().unwrap(), [half::bf16::from_f32(2.5)]);
    assert_eq!(checkpoint.get("a").unwrap().to_i64().unwrap(), [1]);
    assert_eq!((checkpoint.len(), checkpoint.bytes()), (2, 5));
}

#[test]
fn header_of_more_than_100_mb_is_refused_unread() {
    let folder = Folder::new();
    let path = folder.path("model.safetensors");
    fs::write(&path, 150_000_000u64.to_le_bytes()).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(200_000_000).unwrap();
    assert!(message(Checkpoint::open(&path)).contains("150000000 bytes, more than the 100000000 allowed"));
}

#[test]
fn casts_keep_the_value_or_fail() {
    let folder = Folder::new();
    let path = folder.path("model.safetensors");
    folder.write("model.safetensors", StoredDType::I64, &[("ids", &[0i64, -1, 1 << 32]), ("ok", &[7, 1 << 31])]);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let ids = checkpoint.get("ids").unwrap();
    assert_eq!(ids.to_i64().unwrap(), [0, -1, 1 << 32]);
    let cast = |e: Error| match e {
        Error::Cast { value, index, dtype } => (value, index, dtype),
        other => panic!("{other}"),
    };
    assert_eq!(cast(ids.to_vec::<u32>().unwrap_err()), ("-1".into(), 1, DType::U32));
    assert_eq!(cast(ids.to_vec::<i32>().unwrap_err()), ("4294967296".into(), 2, DType::I32));
    assert_eq!(checkpoint.get("ok").unwrap().to_vec::<u32>().unwrap(), [7, 1 << 31]);
    assert_eq!(checkpoint.get("ok").unwrap().to_vec::<f32>().unwrap(), [7.0, 2147483648.0]);

    folder.write("model.safetensors", StoredDType::F32, &[("whole", &[3f32, -0.0]), ("half", &[1.0, 0.5, f32::NAN])]);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.get("whole").unwrap().to_vec::<u8>().unwrap(), [3, 0]);
    assert_eq!(cast(checkpoint.get("half").unwrap().to_vec::<i32>().unwrap_err()), ("0.5".into(), 1, DType::I32));
    assert!(
        message(checkpoint.get("whole").unwrap().to_i64()).contains("must be made of integers that fit i64, is f32")
    );

    folder.write("model.safetensors", StoredDType::U64, &[("big", &[1u64, u64::MAX])]);
    let big = Checkpoint::open(&path).unwrap().get("big").unwrap();
    assert!(message(big.to_i64()).contains("18446744073709551615 at index 1"));
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let folder = Folder::new();
    let names = ["vit.layer.0.query.weight", "vit.layer.1.query.weight", "vit.layer.0.query.bias", "head.weight"];
    let tensors: Vec<(&str, &[f32])> = names.iter().map(|&name| (name, [1f32, 2.0].as_slice())).collect();
    folder.write("model.safetensors", StoredDType::F32, &tensors);
    let weights = Checkpoint::open(&folder.0).unwrap().weights();
    let layer = weights.sub("vit").at("layer", 0);
    assert_eq!(layer.full("query.bias"), "vit.layer.0.query.bias");
    assert!(layer.contains("query.bias") && !layer.contains("bias") && !weights.contains("query.bias"));
    assert_eq!(layer.stored("query.bias", &[2]).unwrap().to_vec::<f32>().unwrap(), [1.0, 2.0]);

    let Err(Error::MissingTensor { name, nearest, .. }) = layer.stored("query.wieght", &[2]) else { panic!() };
    assert_eq!(name, "vit.layer.0.query.wieght");
    assert_eq!(nearest[..2], ["vit.layer.0.query.weight", "vit.layer.1.query.weight"]);
    assert_eq!(nearest.len(), 3);

    let Err(Error::WrongTensor { name, want, have, .. }) = layer.stored("query.bias", &[2, 1]) else { panic!() };
    assert_eq!((&*name, &*want, &*have), ("vit.layer.0.query.bias", "of shape [2, 1]", "of shape [2]"));
}

#[test]
fn sharded_checkpoints_open_whole_or_not_at_all() {
    let folder = Folder::new();
    folder.write("m-1.safetensors", StoredDType::F32, &[("a", &[1f32])]);
    folder.write("m-2.safetensors", StoredDType::U8, &[("b", &[2u8]), ("c", &[3])]);
    let open = |index: &str| {
        fs::write(folder.path("model.safetensors.index.json"), index).unwrap();
        Checkpoint::open(&folder.0)
    };
    let good = r#"{"metadata":{"total_size":6},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors","c":"m-2.safetensors"}}"#;
    let checkpoint = open(good).unwrap();
    assert!(checkpoint.names().eq(["a", "b", "c"]));
    assert_eq!((checkpoint.files().len(), checkpoint.bytes()), (2, 6));
    assert_eq!(checkpoint.get("c").unwrap().to_i64().unwrap(), [3]);

    for (index, want) in [
        (r#"{"weight_map":{"a":"m-3.safetensors"}}"#, "shard `m-3.safetensors` of tensor `a` is missing"),
        (r#"{"weight_map":{"z":"m-1.safetensors"}}"#, "m-1.safetensors: it lacks tensor `z`"),
        (r#"{"weight_map":{"a":"../m-1.safetensors"}}"#, "is not a file inside of the folder"),
        (r#"{"weight_map":{"a":"x/../../m-1.safetensors"}}"#, "is not a file inside of the folder"),
        (r#"{"weight_map":{"a":"/etc/passwd"}}"#, "shard `/etc/passwd` of tensor `a` is not a file inside"),
        (r#"{"weight_map":{"a":""}}"#, "is not a file inside of the folder"),
        (r#"{"weight_map":{"a":1}}"#, "the shard of tensor `a` is not a string"),
        (r#"{"weight_map":[]}"#, "no `weight_map`"),
        ("{", "the index is not JSON"),
    ] {
        let have = message(open(index));
        assert!(have.contains(want), "{index}: {have}");
    }
    fs::remove_file(folder.path("model.safetensors.index.json")).unwrap();
    assert!(message(Checkpoint::open(&folder.0)).contains("open one of them: m-1.safetensors, m-2.safetensors"));
    assert!(message(Checkpoint::open(folder.path("absent"))).contains("No such file"));
    let empty = Folder::new();
    assert!(message(Checkpoint::open(&empty.0)).contains("the folder holds no .safetensors file"));
}

#[test]
fn written_files_are_read_by_others_and_failures_leave_nothing() {
    let folder = Folder::new();
    let path = folder.path("model.safetensors");
    let specs = || [TensorSpec::new("b", DType::U8, &[3]), TensorSpec::new("a", DType::F32, &[2])];
    write_safetensors(&path, specs(), |t, sink| {
        for _ in 0..t.shape[0] {
            sink.put(&[1, 0, 0, 0][..t.dtype.bytes()])?;
        }
        Ok(())
    })
    .unwrap();
    let bytes = fs::read(&path).unwrap();
    let theirs = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(theirs.tensor("a").unwrap().data(), [1, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(theirs.tensor("b").unwrap().data(), [1, 1, 1]);
    assert_eq!(Checkpoint::open(&path).unwrap().get("a").unwrap().bytes.as_ptr() as usize % 8, 0);

    let bad = folder.path("bad.safetensors");
    let short = write_safetensors(&bad, specs(), |_, sink| sink.put(&[0]));
    assert!(message(short).contains("tensor `a` was given 1 of its 8 bytes"));
    let long = write_safetensors(&bad, specs(), |_, sink| sink.put(&[0; 10]));
    assert!(message(long).contains("tensor `a` was given 2 bytes too many"));
    let twice = write_safetensors(&bad, specs().into_iter().chain(specs()), |_, _| Ok(()));
    assert!(message(twice).contains("a second tensor `a`"));
    let huge = write_safetensors(&bad, [TensorSpec::new("h", DType::F32, &[1 << 40, 1 << 40])], |_, _| Ok(()));
    assert!(message(huge).contains("is too large"));
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[test]
fn synthetic_models_have_the_published_size() {
    assert_eq!(Model::find("vit-b16").unwrap().bytes() / 4, 86_567_656);
    // Two i64 buffers of positions are not parameters.
    assert_eq!((Model::find("clip-vit-l14-336").unwrap().bytes() - 8 * (77 + 577)) / 4, 427_944_193);
    assert_eq!(Model::find("tinyllama-1.1b").unwrap().bytes() / 2, 1_100_048_384);
    assert!(message(Model::find("vit").map(|_| ())).contains("known are vit-b16, tinyllama-1.1b"));
}
