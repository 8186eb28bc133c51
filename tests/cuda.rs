//! What talks to the NVIDIA driver, with the emulator in the driver's place: `tests/libcuda` is built as an example, and the
//! command line loads it as `libcuda.so.1`.
#![cfg(all(target_os = "linux", feature = "cuda", feature = "emulator", feature = "cli"))]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A folder in which the library has the name that is looked for.
fn library() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let beside = Path::new(env!("CARGO_BIN_EXE_lapidary")).parent().unwrap();
        let built = beside.join("examples/liblibcuda.so");
        assert!(built.exists(), "{} is not there: it is an example of this package", built.display());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libcuda");
        std::fs::create_dir_all(&folder).unwrap();
        // The names that a driver that is installed may be found by before this one.
        for name in ["libcuda.so", "libcuda.so.1"] {
            let named = folder.join(name);
            let _ = std::fs::remove_file(&named);
            std::os::unix::fs::symlink(&built, named).unwrap();
        }
        folder
    })
}

fn lapidary(args: &[&str], fails: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lapidary"));
    command.args(args).env("LD_LIBRARY_PATH", library()).env_remove("LIBCUDA_FAILS");
    fails.map(|name| command.env("LIBCUDA_FAILS", name));
    command.output().unwrap()
}

/// What it writes to stdout, having succeeded.
fn accepted(args: &[&str]) -> String {
    let out = lapidary(args, None);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn a_device_is_found_and_named() {
    let list = accepted(&["devices"]);
    assert!(list.contains("cuda:0") && list.contains("Emulated GPU, compute capability 8.0, 108"), "{list}");
    accepted(&["check", "--device", "cuda:emulated", "copy(shape=5)"]);
    let out = lapidary(&["check", "--device", "cuda:1", "copy(shape=5)"], None);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("Emulated GPU"));
}

#[test]
fn kernels_run_and_are_timed() {
    let text = accepted(&["check", "--device", "cuda", "--op", "^(softmax|gemm|gather|cast)$", "--budget", "100000"]);
    assert!(text.contains(" passed, 0 failed"), "{text}");
    let args = ["bench", "--device", "cuda", "--cold", "--min-runs", "2", "--budget", "0", "--json", "--problem"];
    let line = accepted(&[&args[..], &["softmax(rows=7,cols=129)"]].concat());
    assert!(line.contains("\"cache\":\"cold\"") && line.contains("softmax_f32__sm80"), "{line}");
}

/// Memory that is given out again, faults, graphs.
#[test]
fn a_model_writes_what_its_golden_case_says() {
    for case in ["generate_left_padded", "loss_causal_lm"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama").join(case);
        let text = accepted(&["verify", "--device", "cuda", folder.to_str().unwrap()]);
        assert!(text.contains(" passed, 0 failed"), "{text}");
    }
}

#[test]
fn failures_of_the_driver_are_told() {
    for name in [
        "cuInit",
        "cuDeviceGetCount",
        "cuDevicePrimaryCtxRetain",
        "cuStreamCreate",
        "cuMemAlloc_v2",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
        "cuModuleLoadDataEx",
        "cuModuleGetFunction",
        "cuFuncSetAttribute",
        "cuLaunchKernel",
        "cuStreamSynchronize",
    ] {
        let out = lapidary(&["check", "--device", "cuda", "copy(shape=5)"], Some(name));
        let told = format!("{}{}", String::from_utf8_lossy(&out.stderr), String::from_utf8_lossy(&out.stdout));
        assert!(matches!(out.status.code(), Some(1 | 2)), "{name}: {:?}: {told}", out.status);
        let why = if name == "cuMemAlloc_v2" { "allocate" } else { "emulated failure" };
        assert!(told.contains(why) && !told.contains("panicked"), "{name}: {told}");
    }
}
