//! What is asked of every GPU backend.
#![allow(dead_code)] // not every test file asks for all

use super::small_cases;
use lapidary::bench::{Arrangement, Operands, check_rows};
use lapidary::checkpoint::Folder;
use lapidary::golden::{Case, Outcome, find};
use lapidary::models::llama::Llama;
use lapidary::models::{self, Model};
use lapidary::nn::{GenerateOptions, Precision, Prompt, Scope, Taps, Tokens, generate};
use lapidary::ops::gather;
use lapidary::{DType, Device, Error, Tensor, no_grad};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case)
}

/// Every row of every second case of the catalog, beginning with case `half`.
pub fn check_every(device: &Device, budget: u64, half: usize) {
    let (mut checked, mut failures) = (0, Vec::new());
    for case in small_cases(budget).skip(half).step_by(2) {
        let problem = &*case.problem.for_device(device);
        check_rows(problem, device, None, &Arrangement::standard(problem), &mut |done| {
            checked += 1;
            if let Some(failure) = done.failure() {
                failures.push(format!("{} {} {}: {failure}", done.kernel, problem.text(), done.arrangement.name()));
            }
        })
        .unwrap();
    }
    assert!(failures.is_empty(), "{} of {checked} checks failed:\n{}", failures.len(), failures.join("\n"));
    println!("{checked} checks");
}

pub fn two_runs_give_the_same_bits(device: &Device, budget: u64) {
    for case in small_cases(budget) {
        let problem = &*case.problem.for_device(device);
        let rows = problem.explain(device, &[]);
        for row in rows.iter().filter(|r| r.selected) {
            let operands = Operands::random(problem, device, 3, &Arrangement::Contiguous).unwrap();
            let [first, second] = [0, 1].map(|_| {
                let results = operands.run(problem, device, Some(row.name)).unwrap();
                results.into_iter().flatten().map(|t| t.to_bytes().unwrap()).collect::<Vec<_>>()
            });
            assert!(first == second, "{} {}: two runs differ", row.name, problem.text());
        }
    }
}

pub fn golden_cases_pass(device: &Device) {
    for folder in find(&golden("")).unwrap() {
        let name = folder.display().to_string();
        if name.contains("png") && !(cfg!(feature = "media") && cfg!(feature = "text")) {
            continue;
        }
        match Case::open(&folder).unwrap().run(device, Precision::F32).unwrap() {
            Outcome::Unsupported(what) => assert!(name.ends_with("loss-contrastive"), "{name}: {what}"),
            outcome => assert!(outcome.passed(), "{name}: {outcome:#?}"),
        }
    }
}

/// Twelve tokens of a tiny Llama; `on_step` is called after each.
pub fn write(device: &Device, on_step: &mut dyn FnMut()) -> Vec<u32> {
    let _pause = no_grad();
    let folder = Folder::open(golden("llama/generate_left_padded/checkpoint")).unwrap();
    let ids: Vec<u32> = (0..9).map(|i| 3 + i * 37 % 150).collect();
    let options = GenerateOptions { max_new_tokens: 12, ..GenerateOptions::default() };
    let prompt = Prompt { tokens: Tokens::Ids(&ids), len: ids.len(), position_ids: None, attention_mask: None };
    let scope = Scope::new(folder.weights().unwrap(), device, Precision::F32);
    let llama = Llama::load(&scope, folder.config()).unwrap();
    let out = generate(&llama, &prompt, 1, &options, &mut |_| {
        on_step();
        ControlFlow::Continue(())
    });
    out.unwrap().ids.remove(0)
}

pub fn memory_returns_after_forward_passes(device: &Device, passes: usize) {
    let _pause = no_grad();
    let folder = Folder::open(golden("vit/forward/checkpoint")).unwrap();
    let Model::Vit(vit) = models::load(&folder, device, Precision::F32).unwrap() else { panic!("not a ViT") };
    let [height, width] = vit.config().image_size;
    let values: Vec<f32> = (0..3 * height * width).map(|i| (i % 251) as f32 / 251.0).collect();
    let pixels = Tensor::from_slice(device, &values, &[1, 3, height, width]).unwrap();
    let forward = || vit.forward(&pixels, false, &mut Taps::none()).map(drop).unwrap();
    forward();
    device.synchronise().unwrap();
    let before = device.memory();
    (0..passes).for_each(|_| forward());
    device.synchronise().unwrap();
    assert_eq!(device.memory(), before);
}

pub fn what_operands_hold_is_not_trusted(device: &Device) {
    let table = Tensor::from_slice(device, &[1f32, 2., 3., 4., 5., 6.], &[3, 2]).unwrap();
    let ids = Tensor::from_slice(device, &[0u32, 7, 2], &[3]).unwrap();
    // The error comes when somebody looks.
    let rows = gather::gather(&table, &ids).unwrap();
    let error = rows.to_vec::<f32>().unwrap_err();
    assert!(matches!(error, Error::Index { op: "gather", value: 7, index: 1, limit: 3 }), "{error}");
    // And once.
    let ids = Tensor::from_slice(device, &[2u32], &[1]).unwrap();
    assert_eq!(gather::gather(&table, &ids).unwrap().to_vec::<f32>().unwrap(), [5., 6.]);
    device.synchronise().unwrap();
}

pub fn parts_of_words_are_written_without_their_neighbours(device: &Device) {
    let bytes: Vec<u8> = (0..23).collect();
    let mut t = Tensor::from_slice(device, &bytes, &[23]).unwrap();
    t.as_mut().unwrap().slice(0, 5..8).unwrap().write(&[105u8, 106, 107]).unwrap();
    t.as_mut().unwrap().slice(0, 22..23).unwrap().write(&[122u8]).unwrap();
    let mut want = bytes;
    want[5..8].copy_from_slice(&[105, 106, 107]);
    want[22] = 122;
    assert_eq!(t.to_vec::<u8>().unwrap(), want);
    assert_eq!(t.slice(0, 6..9).unwrap().to_vec::<u8>().unwrap(), want[6..9]);
    let zeros = Tensor::zeros(device, DType::U8, &[7]).unwrap();
    assert_eq!(zeros.to_vec::<u8>().unwrap(), [0; 7]);
}
