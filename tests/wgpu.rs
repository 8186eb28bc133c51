//! The WebGPU backend on whatever adapter there is: every kernel against the reference, models, memory, clock, errors.
#![cfg(feature = "wgpu")]

mod common;

use common::{adapter, gpu, own_adapter};
use lapidary::bench::{Arrangement, check_rows, parse_call};
use lapidary::ops::elementwise;
use lapidary::profile::What;
use lapidary::{DType, Device, Error, Tensor};

/// Cases of model shapes are checked up to this many floating-point operations or bytes; `lapidary check` does all.
const BUDGET: u64 = 1_000_000;

#[test]
fn every_kernel_agrees_with_the_reference() {
    let Some(device) = adapter() else { return };
    gpu::check_every(device, BUDGET, 0);
}

/// The other half of the cases: drivers take most of the time to compile, which two threads do side by side.
#[test]
fn every_kernel_agrees_with_the_reference_on_the_rest() {
    let Some(device) = adapter() else { return };
    gpu::check_every(device, BUDGET, 1);
}

#[test]
fn two_runs_give_the_same_bits() {
    let Some(device) = adapter() else { return };
    gpu::two_runs_give_the_same_bits(device, BUDGET);
}

#[test]
fn golden_cases_pass() {
    let Some(device) = adapter() else { return };
    gpu::golden_cases_pass(device);
}

#[test]
fn a_step_of_a_decoder_is_one_submission_and_writes_what_the_cpu_writes() {
    let Some(adapter) = own_adapter() else { return };
    let mut written = Vec::new();
    for device in [&adapter, &Device::cpu_with_threads(1).unwrap()] {
        let mut submissions = Vec::new();
        written.push(gpu::write(device, &mut || submissions.push(device.submissions())));
        let steps: Vec<u64> = submissions.windows(2).map(|w| w[1] - w[0]).collect();
        assert_eq!(steps, vec![u64::from(device.backend() == "wgpu"); steps.len()]);
    }
    assert_eq!(written[0], written[1]);
}

#[test]
fn memory_returns_after_forward_passes() {
    let Some(device) = own_adapter() else { return };
    gpu::memory_returns_after_forward_passes(&device, 200);
    assert!(device.memory().pooled_bytes > 0);
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
    // A launch that waited for the host's other work makes a total longer, never shorter.
    let few = (0..5).map(|_| total(4)).fold(f64::INFINITY, f64::min);
    let many = total(64);
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
    gpu::what_operands_hold_is_not_trusted(&device);
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
    gpu::parts_of_words_are_written_without_their_neighbours(device);
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
