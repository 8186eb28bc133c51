//! The WebGPU backend on whatever adapter there is: every kernel against the reference, models, memory, clock, errors.
#![cfg(feature = "wgpu")]

mod common;

use common::{adapter, own_adapter, small_cases};
use lapidary::bench::{Arrangement, Operands, check_rows, parse_call};
use lapidary::checkpoint::Folder;
use lapidary::golden::{Case, Outcome, find};
use lapidary::models::llama::Llama;
use lapidary::models::{self, Model};
use lapidary::nn::{GenerateOptions, Precision, Prompt, Scope, Taps, Tokens, generate};
use lapidary::ops::{elementwise, gather};
use lapidary::profile::What;
use lapidary::{DType, Device, Error, Tensor, no_grad};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Cases of model shapes are checked up to this many floating-point operations or bytes; `lapidary check` does all.
const BUDGET: u64 = 1_000_000;

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case)
}

#[test]
fn every_kernel_agrees_with_the_reference() {
    check_every(0);
}

/// The other half of the cases: drivers take most of the time to compile, which two threads do side by side.
#[test]
fn every_kernel_agrees_with_the_reference_on_the_rest() {
    check_every(1);
}

fn check_every(half: usize) {
    let Some(device) = adapter() else { return };
    let (mut checked, mut failures) = (0, Vec::new());
    for case in small_cases(BUDGET).skip(half).step_by(2) {
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

#[test]
fn two_runs_give_the_same_bits() {
    let Some(device) = adapter() else { return };
    for case in small_cases(BUDGET) {
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

#[test]
fn golden_cases_pass() {
    let Some(device) = adapter() else { return };
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

#[test]
fn a_step_of_a_decoder_is_one_submission_and_writes_what_the_cpu_writes() {
    let Some(adapter) = own_adapter() else { return };
    let _pause = no_grad();
    let folder = Folder::open(golden("llama/generate_left_padded/checkpoint")).unwrap();
    let ids: Vec<u32> = (0..9).map(|i| 3 + i * 37 % 150).collect();
    let options = GenerateOptions { max_new_tokens: 12, ..GenerateOptions::default() };
    let prompt = Prompt { tokens: Tokens::Ids(&ids), len: ids.len(), position_ids: None, attention_mask: None };
    let mut written = Vec::new();
    for device in [&adapter, &Device::cpu_with_threads(1).unwrap()] {
        let scope = Scope::new(folder.weights().unwrap(), device, Precision::F32);
        let llama = Llama::load(&scope, folder.config()).unwrap();
        let mut submissions = Vec::new();
        let out = generate(&llama, &prompt, 1, &options, &mut |_| {
            submissions.push(device.submissions());
            ControlFlow::Continue(())
        });
        written.push(out.unwrap().ids.remove(0));
        let steps: Vec<u64> = submissions.windows(2).map(|w| w[1] - w[0]).collect();
        assert_eq!(steps, vec![u64::from(device.backend() == "wgpu"); steps.len()]);
    }
    assert_eq!(written[0], written[1]);
}

#[test]
fn memory_returns_after_forward_passes() {
    let Some(device) = own_adapter() else { return };
    let _pause = no_grad();
    let folder = Folder::open(golden("vit/forward/checkpoint")).unwrap();
    let Model::Vit(vit) = models::load(&folder, &device, Precision::F32).unwrap() else { panic!("not a ViT") };
    let [height, width] = vit.config().image_size;
    let values: Vec<f32> = (0..3 * height * width).map(|i| (i % 251) as f32 / 251.0).collect();
    let pixels = Tensor::from_slice(&device, &values, &[1, 3, height, width]).unwrap();
    let forward = || vit.forward(&pixels, false, &mut Taps::none()).map(drop).unwrap();
    forward();
    device.synchronise().unwrap();
    let before = device.memory();
    for _ in 0..200 {
        forward();
    }
    device.synchronise().unwrap();
    let after = device.memory();
    assert_eq!(after, before);
    assert!(after.pooled_bytes > 0);
}

#[test]
fn profiled_time_grows_with_the_number_of_launches() {
    let Some(device) = own_adapter() else { return };
    let x = Tensor::from_slice(&device, &vec![0.5f32; 1 << 16], &[1 << 16]).unwrap();
    elementwise::exp(&x).unwrap();
    device.profiler().enable(true);
    let total = |launches: usize| -> f64 {
        (0..launches).for_each(|_| drop(elementwise::exp(&x).unwrap()));
        let events = device.profiler().take();
        let kernels: Vec<_> = events.iter().filter(|e| matches!(e.what, What::Kernel { .. })).collect();
        assert_eq!(kernels.len(), launches);
        assert!(kernels.iter().all(|e| e.seconds > 0.0));
        kernels.iter().map(|e| e.seconds).sum()
    };
    let (few, many) = (total(4), total(64));
    assert!(many > 4.0 * few, "64 launches took {many} s, 4 took {few} s");
    // The whole, by the same clock, is at least one launch and at most what the host saw.
    let began = std::time::Instant::now();
    device.profiler().enable(false);
    let whole = device.seconds_of(|| (0..16).try_for_each(|_| elementwise::exp(&x).map(drop))).unwrap();
    assert!(whole > 0.0 && whole <= began.elapsed().as_secs_f64());
}

#[test]
fn what_operands_hold_is_not_trusted() {
    let Some(device) = own_adapter() else { return };
    let table = Tensor::from_slice(&device, &[1f32, 2., 3., 4., 5., 6.], &[3, 2]).unwrap();
    let ids = Tensor::from_slice(&device, &[0u32, 7, 2], &[3]).unwrap();
    // The error comes when somebody looks.
    let rows = gather::gather(&table, &ids).unwrap();
    let error = rows.to_vec::<f32>().unwrap_err();
    assert!(matches!(error, Error::Index { op: "gather", value: 7, index: 1, limit: 3 }), "{error}");
    // And once.
    let ids = Tensor::from_slice(&device, &[2u32], &[1]).unwrap();
    assert_eq!(gather::gather(&table, &ids).unwrap().to_vec::<f32>().unwrap(), [5., 6.]);
    device.synchronise().unwrap();
}

/// Weights of products and tables of gathers are taken in ranges, everything else is refused.
#[test]
fn weights_may_be_larger_than_a_binding() {
    if adapter().is_none() {
        return;
    }
    let limit = 32 << 10;
    let device = Device::open_wgpu_within("wgpu", limit).unwrap();
    let mut checked = 0;
    for text in [
        "gemm(m=5,n=300,k=64,bias=true)",
        "gemm(m=1,n=300,k=64,activation=gelu_erf,residual=true)",
        "gemm(m=20,n=150,k=64,gated=true,activation=silu,out=bf16)",
        "gemm(batch=2,m=3,n=401,k=64,lhs=bf16,rhs=bf16)",
        "gemm(m=3,n=303,k=256,rhs=u8,format=q4_k)",
        "gather(count=300,width=64,n=40)",
        "gather(count=300,width=65,n=40,dtype=bf16,ids=i32)",
        "gather(count=300,width=256,n=9,dtype=u8,format=q8_0,out=f32)",
    ] {
        let call = parse_call(text).unwrap();
        assert!(call.problem.inputs().iter().any(|(_, o)| o.bytes() > limit), "{text} is not large");
        let arrangements = Arrangement::standard(&*call.problem);
        check_rows(&*call.problem, &device, None, &arrangements[..2], &mut |done| {
            assert!(!done.too_large(), "{} {text} {}: {:?}", done.kernel, done.arrangement.name(), done.outcome);
            assert_eq!(done.failure(), None, "{} {text} {}", done.kernel, done.arrangement.name());
            checked += 1;
        })
        .unwrap();
    }
    assert!(checked >= 2 * 8, "{checked}");
    let x = Tensor::zeros(&device, DType::F32, &[16 << 10]).unwrap();
    let error = elementwise::exp(&x).unwrap_err();
    assert!(matches!(error, Error::TooLarge { bytes: 65536, limit: 32768, .. }), "{error}");
}

#[test]
fn parts_of_words_are_written_without_their_neighbours() {
    let Some(device) = adapter() else { return };
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

#[test]
fn names_and_limits_are_told() {
    let Some(device) = adapter() else { return };
    let error = Device::open("wgpu:no such adapter").unwrap_err().to_string();
    assert!(error.contains("there are: "), "{error}");
    assert!(Device::open("wgpu:99").is_err());
    assert!(!device.describe().is_empty() && !Device::wgpu_adapters().is_empty());
    // More than any adapter has.
    let error = Tensor::zeros(device, DType::F32, &[1 << 20, 1 << 20]).unwrap_err().to_string();
    assert!(error.contains("limit"), "{error}");
}
