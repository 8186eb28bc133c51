//! The command line from outside: bad input is told and exits with 2, good input does what it says.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn lapidary(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lapidary")).args(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// Runs with bad input; returns what stderr says.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = lapidary(arguments);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{arguments:?} says\n{stdout}{stderr}");
    assert!(stderr.starts_with("error: "), "{arguments:?} says {stderr}");
    assert!(!stderr.contains("panicked"), "{arguments:?} says {stderr}");
    stderr
}

/// Runs with good input; returns stdout.
#[track_caller]
fn accepted(arguments: &[&str]) -> String {
    let output = lapidary(arguments);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{arguments:?} says\n{stdout}{stderr}");
    stdout
}

/// A folder of a test, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("lapidary-cli-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        shown(&path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn shown(path: &Path) -> String {
    path.to_str().expect("paths of tests are UTF-8").into()
}

/// A file with one tensor `w` of `shape`, whose header claims `end` bytes of data and which has `have`.
fn safetensors(shape: &str, end: &str, have: usize) -> Vec<u8> {
    let header = format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + have, 0);
    bytes
}

#[test]
fn bad_checkpoints_are_refused() {
    let scratch = Scratch::new("checkpoints");
    let whole = safetensors("[2,3]", "24", 24);
    for len in [0, 7, 8, 20, whole.len() - 1] {
        refused(&["inspect", &scratch.file("truncated.safetensors", &whole[..len])]);
    }
    let mut huge_header = (1u64 << 60).to_le_bytes().to_vec();
    huge_header.extend(b"{}");
    refused(&["inspect", &scratch.file("header.safetensors", &huge_header)]);
    refused(&[
        "inspect",
        &scratch.file("data.safetensors", &safetensors("[288230376151711744]", "1152921504606846976", 24)),
    ]);
    refused(&["inspect", &scratch.file("shape.safetensors", &safetensors("[18446744073709551615,8]", "24", 24))]);
    refused(&["inspect", &scratch.file("text.safetensors", b"not a checkpoint at all")]);
    refused(&["inspect", &shown(&scratch.0.join("missing.safetensors"))]);
    let good = scratch.file("good.safetensors", &whole);
    refused(&["inspect", &good, "--filter", "nothing-has-this-name"]);
    refused(&["inspect", &good, "--filter", "("]);
}

#[test]
fn bad_choices_are_refused_with_the_known_ones() {
    assert!(refused(&["bench", "--op", "nosuchop"]).contains("softmax"));
    assert!(refused(&["check", "--op", "nosuchop"]).contains("softmax"));
    assert!(refused(&["bench", "--case", "nosuchcase"]).contains("softmax/577x1024"));
    assert!(refused(&["bench", "--preset", "nosuchpreset"]).contains("peers"));
    assert!(refused(&["synth", "nosuchmodel", "unused"]).contains("vit-b16"));
    assert!(refused(&["--device", "abacus"]).contains("cpu"));
    assert!(refused(&["bench", "--row", "nosuchkernel"]).contains("nosuchkernel"));
    refused(&["check", "--row", "nosuchkernel"]);
    refused(&["check", "--op", "("]);
    refused(&["bench", "--budget", "nan"]);
    refused(&["nosuchcommand"]);
    refused(&["devices", "--nosuchflag"]);
}

#[test]
fn bad_devices_are_refused() {
    // Without a driver the message says where it was looked for, with one that it has no such device.
    assert!(refused(&["check", "--device", "cuda:nosuchgpu"]).contains("driver"));
    refused(&["check", "--device", "emulator:1"]);
    assert!(refused(&["--device", "wgpu:nosuchadapter"]).contains("adapter"));
    for threads in ["0", "1025", "-1", "many", "1,0"] {
        refused(&["bench", "--threads", threads]);
    }
    refused(&["check", "--threads", "1,2"]);
    refused(&["--device", "cpu:1"]);
}

