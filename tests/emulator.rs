//! The CUDA backend on the emulator: every kernel against the reference, models, memory, clock, errors.
#![cfg(feature = "emulator")]

mod common;

use common::gpu;
use lapidary::{DType, Device, Error, Tensor};
use std::collections::BTreeSet;
use std::path::Path;

/// Cases of model shapes are checked up to this many floating-point operations or bytes; `lapidary check` does all.
const BUDGET: u64 = 1_000_000;

fn emulator() -> Device {
    Device::open("emulator").unwrap()
}

#[test]
fn every_kernel_runs_and_agrees_with_the_reference() {
    let device = emulator();
    // Much of the host's work is done by one thread.
    std::thread::scope(|scope| {
        for half in 0..2 {
            let device = &device;
            scope.spawn(move || gpu::check_every(device, BUDGET, half));
        }
    });
    // What no case of the catalog runs is dead, or not tested.
    let ran = device.meter().unwrap();
    let ran: BTreeSet<&str> = ran.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    let ptx = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/ptx/sm_80");
    for path in std::fs::read_dir(ptx).unwrap().map(|f| f.unwrap().path()).filter(|p| !p.ends_with("probe.ptx")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for name in text.lines().filter_map(|line| line.strip_prefix(".visible .entry ")) {
            let name = name.trim_end_matches(['(', ')']);
            assert!(ran.contains(name), "{}: no case of the catalog runs {name}", path.display());
        }
    }
}

#[test]
fn two_runs_give_the_same_bits() {
    gpu::two_runs_give_the_same_bits(&emulator(), BUDGET);
}

#[test]
fn golden_cases_pass() {
    gpu::golden_cases_pass(&emulator());
}

#[test]
fn a_decoder_writes_what_the_cpu_writes() {
    let [emulated, real] =
        [emulator(), Device::cpu_with_threads(1).unwrap()].map(|device| gpu::write(&device, &mut || ()));
    assert_eq!(emulated, real);
}

#[test]
fn memory_returns_after_forward_passes() {
    gpu::memory_returns_after_forward_passes(&emulator(), 3);
}

#[test]
fn what_operands_hold_is_not_trusted() {
    gpu::what_operands_hold_is_not_trusted(&emulator());
}

#[test]
fn parts_of_words_are_written_without_their_neighbours() {
    gpu::parts_of_words_are_written_without_their_neighbours(&emulator());
}

#[test]
fn what_a_kernel_did_is_counted() {
    let device = emulator();
    let x = Tensor::from_slice(&device, &vec![0.5f32; 1 << 12], &[1 << 12]).unwrap();
    lapidary::ops::elementwise::exp(&x).unwrap();
    let table = device.meter().unwrap();
    assert!(table.lines().count() == 2 && table.contains("elementwise"), "{table}");
    // And begins anew.
    assert_eq!(device.meter(), None);
}

#[test]
fn limits_are_told() {
    let device = emulator();
    assert!(Device::open("emulator:1").is_err());
    let error = Tensor::zeros(&device, DType::F32, &[1 << 20, 1 << 20]).unwrap_err();
    assert!(matches!(error, Error::Memory { .. }), "{error}");
}

/// Without a driver, `cuda` says where it was looked for; nothing panics.
#[test]
fn a_missing_driver_is_told() {
    if let Err(why) = Device::cuda_devices() {
        assert!(why.contains("driver"), "{why}");
        let error = Device::open("cuda").unwrap_err().to_string();
        assert!(error.contains("driver"), "{error}");
    }
}
