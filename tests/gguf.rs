//! GGUF files through the public interface: small ones written here, the fuzzer's corpus, and a real one where it is
//! there (`tests/fetch-weights.sh` brings it).

use lapidary::checkpoint::{Checkpoint, Folder, StoredDType, gguf};
use lapidary::nn::{Precision, Scope};
use lapidary::{DType, Device, Error, Format, Quant, Result};
#[cfg(feature = "text")]
use lapidary::{
    models::{self, llama::Llama, writing},
    nn::GenerateOptions,
    text::Message,
};
use std::fs;
#[cfg(feature = "text")]
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A file of its own, removed at the end.
struct File(PathBuf);

impl File {
    fn new(bytes: &[u8]) -> File {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("lapidary-{}-{}.gguf", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::write(&path, bytes).unwrap();
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes files of version 3.
#[derive(Clone, Default)]
struct Writer {
    keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: Vec<u8>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Writer {
    fn raw(mut self, key: &str, kind: u32, value: &[u8]) -> Writer {
        self.keys.push([&text(key), &kind.to_le_bytes()[..], value].concat());
        self
    }

    fn u32(self, key: &str, value: u32) -> Writer {
        self.raw(key, 4, &value.to_le_bytes())
    }

    fn f32(self, key: &str, value: f32) -> Writer {
        self.raw(key, 6, &value.to_le_bytes())
    }

    #[cfg(feature = "text")]
    fn flag(self, key: &str, value: bool) -> Writer {
        self.raw(key, 7, &[value.into()])
    }

    fn text(self, key: &str, value: &str) -> Writer {
        self.raw(key, 8, &text(value))
    }

    fn list(self, key: &str, kind: u32, values: impl IntoIterator<Item = Vec<u8>>) -> Writer {
        let values: Vec<Vec<u8>> = values.into_iter().collect();
        let head = [&kind.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        self.raw(key, 9, &[head, values.concat()].concat())
    }

    /// A tensor; `shape` is outermost first.
    fn tensor(mut self, name: &str, shape: &[u64], kind: u32, bytes: &[u8]) -> Writer {
        let mut info = [text(name), (shape.len() as u32).to_le_bytes().to_vec()].concat();
        info.extend(shape.iter().rev().flat_map(|extent| extent.to_le_bytes()));
        info.extend(kind.to_le_bytes());
        info.extend((self.data.len() as u64).to_le_bytes());
        self.tensors.push(info);
        self.data.extend(bytes);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self
    }

    /// The bytes before the data, without padding.
    fn header(&self) -> Vec<u8> {
        let counts = [self.tensors.len() as u64, self.keys.len() as u64].map(u64::to_le_bytes).concat();
        [&b"GGUF\x03\0\0\0"[..], &counts, &self.keys.concat(), &self.tensors.concat()].concat()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }

    fn file(&self) -> File {
        File::new(&self.bytes())
    }
}

/// What every Llama says.
fn llama() -> Writer {
    Writer::default()
        .text("general.architecture", "llama")
        .u32("llama.embedding_length", 64)
        .u32("llama.feed_forward_length", 96)
        .u32("llama.block_count", 1)
        .u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 2)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .u32("llama.vocab_size", 3)
}

fn floats(values: &[f32]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// Block `i` of 32 values: the numbers from `i - 16` on, as Q8_0 with a factor of 0.5.
fn q8_0(i: i32) -> Vec<u8> {
    let mut block = half::f16::from_f32(0.5).to_le_bytes().to_vec();
    block.extend((0..32).map(|q| (i - 16 + q) as i8 as u8));
    block
}

fn message<T>(result: Result<T>) -> String {
    result.err().expect("it should be refused").to_string()
}

/// The files of the fuzzer's corpus, and what the error must say; nothing where they are valid.
const CORPUS: &[(&str, &str)] = &[
    ("valid-empty", ""),
    ("valid-version-2", ""),
    ("valid-all-kinds", ""),
    ("valid-lists", ""),
    ("valid-tensors", ""),
    ("valid-llama", ""),
    ("valid-alignment-8", ""),
    ("valid-foreign", ""),
    ("empty", "takes 4 bytes at byte 0 of the file, where 0 are left"),
    ("magic-short", "takes 4 bytes at byte 0 of the file, where 3 are left"),
    ("magic-wrong", "begins with the letters GGUF, not with bytes [47, 47, 4d, 4c]"),
    ("version-1", "of version 1; known are 2 and 3"),
    ("version-4", "of version 4; known are 2 and 3"),
    ("version-big-endian", "a big-endian file"),
    ("keys-huge", "1152921504606846976 metadata keys are announced at byte 24"),
    ("keys-max", "18446744073709551615 metadata keys are announced"),
    ("keys-one-too-many", "2 metadata keys are announced at byte 24 of the file, where there is room for 1"),
    ("tensors-huge", "1152921504606846976 tensors are announced"),
    ("tensors-max", "18446744073709551615 tensors are announced"),
    ("key-length-max", "18446744073709551615 bytes of text are announced at byte 32"),
    ("key-not-utf8", "the name of metadata key 0 is not UTF-8 at byte 33 of the file"),
    ("key-twice", "metadata key `a` stands twice"),
    ("kind-unknown", "metadata key `a`: its type 13 is unknown"),
    ("flag-two", "metadata key `a`: a flag is 0 or 1, not 2"),
    ("flag-list-two", "metadata key `a`: flags are 0 or 1"),
    ("text-length-huge", "metadata key `a`: 4611686018427387904 bytes of text are announced"),
    (
        "text-length-one-more",
        "metadata key `a`: 3 bytes of text are announced at byte 45 of the file, where there is room for 2",
    ),
    ("list-length-huge", "metadata key `a`: 2305843009213693952 values are announced"),
    ("list-length-overflow", "metadata key `a`: 2305843009213693953 values are announced"),
    ("list-kind-unknown", "metadata key `a`: its type 99 is unknown"),
    ("list-text-cut", "metadata key `a`: 100 bytes of text are announced"),
    ("list-deep", "metadata key `a`: its lists are nested more than 4 deep"),
    ("list-of-lists-huge", "metadata key `a`: 1099511627776 values are announced"),
    ("alignment-zero", "`general.alignment` must be a power of two, is 0"),
    ("alignment-three", "`general.alignment` must be a power of two, is 3"),
    ("alignment-text", "`general.alignment` must be a power of two, is `32`"),
    ("alignment-2-63", "tensor `a`: 8 bytes at offset 0 lie outside of the data, which have 0 bytes"),
    ("name-not-utf8", "the name of tensor 0 is not UTF-8"),
    ("name-twice", "tensor `a` stands twice"),
    ("dims-five", "tensor `a`: it has 5 dimensions; 4 are the most"),
    ("dims-max", "tensor `a`: it has 4294967295 dimensions"),
    ("extent-max", "tensor `a`: an extent of 18446744073709551615 is too large"),
    ("extent-overflow", "tensor `a`: a shape of [1099511627776, 1099511627776] overflows"),
    ("extent-overflow-with-zero", "overflows"),
    ("extent-overflow-in-bytes", "tensor `a`: 9223372036854775808 bytes at offset 0 lie outside"),
    ("type-unknown", "tensor `a`: its type 99 is unknown"),
    ("type-removed", "tensor `a`: its type 4 is unknown"),
    ("row-within-block", "tensor `a`: rows of q8_0 are made of blocks of 32 values, the shape is [33]"),
    ("row-within-super-block", "tensor `a`: rows of q4_k are made of blocks of 256 values, the shape is [2, 128]"),
    ("scalar-of-blocks", "tensor `a`: rows of q4_0 are made of blocks of 32 values"),
    ("offset-unaligned", "tensor `a`: its offset 4 is not a multiple of the alignment 32"),
    ("offset-max", "tensor `a`: 8 bytes at offset 18446744073709551584 lie outside"),
    ("offset-outside", "tensor `a`: 8 bytes at offset 32 lie outside of the data, which have 8 bytes"),
    ("data-truncated", "tensor `a`: 12 bytes at offset 0 lie outside of the data, which have 11 bytes"),
    ("padding-truncated", "tensor `a`: 8 bytes at offset 0 lie outside of the data, which have 0 bytes"),
    ("header-cut-in-tensor", "tensor `a`: its offset takes 8 bytes at byte 49 of the file, where 0 are left"),
    ("overlap", "tensors `a` and `b` overlap at byte"),
    ("same-place", "tensors `a` and `b` overlap at byte"),
    ("two-names", "tensor `lm_head.weight` is there under two names"),
];

#[test]
fn the_fuzz_corpus_gets_its_verdicts() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/gguf");
    // Files that a fuzzer added are not in the table; they must only come back.
    for path in fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()) {
        let _ = gguf::parse(&path, &fs::read(&path).unwrap());
    }
    for (name, want) in CORPUS {
        let file = File::new(&fs::read(corpus.join(name)).unwrap());
        let opened = Checkpoint::open(&file.0);
        if want.is_empty() {
            let opened = opened.unwrap();
            assert!(opened.iter().all(|t| t.dtype.bytes_of(&t.shape) == Some(t.bytes.len())), "{name}");
            continue;
        }
        let have = message(opened);
        let empty = *name == "empty" && have.contains("the file is empty");
        assert!(have.starts_with(file.0.to_str().unwrap()) && (have.contains(want) || empty), "{name}: {have}");
    }
}

#[test]
fn a_cut_header_is_refused_wherever_it_is_cut() {
    let writer = llama()
        .list("tokenizer.ggml.tokens", 8, ["a", "bc", ""].map(text))
        .list("deep", 9, [[&[4, 0, 0, 0][..], &1u64.to_le_bytes(), &[7, 0, 0, 0]].concat()])
        .tensor("blk.0.attn_q.weight", &[2, 32], 8, &[q8_0(0), q8_0(1)].concat())
        .tensor("output_norm.weight", &[3], 0, &floats(&[1.0, 2.0, 3.0]));
    let (header, bytes) = (writer.header().len(), writer.bytes());
    let path = Path::new("cut.gguf");
    for len in 0..bytes.len() {
        let parsed = gguf::parse(path, &bytes[..len]);
        // What follows the last tensor is padding.
        let complete = len >= bytes.len() - 20;
        assert_eq!(parsed.is_ok(), complete, "{len} of {} bytes, the header has {header}", bytes.len());
    }
    assert!(gguf::parse(path, &bytes).is_ok());
}

#[test]
fn metadata_are_typed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/gguf");
    let open = |name: &str| Checkpoint::open(corpus.join(name)).unwrap();
    let file = open("valid-all-kinds");
    let m = file.files()[0].gguf().unwrap();
    assert_eq!(m.keys().count(), 12);
    assert_eq!(
        (m.size("a.u8").unwrap(), m.size("a.u16").unwrap(), m.size("a.u64").unwrap()),
        (Some(1), Some(513), Some(1 << 63))
    );
    assert!(message(m.size("a.i8")).contains("metadata key `a.i8` must be a whole number, is -1"));
    assert_eq!((m.number("a.i16").unwrap(), m.number("a.i64").unwrap()), (Some(-2.0), Some(-1099511627776.0)));
    assert_eq!((m.number("a.f32").unwrap(), m.number("a.f64").unwrap()), (Some(0.1), Some(2.5)));
    assert_eq!((m.text("a.text").unwrap(), m.flag("a.bool").unwrap()), (Some("héllo"), Some(true)));
    assert_eq!((m.text("absent").unwrap(), m.size("absent").unwrap(), m.texts("absent").unwrap()), (None, None, None));
    assert!(message(m.text("a.u32")).contains("`a.u32` must be a text of UTF-8, is 5"));
    assert!(message(m.texts("a.text")).contains("`a.text` must be a list of texts of UTF-8, is `héllo`"));

    let file = open("valid-lists");
    let m = file.files()[0].gguf().unwrap();
    assert_eq!(m.texts("l.texts").unwrap().unwrap(), ["a", "", "bc"]);
    assert_eq!(m.floats("l.numbers").unwrap().unwrap(), [1.0, 1.0]);
    assert!(message(m.integers("l.numbers")).contains("must be a list of integers that fit i32, is [1, 1]"));
    let json = serde_json::Value::Object(m.to_json(2));
    assert_eq!(json["l.nested"], serde_json::json!([[1, 2], ["x"]]));
    assert_eq!(json["l.texts"], serde_json::json!({"type": "Text", "length": 3}));
    assert_eq!(json["l.flags"], serde_json::json!([false, true]));
}

#[test]
fn quantised_tensors_are_read_as_blocks_and_as_numbers() {
    let matrix = [q8_0(0), q8_0(1), q8_0(2), q8_0(3)].concat();
    let file = llama()
        .tensor("blk.0.attn_q.weight", &[2, 64], 8, &matrix)
        .tensor("output_norm.weight", &[2], 1, &[0, 0x3c, 0, 0xc0])
        .tensor("blk.0.ffn_up.weight", &[1, 256], 13, &[0; 176])
        .file();
    let checkpoint = Checkpoint::open(&file.0).unwrap();
    let names = ["model.layers.0.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"];
    assert!(checkpoint.names().eq(names));
    let device = &Device::cpu().unwrap();
    let q = checkpoint.get(names[1]).unwrap();
    assert_eq!(
        (q.dtype, &*q.shape, q.count(), q.dtype.name()),
        (StoredDType::Blocks(Quant::Q8_0), &[2, 64][..], 128, "q8_0")
    );
    let blocks = q.tensor(device).unwrap();
    assert_eq!(
        (blocks.dtype(), blocks.format(), blocks.shape()),
        (DType::U8, Format::Blocks(Quant::Q8_0), &[2, 64][..])
    );
    assert_eq!((blocks.bytes(), blocks.to_bytes().unwrap()), (4 * 34, matrix));
    let want: Vec<f32> = (0..128).map(|i| 0.5 * (i / 32 - 16 + i % 32) as f32).collect();
    assert_eq!(q.to_vec::<f32>().unwrap(), want);
    assert_eq!(q.tensor_as(device, DType::F32).unwrap().to_vec::<f32>().unwrap(), want);
    let rounded: Vec<half::bf16> = want.iter().map(|&x| half::bf16::from_f32(x)).collect();
    assert_eq!(q.tensor_as(device, DType::BF16).unwrap().to_vec::<half::bf16>().unwrap(), rounded);
    assert!(matches!(q.to_vec::<i32>(), Err(Error::Cast { index: 1, .. })));
    assert!(message(q.to_i64()).contains("is q8_0"));

    let scope = |precision| Scope::new(checkpoint.weights(), device, precision).sub("model");
    let matrix = |s: &Scope| s.matrix("layers.0.self_attn.q_proj.weight", &[2, 64]).unwrap();
    assert_eq!(matrix(&scope(Precision::F32)).format(), Format::Blocks(Quant::Q8_0));
    let rounded = matrix(&scope(Precision::compute_in(DType::BF16).unwrap()));
    assert_eq!((rounded.dtype(), rounded.format()), (DType::BF16, Format::Plain));
    let norm = scope(Precision::F32).vector("norm.weight", &[2]).unwrap();
    assert_eq!(norm.to_vec::<f32>().unwrap(), [1.0, -2.0]);
    let vector = scope(Precision::F32).vector("layers.0.self_attn.q_proj.weight", &[2, 64]).unwrap();
    assert_eq!(vector.to_vec::<f32>().unwrap(), want);

    // What cannot be read is listed all the same.
    let foreign = checkpoint.get(names[0]).unwrap();
    assert_eq!((foreign.dtype.name(), foreign.count()), ("q5_k", 256));
    let why = message(foreign.tensor(device));
    assert!(why.contains("tensor `model.layers.0.mlp.up_proj.weight` is stored as q5_k"), "{why}");
    assert!(why.contains("q8_0, q4_0, q4_1, q4_k, q6_k can"), "{why}");
    assert!(matches!(foreign.to_vec::<f32>(), Err(Error::NotSupported(_))));
}

#[test]
fn metadata_become_a_configuration() {
    let file = llama().u32("tokenizer.ggml.eos_token_id", 2).file();
    let folder = Folder::open(&file.0).unwrap();
    let config = folder.config();
    for (key, want) in [
        ("model_type", serde_json::json!("llama")),
        ("hidden_size", 64.into()),
        ("intermediate_size", 96.into()),
        ("num_hidden_layers", 1.into()),
        ("num_attention_heads", 4.into()),
        ("num_key_value_heads", 2.into()),
        ("head_dim", 16.into()),
        ("rms_norm_eps", 1e-5.into()),
        ("rope_theta", 1e4.into()),
        ("rope_scaling", serde_json::Value::Null),
        ("rope_interleaved", true.into()),
        ("vocab_size", 3.into()),
        ("tie_word_embeddings", true.into()),
        ("eos_token_id", 2.into()),
    ] {
        assert_eq!(config[key], want, "{key}");
    }
    assert!(config.get("bos_token_id").is_none() && folder.gguf().is_some() && folder.preprocessor().is_none());

    let scaled = |writer: Writer| Ok::<_, Error>(Folder::open(&writer.file().0)?.config()["rope_scaling"].clone());
    let linear = llama().text("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 4.0);
    assert_eq!(scaled(linear).unwrap(), serde_json::json!({"rope_type": "linear", "factor": 4.0}));
    assert_eq!(scaled(llama().f32("llama.rope.scale_linear", 2.0)).unwrap()["factor"], 2.0);
    let yarn = llama()
        .text("llama.rope.scaling.type", "yarn")
        .f32("llama.rope.scaling.factor", 8.0)
        .u32("llama.rope.scaling.original_context_length", 4096)
        .f32("llama.rope.scaling.yarn_beta_fast", 16.0);
    let want = serde_json::json!({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 4096, "beta_fast": 16.0});
    assert_eq!(scaled(yarn).unwrap(), want);
    let factors = llama().tensor("rope_freqs.weight", &[8], 0, &floats(&[1.0; 8]));
    assert_eq!(
        scaled(factors.clone()).unwrap(),
        serde_json::json!({"rope_type": "factors", "tensor": "rope_freqs.weight"})
    );
    let factors =
        Folder::open(&factors.file().0).unwrap().weights().unwrap().stored("rope_freqs.weight", &[8]).unwrap();
    assert_eq!(factors.to_vec::<f32>().unwrap(), [1.0; 8]);

    let untied = llama().tensor("output.weight", &[1], 0, &floats(&[1.0])).file();
    assert_eq!(Folder::open(&untied.0).unwrap().config()["tie_word_embeddings"], false);

    for (writer, want) in [
        (Writer::default().text("general.architecture", "qwen2"), "architecture `qwen2` in GGUF files; known is llama"),
        (Writer::default(), "metadata key `general.architecture` must be given, is absent"),
        (Writer::default().u32("general.architecture", 1), "`general.architecture` must be a text of UTF-8, is 1"),
        (Writer::default().text("general.architecture", "llama"), "`llama.embedding_length` must be given"),
        (llama().u32("llama.expert_count", 8), "layers of 8 experts"),
        (llama().u32("llama.rope.dimension_count", 8), "`llama.rope.dimension_count` of 8 where heads have 16 values"),
        (llama().u32("split.count", 3), "one file of a model in 3"),
        (llama().text("llama.rope.scaling.type", "longrope"), "of the kind `longrope`"),
        (llama().text("llama.rope.scaling.type", "linear"), "`llama.rope.scaling.factor` must be given"),
        (llama().f32("llama.rope.freq_base", f32::NAN), "`llama.rope.freq_base` must be a finite number, is NaN"),
    ] {
        let have = message(Folder::open(&writer.file().0));
        assert!(have.contains(want), "{want}: {have}");
    }
}

#[test]
fn a_folder_may_hold_one_gguf_file() {
    let folder = std::env::temp_dir().join(format!("lapidary-gguf-folder-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let bytes = llama().tensor("output_norm.weight", &[1], 0, &floats(&[2.0])).bytes();
    fs::write(folder.join("one.gguf"), &bytes).unwrap();
    let opened = Folder::open(&folder).unwrap();
    assert_eq!(opened.config()["hidden_size"], 64);
    assert_eq!(opened.weights().unwrap().stored("model.norm.weight", &[1]).unwrap().to_vec::<f32>().unwrap(), [2.0]);
    fs::write(folder.join("two.gguf"), &bytes).unwrap();
    assert!(
        message(Checkpoint::open(&folder)).contains("2 .gguf files and no index; open one of them: one.gguf, two.gguf")
    );
    assert!(message(Folder::open(&folder)).contains("no config.json"));
    fs::remove_dir_all(&folder).unwrap();
    assert!(message(Folder::open("absent.gguf")).contains("No such file"));
}

/// SmolLM2-135M-Instruct in Q4_1, if it was fetched.
fn smollm2() -> Option<PathBuf> {
    let folder = std::env::var_os("LAPIDARY_WEIGHTS").map_or_else(|| PathBuf::from("tests/weights"), PathBuf::from);
    let file = folder.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    if !file.is_file() {
        eprintln!("skipped: no {}; run tests/fetch-weights.sh or set LAPIDARY_WEIGHTS", file.display());
    }
    file.is_file().then_some(file)
}

#[test]
fn a_real_file_has_its_numbers() {
    let Some(path) = smollm2() else { return };
    let folder = Folder::open(&path).unwrap();
    let config = folder.config();
    for (key, want) in [
        ("hidden_size", 576),
        ("intermediate_size", 1536),
        ("num_hidden_layers", 30),
        ("num_attention_heads", 9),
        ("num_key_value_heads", 3),
        ("head_dim", 64),
        ("vocab_size", 49152),
        ("max_position_embeddings", 8192),
        ("bos_token_id", 1),
        ("eos_token_id", 2),
        ("pad_token_id", 2),
    ] {
        assert_eq!(config[key], want, "{key}");
    }
    assert_eq!((config["rms_norm_eps"].as_f64(), config["rope_theta"].as_f64()), (Some(1e-5), Some(1e5)));
    assert_eq!((&config["tie_word_embeddings"], &config["rope_scaling"]), (&true.into(), &serde_json::Value::Null));
    let weights = folder.weights().unwrap();
    assert_eq!(weights.checkpoint().len(), 272);
    // First and last values and the sums of magnitudes, as ggml's own Python package reads them.
    for (name, shape, quant, first, last, sum) in [
        ("model.embed_tokens.weight", [49152, 576], Quant::Q8_0, -0.10654449, -0.04170227, 2802153.619805813),
        (
            "model.layers.0.self_attn.q_proj.weight",
            [576, 576],
            Quant::Q4_1,
            -0.09631348,
            -0.25585938,
            63395.39872741699,
        ),
        ("model.layers.29.mlp.down_proj.weight", [576, 1536], Quant::Q4_1, -0.27331543, 0.05664062, 126250.91435241699),
    ] {
        let stored = weights.stored(name, &shape).unwrap();
        assert_eq!(stored.dtype, StoredDType::Blocks(quant), "{name}");
        let values = stored.to_vec::<f32>().unwrap();
        let magnitudes: f64 = values.iter().map(|&x| f64::from(x).abs()).sum();
        let ends = [(values[0], first), (values[values.len() - 1], last)];
        assert!(ends.iter().all(|(a, b)| (a - b).abs() < 1e-7) && (magnitudes - sum).abs() < 1e-6 * sum, "{name}");
    }
    assert_eq!(
        weights.stored("model.norm.weight", &[576]).unwrap().to_vec::<f32>().unwrap()[..2],
        [1.7578125, 1.8203125]
    );
}

#[cfg(feature = "text")]
mod tokens {
    use super::*;
    use lapidary::models;
    use lapidary::text::Message;

    #[test]
    fn a_vocabulary_comes_out_of_metadata() {
        let tokens = ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "▁", "a", "b", "ab", "▁ab"];
        let writer = llama()
            .text("tokenizer.ggml.model", "llama")
            .list("tokenizer.ggml.tokens", 8, tokens.map(text))
            .list("tokenizer.ggml.scores", 6, (0..10).map(|i| floats(&[i as f32])))
            .list("tokenizer.ggml.token_type", 5, [2i32, 3, 3, 6, 6, 1, 1, 1, 1, 1].map(|k| k.to_le_bytes().to_vec()))
            .u32("tokenizer.ggml.bos_token_id", 1)
            .u32("tokenizer.ggml.eos_token_id", 2)
            .u32("tokenizer.ggml.eot_token_id", 7)
            .flag("tokenizer.ggml.add_eos_token", true);
        let open = |writer: &Writer| models::tokenizer(&Folder::open(&writer.file().0)?);
        let tokenizer = open(&writer).unwrap();
        assert_eq!(tokenizer.encode("ab é", true).unwrap(), [1, 9, 5, 3, 4, 2]);
        assert_eq!(tokenizer.decode(&[1, 9, 5, 3, 4, 2], true).unwrap(), "ab é");
        assert_eq!(tokenizer.end_ids(), [2, 7]);
        for (writer, want) in [
            (llama(), "metadata key `tokenizer.ggml.model` must be given, is absent"),
            (llama().text("tokenizer.ggml.model", "gpt2"), "metadata key `tokenizer.ggml.tokens` must be given"),
            (llama().u32("tokenizer.ggml.model", 1), "`tokenizer.ggml.model` must be a text of UTF-8, is 1"),
            (llama().list("tokenizer.ggml.token_type", 6, [floats(&[1.0])]), "a list of integers that fit i32, is [1]"),
        ] {
            let have = message(open(&writer));
            assert!(have.contains(want), "{want}: {have}");
        }
        let folder = Folder::open(&writer.clone().text("tokenizer.chat_template", "{% x").file().0).unwrap();
        let why = message(models::chat_template(&folder, &tokenizer));
        assert!(why.contains("(tokenizer.chat_template), line 1: syntax error"), "{why}");
        let none = Folder::open(&writer.file().0).unwrap();
        assert!(models::chat_template(&none, &tokenizer).unwrap().is_none());
    }

    #[test]
    fn a_real_file_brings_its_tokeniser() {
        let Some(path) = smollm2() else { return };
        let tokenizer = models::tokenizer(&Folder::open(&path).unwrap()).unwrap();
        assert_eq!(tokenizer.encode("The capital of France is", true).unwrap(), [504, 3575, 282, 4649, 314]);
        assert_eq!(tokenizer.decode(&[7042, 30, 198, 198, 504, 2988], true).unwrap(), " Paris.\n\nThe answer");
        assert_eq!((tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id()), (Some(1), Some(2), Some(2)));
        assert_eq!(tokenizer.token_text(1).as_deref(), Some("<|im_start|>"));
        let folder = Folder::open(&path).unwrap();
        let template = models::chat_template(&folder, &tokenizer).unwrap().unwrap();
        let asked = template.render(&[Message::new("system", "Hi."), Message::new("user", "Who?")], true).unwrap();
        let want = "<|im_start|>system\nHi.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(asked, want);
        let marked = tokenizer.encode("<|im_start|>user\n12 €\n<|im_end|>", true).unwrap();
        assert_eq!((marked[0], marked[marked.len() - 1]), (1, 2));
        assert_eq!(tokenizer.decode(&marked, true).unwrap(), "user\n12 €\n");
        assert_eq!(tokenizer.decode(&marked, false).unwrap(), "<|im_start|>user\n12 €\n<|im_end|>");

        // Piece by piece as at once, wherever characters are cut.
        let text = "naïve 🙂🏽 fünf\u{2003}€ 漢字 \n\n  def f(x): return x**2 1234567 <|im_end|>";
        let ids = tokenizer.encode(text, false).unwrap();
        for skip_special in [true, false] {
            let mut stream = tokenizer.stream(skip_special);
            let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            assert_eq!(pieces.concat() + &stream.finish(), tokenizer.decode(&ids, skip_special).unwrap());
            assert!(pieces.iter().any(String::is_empty) && !pieces.concat().contains('\u{fffd}'), "{pieces:?}");
        }
    }
}

#[cfg(feature = "text")]
#[test]
fn a_real_file_writes_and_answers() {
    let Some(path) = smollm2() else { return };
    let device = Device::cpu().unwrap();
    let folder = Folder::open(&path).unwrap();
    let scope = Scope::new(folder.weights().unwrap(), &device, Precision::F32);
    let llama = Llama::load(&scope, folder.config()).unwrap();
    let tokenizer = models::tokenizer(&folder).unwrap();
    let say = |text: &str, special: bool, max_new_tokens: usize| {
        let options = GenerateOptions {
            max_new_tokens,
            eos_ids: writing::end_ids(&tokenizer, &llama.config().eos_token_ids),
            ..GenerateOptions::default()
        };
        let ids = writing::encode(&tokenizer, text, special).unwrap();
        writing::write(&llama, &tokenizer, &ids, &options, &[], &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let written = say("The capital of France is", true, 6);
    assert_eq!(written.generated.ids[0], [7042, 30, 198, 198, 504, 2988]);
    assert_eq!(written.text, " Paris.\n\nThe answer");
    let template = models::chat_template(&folder, &tokenizer).unwrap().expect("the file carries one");
    let prompt = template.render(&[Message::new("user", "What is the capital of Japan?")], true).unwrap();
    let answer = say(&prompt, false, 32);
    assert_eq!((answer.text.as_str(), answer.end), ("The capital of Japan is Tokyo.", writing::End::Token));
}