#[test]
fn bad_problems_are_refused() {
    let problems = [
        "",
        "softmax",
        "softmax(",
        "softmax(rows)",
        "softmax(rows=)",
        "softmax(rows=-1)",
        "softmax(rows=1,nosuchfield=2)",
        "softmax(dtype=nosuchtype)",
        "softmax(dtype=u8)",
        "nosuchop(rows=1)",
        "softmax(rows=18446744073709551616)",
        "softmax(rows=18446744073709551615,cols=2)",
        "gemm(m=18446744073709551615)",
        "gemm(m=18446744073709551615,n=18446744073709551615,k=18446744073709551615)",
        "copy(shape=1x1x1x1x1x1x1x1x1)",
        "copy(shape=4x4) nosuchoperand:strides=4x1",
        "copy(shape=4x4) x:strides=4",
        "copy(shape=4x4) x:strides=18446744073709551615x1",
    ];
    for problem in problems {
        refused(&["explain", problem]);
        refused(&["check", problem]);
        refused(&["bench", "--problem", problem]);
    }
    // These are sound; no machine has the memory.
    for problem in ["copy(shape=1000000000x1000000)", "softmax(rows=1000000000,cols=1000000)"] {
        refused(&["check", problem]);
        refused(&["bench", "--problem", problem]);
    }
}

