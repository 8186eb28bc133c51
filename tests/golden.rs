//! The golden cases that guard the models, and cases that must fail.

use lapidary::Device;
use lapidary::golden::{Case, Outcome, find};
use lapidary::nn::Precision;
use std::path::{Path, PathBuf};

fn all() -> Vec<PathBuf> {
    find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")).unwrap()
}

/// Cases that nothing can compute yet; the list may only shrink.
const UNSUPPORTED: &[&str] = &["loss-contrastive"];

#[test]
fn every_case_passes() {
    let device = Device::cpu_with_threads(2).unwrap();
    for folder in all() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let needs_features = name.contains("png");
        if needs_features && !(cfg!(feature = "media") && cfg!(feature = "text")) {
            continue;
        }
        match Case::open(&folder).unwrap().run(&device, Precision::F32).unwrap() {
            Outcome::Unsupported(what) => assert!(UNSUPPORTED.contains(&name.as_str()), "{name}: {what}"),
            outcome => assert!(outcome.passed(), "{name}: {outcome:#?}"),
        }
    }
}

/// bf16 rounds inputs of products to 8 bits; the limits here are what that costs, not what the cases ask for.
#[test]
fn sixteen_bit_compute_stays_near() {
    let device = Device::cpu_with_threads(1).unwrap();
    for dtype in [lapidary::DType::BF16, lapidary::DType::F16] {
        for folder in all().into_iter().filter(|f| f.ends_with("vit/forward") || f.ends_with("clip/encode-text")) {
            let outcome = Case::open(&folder).unwrap().run(&device, Precision::compute_in(dtype).unwrap()).unwrap();
            let Outcome::Judged(rows) = outcome else { panic!("{} is not supported", folder.display()) };
            for row in rows {
                assert!(row.rel_l2 > 0.0 && row.rel_l2 < 2e-2, "{dtype} {}: {row:?}", folder.display());
            }
        }
    }
}

#[test]
fn a_changed_weight_or_name_fails() {
    let folder = all().into_iter().find(|f| f.ends_with("vit/forward")).unwrap();
    let copy = std::env::temp_dir().join(format!("lapidary-golden-{}", std::process::id()));
    let checkpoint = copy.join("checkpoint");
    std::fs::create_dir_all(&checkpoint).unwrap();
    for file in ["case.json", "inputs.safetensors", "expected.safetensors", "checkpoint/config.json"] {
        std::fs::copy(folder.join(file), copy.join(file)).unwrap();
    }
    let device = Device::cpu_with_threads(1).unwrap();
    let bytes = std::fs::read(folder.join("checkpoint/model.safetensors")).unwrap();
    let run = |bytes: &[u8]| {
        std::fs::write(checkpoint.join("model.safetensors"), bytes).unwrap();
        Case::open(&copy).unwrap().run(&device, Precision::F32)
    };
    assert!(run(&bytes).unwrap().passed());

    // The exponent of one weight.
    let mut changed = bytes.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    assert!(!run(&changed).unwrap().passed());

    // One tensor under another name: the message names it, and the nearest.
    let text = b"vit.layernorm.weight";
    let at = bytes.windows(text.len()).position(|w| w == text).unwrap();
    let mut renamed = bytes.clone();
    renamed[at + text.len() - 1] = b'x';
    let message = run(&renamed).unwrap_err().to_string();
    assert!(message.contains("vit.layernorm.weight") && message.contains("vit.layernorm.weighx"), "{message}");
    std::fs::remove_dir_all(&copy).unwrap();
}