#[test]
fn devices_are_listed() {
    assert!(accepted(&["devices"]).contains("cpu"));
    let list: Value = serde_json::from_str(&accepted(&["devices", "--json"])).unwrap();
    let mut names: Vec<&str> = list.as_array().unwrap().iter().filter_map(|d| d["name"].as_str()).collect();
    // Every adapter has a line, or all together one that says that there is none.
    names.iter_mut().for_each(|n| *n = n.split(':').next().unwrap_or_default());
    names.dedup();
    assert_eq!(names, ["cpu", "wgpu", "cuda", "emulator"]);
    assert!(list[0]["describe"].as_str().is_some_and(|d| !d.is_empty()));
    let list: Value = serde_json::from_str(&accepted(&["devices", "--json", "--threads", "3"])).unwrap();
    let pool = list[0]["pool"].as_array().unwrap();
    assert_eq!(pool.iter().map(|p| p["threads"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(pool.iter().all(|p| p["pool_us"].as_f64().unwrap() > 0.0 && p["pool_asleep_us"].as_f64().unwrap() > 0.0));
}

#[test]
fn explain_reads_a_printed_call() {
    let call = "softmax(rows=577,cols=1024) x:strides=2048x1";
    assert!(accepted(&["explain", call]).starts_with(call));
    let report: Value = serde_json::from_str(&accepted(&["explain", "--json", call])).unwrap();
    assert_eq!(report["problem"], call);
    assert_eq!(report["bytes_read"], 577 * 1024 * 4);
    let selected = report["kernels"].as_array().unwrap().iter().filter(|k| k["selected"] == true).count();
    assert_eq!(selected, 1);
}

#[test]
fn check_counts_what_it_did() {
    let stdout = accepted(&["check", "--op", "^softmax$", "--threads", "2"]);
    let last = stdout.lines().last().unwrap();
    let passed: usize = last.strip_suffix(" passed, 0 failed").expect(last).parse().unwrap();
    assert!(passed > 0);
    let problem = accepted(&["check", "copy(shape=3x5) x:strides=1x3", "--row", "copy__portable"]);
    assert!(problem.ends_with("1 passed, 0 failed\n"), "{problem}");
    let report: Value = serde_json::from_str(&accepted(&["check", "--json", "softmax(rows=3,cols=5)"])).unwrap();
    assert_eq!(report["failed"], 0);
}

#[test]
fn bench_prints_lines_that_other_benches_print() {
    let arguments = ["bench", "--problem", "softmax(rows=9,cols=65)", "--json", "--budget", "0.05", "--threads", "1"];
    let lines: Vec<Value> = accepted(&arguments).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let (bench, peaks) = lines.split_last().unwrap();
    assert!(peaks.iter().all(|l| l["case"].as_str().unwrap().starts_with("roof/")) && !peaks.is_empty());
    for key in ["peer", "version", "case", "threads", "dtype", "median_s", "min_s", "runs", "gflops", "gbs", "kernel"] {
        assert!(!bench[key].is_null(), "{key} is missing");
    }
}

#[test]
fn compare_joins_lines_of_benches() {
    let scratch = Scratch::new("compare");
    let line =
        |peer: &str, s: f64| format!(r#"{{"peer":"{peer}","case":"a/1","threads":2,"dtype":"f32","min_s":{s}}}"#);
    let ours = scratch.file("ours.jsonl", line("lapidary", 0.5).as_bytes());
    let theirs = scratch.file("theirs.jsonl", format!("{}\n{}\n", line("torch", 1.0), line("ort", 2.0)).as_bytes());
    let table = accepted(&["compare", &ours, &theirs]);
    assert!(table.contains("torch") && table.contains("2.00") && table.contains("1 ahead"), "{table}");
    let row: Value = serde_json::from_str(&accepted(&["compare", "--json", &theirs, &ours])).unwrap();
    assert_eq!((row["ratio"].as_f64(), row["best_peer"]["peer"].as_str()), (Some(2.0), Some("torch")));
    refused(&["compare", &theirs]);
    refused(&["compare", "nosuchfile"]);
}

#[test]
fn a_model_is_timed_under_the_name_of_its_sizes() {
    let scratch = Scratch::new("model");
    let folder = shown(&scratch.0.join("llama"));
    accepted(&["synth", "llama-tiny", &folder]);
    let bench = ["bench", "--checkpoint", &folder, "--budget", "0.05", "--threads", "1", "--json"];
    let lines: Vec<Value> = accepted(&bench).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let names: Vec<&str> = lines.iter().map(|l| l["case"].as_str().unwrap().split('/').next_back().unwrap()).collect();
    assert_eq!(names, ["prefill512", "decode"]);
    for key in ["threads", "dtype", "min_s", "gflops", "tok_s", "percent_of_peak", "peak_tensor_mb"] {
        assert!(lines.iter().all(|l| !l[key].is_null()), "{key} is missing");
    }
    assert!(
        accepted(&["bench", "--checkpoint", &folder, "--once", "--name", "tiny"]).starts_with("FIRST result of tiny")
    );
}

#[test]
fn inspect_sums_up() {
    let scratch = Scratch::new("inspect");
    let file = scratch.file("good.safetensors", &safetensors("[2,3]", "24", 24));
    assert!(accepted(&["inspect", &file]).contains("2x3"));
    let report: Value = serde_json::from_str(&accepted(&["inspect", &shown(&scratch.0), "--json"])).unwrap();
    assert_eq!(report["total"]["parameters"], 6);
    assert_eq!(report["tensors"][0]["name"], "w");

    let gguf = shown(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/gguf/valid-llama"));
    let text = accepted(&["inspect", &gguf, "--metadata"]);
    assert!(
        text.contains("llama.embedding_length") && text.contains("model.layers.0.self_attn.q_proj.weight"),
        "{text}"
    );
    let report: Value = serde_json::from_str(&accepted(&["inspect", &gguf, "--json"])).unwrap();
    assert_eq!(report["files"][0]["metadata"]["general.architecture"], "llama");
    refused(&["inspect", &gguf.replace("valid-llama", "overlap")]);
}

#[test]
fn synth_overwrites_nothing() {
    let scratch = Scratch::new("synth");
    scratch.file("config.json", b"mine");
    assert!(refused(&["synth", "vit-b16", &shown(&scratch.0)]).contains("--force"));
    assert_eq!(std::fs::read(scratch.0.join("config.json")).unwrap(), b"mine");
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_error() {
    use std::process::Stdio;
    let mut child = Command::new(env!("CARGO_BIN_EXE_lapidary"))
        .args(["check", "--op", "copy", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn run_refuses_what_is_no_picture_and_no_model() {
    let scratch = Scratch::new("run");
    let vit = shown(&golden("vit/forward-png/checkpoint"));
    let picture = shown(&golden("vit/forward-png/image.png"));
    let no_picture = scratch.file("notes.png", b"this is a text");
    let says = refused(&["run", &vit, "--image", &no_picture]);
    assert!(says.contains("notes.png"), "{says}");
    assert!(refused(&["run", &vit, "--image", &scratch.file("empty.png", b"")]).contains("empty.png"));
    refused(&["run", &vit, "--image", &scratch.file("none.png", b"")[..3]]);
    refused(&["run", &vit]);
    refused(&["run", &vit, "--image", &picture, "--prompt", "a cat"]);
    refused(&["run", &vit, "--image", &picture, "--dtype", "u8"]);
    refused(&["run", &shown(&scratch.0), "--image", &picture]);
    scratch.file("config.json", br#"{"model_type": "mamba"}"#);
    let says = refused(&["run", &shown(&scratch.0), "--image", &picture]);
    assert!(says.contains("mamba") && says.contains("clip"), "{says}");
    // A ViT's configuration over a file that has one tensor: the missing one is named.
    scratch.file("config.json", br#"{"model_type": "vit"}"#);
    scratch.file("model.safetensors", &safetensors("[2,3]", "24", 24));
    let says = refused(&["run", &shown(&scratch.0), "--image", &picture]);
    assert!(says.contains("embeddings.position_embeddings"), "{says}");
    scratch.file("config.json", br#"{"model_type": "vit", "hidden_size": -4}"#);
    assert!(refused(&["run", &shown(&scratch.0), "--image", &picture]).contains("hidden_size"));
}

#[test]
fn run_prints_classes_and_scores() {
    let picture = shown(&golden("vit/forward-png/image.png"));
    let vit = shown(&golden("vit/forward-png/checkpoint"));
    let report: Value = serde_json::from_str(&accepted(&["run", &vit, "--image", &picture, "--json"])).unwrap();
    assert_eq!(report["pictures"][0]["top"].as_array().unwrap().len(), 5);
    let clip = shown(&golden("clip/score-png-prompts/checkpoint"));
    let line = ["run", &clip, "--image", &picture, "--prompt", "a cat", "a red square", "--json"];
    let report: Value = serde_json::from_str(&accepted(&line)).unwrap();
    let scores = report["pictures"][0]["scores"].as_array().unwrap();
    let sum: f64 = scores.iter().map(|s| s["probability"].as_f64().unwrap()).sum();
    assert!(scores.len() == 2 && (sum - 1.0).abs() < 1e-5, "{report}");
    refused(&["run", &clip, "--image", &picture]);
}

#[test]
fn run_writes_text() {
    let llama = shown(&golden("llama/generate_text/checkpoint"));
    let prompt = "The special magic number for S\u{e3}o Paulo is";
    let common = ["run", &llama, "--prompt", prompt, "-n", "12"];
    let said = accepted(&common);
    assert_eq!(said, "(on cfP0)son magic 4\n");
    let report: Value = serde_json::from_str(&accepted(&[&common[..], &["--json", "--stats"]].concat())).unwrap();
    assert_eq!(report["text"], "(on cfP0)son magic 4");
    assert_eq!(report["finish_reason"], "length");
    assert!(report["stats"]["tokens_per_s"].as_f64().unwrap() > 0.0, "{report}");
    let stopped = accepted(&[&common[..], &["--stop", "never", "magic"]].concat());
    assert_eq!(stopped, "(on cfP0)son \n");
    let drawn = |seed: &str| accepted(&[&common[..], &["--temperature", "2", "--seed", seed]].concat());
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));

    assert!(refused(&["run", &llama]).contains("--prompt"));
    assert!(refused(&["run", &llama, "--prompt", "a", "b"]).contains("one text"));
    assert!(refused(&["run", &llama, "--prompt", "a", "--temperature", "-1"]).contains("temperature"));
    assert!(refused(&["run", &llama, "--prompt", "a", "-n", "0"]).contains("max_new_tokens"));
    let long = "word ".repeat(500);
    assert!(refused(&["run", &llama, "--prompt", &long]).contains("context"));
    let picture = shown(&golden("vit/forward-png/image.png"));
    assert!(refused(&["run", &llama, "--prompt", "a", "--image", &picture]).contains("text only"));
}

/// Sixty-four lines are learnt by heart, and said again.
#[test]
fn train_learns_lines_by_heart() {
    let scratch = Scratch::new("train");
    let (model, out) = (shown(&scratch.0.join("model")), shown(&scratch.0.join("out")));
    accepted(&["synth", "llama-tiny", &model]);
    let prompt = |i: u8| format!("{}{}", (b'A' + i / 8) as char, (b'a' + i % 8) as char);
    let completion = |i: u8| format!(" is worth {:03}", u32::from(i) * 97 % 1000);
    let line = |i| format!("{}\n\n", json!({"prompt": prompt(i), "completion": completion(i)}));
    let lines: String = (0..64).map(line).collect();
    let data = scratch.file("lines.jsonl", lines.as_bytes());
    let args = ["train", &model, "--data", &data, "--out", &out, "--steps", "600", "--batch", "16", "--lr", "4e-3"];
    let args = [&args[..], &["--warmup-steps", "20", "--save-every", "250", "--threads", "2"]].concat();
    let said = accepted(&args);
    let log = std::fs::read_to_string(scratch.0.join("out/log.jsonl")).unwrap();
    let losses: Vec<f64> =
        log.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["loss"].as_f64().unwrap()).collect();
    assert_eq!(losses.len(), 600);
    assert!(losses[580..].iter().all(|&loss| loss < 0.05), "{said} {:?}", &losses[580..]);
    let trained = shown(&scratch.0.join("out/checkpoint-600"));
    for i in [0u8, 13, 37, 63] {
        let said = accepted(&["run", &trained, "--prompt", &prompt(i), "-n", "40"]);
        assert_eq!(said, format!("{}\n", completion(i)));
    }

    // A run that is there is not overwritten, and one that is done has nothing to do.
    assert!(refused(&args).contains("--resume"));
    accepted(&[&args[..], &["--resume"]].concat());
    assert_eq!(std::fs::read_to_string(scratch.0.join("out/log.jsonl")).unwrap(), log);
}

#[test]
fn train_refuses_what_it_cannot_learn() {
    let scratch = Scratch::new("train-bad");
    let (model, out) = (shown(&scratch.0.join("model")), shown(&scratch.0.join("out")));
    accepted(&["synth", "llama-tiny", &model]);
    let train = |lines: &str, more: &[&str]| {
        let data = scratch.file("lines.jsonl", lines.as_bytes());
        refused(&[&["train", model.as_str(), "--data", &data, "--out", &out], more].concat())
    };
    assert!(train("", &[]).contains("nothing to train on"));
    assert!(train("{\"text\": \"fine\"}\nnot json\n", &[]).contains("line 2"));
    assert!(train("{\"words\": 3}\n", &[]).contains("`text`"));
    assert!(train("{\"prompt\": \"a\", \"completion\": \"b\"}\n", &["--max-len", "2"]).contains("--max-len"));
    assert!(train("{\"text\": \"fine\"}\n", &["--lr", "0"]).contains("--lr"));
    assert!(train("{\"text\": \"fine\"}\n", &["--lora-rank", "2", "--lora-targets", "nothing"]).contains("nothing"));
    let vit = shown(&golden("vit/forward/checkpoint"));
    assert!(refused(&["train", &vit, "--data", "x", "--out", &out]).contains("llama"));
    // A learning rate that breaks it: said so, and no checkpoint of broken numbers is left.
    let data = scratch.file("lines.jsonl", b"{\"text\": \"some words\"}\n");
    let args = ["train", &model, "--data", &data, "--out", &out, "--lr", "1e30", "--steps", "20", "--clip", "0"];
    let output = lapidary(&args);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nothing was changed"), "{}", text(&output.stderr));
    assert!(!scratch.0.join("out/checkpoint-20").exists());
}

#[test]
fn verify_counts_and_fails() {
    let passing = shown(&golden("vit"));
    let stdout = accepted(&["verify", &passing]);
    assert!(stdout.ends_with("5 passed, 0 failed, 0 unsupported\n"), "{stdout}");
    // A case of a family that nothing computes yet.
    let scratch = Scratch::new("verify");
    let case = br#"{"family": "mamba", "task": "forward", "outputs": {}}"#;
    let (case, waiting) = (scratch.file("case.json", case), shown(&scratch.0));
    std::fs::copy(golden("vit/forward/expected.safetensors"), scratch.0.join("expected.safetensors")).unwrap();
    assert!(accepted(&["verify", &waiting]).ends_with("0 passed, 0 failed, 1 unsupported\n"), "{case}");
    let output = lapidary(&["verify", &waiting, "--require-supported"]);
    assert_eq!(output.status.code(), Some(1));
    refused(&["verify", "/nowhere/at/all"]);
}
