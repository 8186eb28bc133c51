//! Tensors: views, writing in place, mapped bytes, memory counters, the tape's views, profiling.

use lapidary::ops::concat::concat;
use lapidary::ops::copy::Copy;
use lapidary::ops::gather::gather;
use lapidary::ops::{self, elementwise, gemm};
use lapidary::{DType, Device, Error, Format, Quant, Tensor, backward, no_grad, profile};

fn device() -> Device {
    Device::cpu_with_threads(2).unwrap()
}

fn numbers(device: &Device, shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
    Tensor::from_slice(device, &values, shape).unwrap()
}

#[test]
fn views_show_the_same_memory() {
    let d = device();
    let t = numbers(&d, &[2, 3, 4]);
    let turned = t.transpose(0, 2).unwrap();
    assert_eq!(turned.shape(), [4, 3, 2]);
    assert!(turned.to_vec::<f32>().is_err(), "a strided view is not read as if it were contiguous");
    let copied = turned.contiguous().unwrap().to_vec::<f32>().unwrap();
    assert_eq!(copied[..4], [0.0, 12.0, 4.0, 16.0]);
    let before = d.memory().current_bytes;
    let middle = t.slice(1, 1..2).unwrap().reshape(&[2, 4]).unwrap();
    assert_eq!(d.memory().current_bytes, before, "a view takes no memory");
    assert_eq!(middle.contiguous().unwrap().to_vec::<f32>().unwrap(), [4.0, 5.0, 6.0, 7.0, 16.0, 17.0, 18.0, 19.0]);
    let nothing = numbers(&d, &[0, 5]).slice(1, 2..4).unwrap();
    assert!(nothing.to_vec::<f32>().unwrap().is_empty() && nothing.to_bytes().unwrap().is_empty());
    let repeated = numbers(&d, &[3, 1]).broadcast(&[2, 3, 2]).unwrap();
    assert_eq!(
        repeated.contiguous().unwrap().to_vec::<f32>().unwrap(),
        [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    );
}

#[test]
fn writing_in_place_needs_to_be_alone() {
    let d = device();
    let source = numbers(&d, &[2, 3]);
    let op: Copy = "copy(shape=2x3)".parse().unwrap();
    let mut target = Tensor::zeros(&d, DType::F32, &[2, 3]).unwrap();
    ops::run_into(&op, &d, &[Some(&source)], &mut [target.as_mut().unwrap()]).unwrap();
    assert_eq!(target.to_vec::<f32>().unwrap(), source.to_vec::<f32>().unwrap());

    // A part of a larger tensor.
    let mut large = Tensor::zeros(&d, DType::F32, &[4, 3]).unwrap();
    {
        let mut whole = large.as_mut().unwrap();
        ops::run_into(&op, &d, &[Some(&source)], &mut [whole.slice(0, 1..3).unwrap()]).unwrap();
        whole.slice(0, 3..4).unwrap().write(&[7f32, 8.0, 9.0]).unwrap();
    }
    assert_eq!(large.to_vec::<f32>().unwrap()[..6], [0.0, 0.0, 0.0, 0.0, 1.0, 2.0]);
    assert_eq!(large.to_vec::<f32>().unwrap()[9..], [7.0, 8.0, 9.0]);

    let other = large.clone();
    assert!(matches!(large.as_mut(), Err(Error::Aliased { .. })));
    drop(other);
    assert!(large.as_mut().is_ok());
    assert!(matches!(large.with_grad().as_mut(), Err(Error::Aliased { .. })));
    let leaf = source.with_grad();
    let mut target = Tensor::zeros(&d, DType::F32, &[2, 3]).unwrap();
    let recorded = ops::run_into(&op, &d, &[Some(&leaf)], &mut [target.as_mut().unwrap()]);
    assert!(recorded.is_err(), "the tape must not see values change");
    let _pause = no_grad();
    ops::run_into(&op, &d, &[Some(&leaf)], &mut [target.as_mut().unwrap()]).unwrap();
}

#[test]
fn wrong_operands_are_named() {
    let d = device();
    let (x, y) = (numbers(&d, &[2, 3]), numbers(&d, &[2, 4]));
    let message = gemm::linear(&x, &y, None).unwrap_err().to_string();
    assert!(message.contains("gemm") && message.contains("rhs") && message.contains("2x3") && message.contains("2x4"));
    let elsewhere = numbers(&device(), &[2, 3]);
    assert!(gemm::linear(&x, &elsewhere, None).unwrap_err().to_string().contains("device"));
    let op: Copy = "copy(shape=2x3)".parse().unwrap();
    let half = x.to_dtype(DType::F16).unwrap();
    assert!(ops::run(&op, &d, &[Some(&half)]).unwrap_err().to_string().contains("f16"));
    assert!(ops::run(&op, &d, &[None]).unwrap_err().to_string().contains("nothing"));
    assert!(ops::run_row(&op, &d, Some("copy__nowhere"), &[Some(&x)]).unwrap_err().to_string().contains("nowhere"));
    assert!(Tensor::from_slice(&d, &[1f32; 5], &[2, 3]).is_err());
    assert!(Tensor::zeros(&d, DType::F32, &[usize::MAX, 2]).is_err());
    assert!(Tensor::zeros(&d, DType::F32, &[1 << 45]).is_err(), "memory that does not exist is an error");
}

#[test]
fn memory_returns_to_its_start() {
    let d = device();
    let before = d.memory().current_bytes;
    for _ in 0..20 {
        let x = numbers(&d, &[64, 64]);
        let y = gemm::linear(&x, &x, None).unwrap();
        elementwise::add(&y, &x).unwrap();
    }
    assert_eq!(d.memory().current_bytes, before);
    assert!(d.memory().peak_bytes >= 2 * 64 * 64 * 4);
}

#[test]
fn gradients_pass_through_views() {
    let d = device();
    let x = numbers(&d, &[2, 3]).with_grad();
    // Transposed, a column taken, repeated over two rows: its gradient is 2 where the column was.
    let y = x.transpose(0, 1).unwrap().slice(0, 1..2).unwrap().broadcast(&[2, 2]).unwrap();
    let ones = Tensor::from_slice(&d, &[1f32; 4], &[2, 2]).unwrap();
    let grads = backward(&[(y, ones)], elementwise::add).unwrap();
    let grad = grads.get(&x).unwrap().contiguous().unwrap();
    assert_eq!(grad.shape(), [2, 3]);
    assert_eq!(grad.to_vec::<f32>().unwrap(), [0.0, 2.0, 0.0, 0.0, 2.0, 0.0]);
}

#[test]
fn a_long_tape_is_dropped_without_recursion() {
    let d = device();
    let mut x = numbers(&d, &[1]).with_grad();
    for _ in 0..200_000 {
        x = x.reshape(&[1]).unwrap();
    }
    drop(x);
}

#[test]
fn kernels_are_profiled_where_they_run() {
    let d = device();
    let x = numbers(&d, &[8, 8]);
    gemm::linear(&x, &x, None).unwrap();
    assert!(d.profiler().take().is_empty(), "off by default");
    d.profiler().enable(true);
    {
        let _layer = d.span(|| "layer 0".into());
        gemm::linear(&x, &x.transpose(0, 1).unwrap(), None).unwrap();
    }
    let events = d.profiler().take();
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!((events[0].name.as_str(), events[0].depth), ("layer 0", 0));
    assert_eq!((events[1].name.as_str(), events[1].depth), ("gemm(m=8,n=8,k=8) rhs:strides=1x8", 1));
    // The printed call parses back to the same problem and strides.
    let call = lapidary::bench::parse_call(&events[1].name).unwrap();
    assert_eq!(call.problem.text(), "gemm(m=8,n=8,k=8)");
    assert!(profile::table(&events).contains("gemm(m=8"));
    let trace = profile::chrome_trace(&events);
    assert_eq!(trace["traceEvents"].as_array().unwrap().len(), 2);
}

#[test]
fn quantised_rows_are_viewed_joined_gathered_and_multiplied() {
    let d = Device::cpu_with_threads(2).unwrap();
    // Rows of one Q8_0 block: factor 1/4, integers row + i - 20.
    let row = |r: usize| {
        let integers = (0..32).map(move |i| (r as i32 + i - 20) as i8 as u8);
        half::f16::from_f32(0.25).to_le_bytes().into_iter().chain(integers)
    };
    let bytes = |rows: std::ops::Range<usize>| rows.flat_map(row).collect::<Vec<u8>>();
    let blocks = |rows: std::ops::Range<usize>| {
        let plain = Tensor::from_slice(&d, &bytes(rows.clone()), &[rows.len(), 34]).unwrap();
        plain.as_blocks(Quant::Q8_0).unwrap()
    };
    let (a, b) = (blocks(0..3), blocks(3..20));
    assert_eq!((a.shape(), a.format()), (&[3, 32][..], Format::Blocks(Quant::Q8_0)));
    let joined = concat(&[&a, &b], 0).unwrap();
    assert_eq!((joined.shape(), joined.to_bytes().unwrap()), (&[20, 32][..], bytes(0..20)));
    assert_eq!(joined.as_block_bytes().unwrap().shape(), [20, 34]);
    assert!(concat(&[&a, &a], 1).is_err() && a.reshape(&[96]).is_err());
    assert!(Tensor::from_slice(&d, &[0u8; 35], &[35]).unwrap().as_blocks(Quant::Q8_0).is_err());

    let value = |r: usize, i: usize| (r as f32 + i as f32 - 20.0) / 4.0;
    let ids = Tensor::from_slice(&d, &[19u32, 2], &[2]).unwrap();
    let rows = gather(&joined, &ids).unwrap().to_vec::<f32>().unwrap();
    assert!((0..64).all(|at| rows[at] == value([19, 2][at / 32], at % 32)));

    // Whole numbers up to 127 are rounded to themselves.
    let x: Vec<f32> = (0..32).map(|i| if i == 7 { 127.0 } else { i as f32 }).collect();
    let want: Vec<f32> = (0..20).map(|r| (0..32).map(|i| x[i] * value(r, i)).sum()).collect();
    let x = Tensor::from_slice(&d, &x, &[1, 32]).unwrap();
    let packed = gemm::prepare(&joined, DType::F32, false).unwrap();
    assert_eq!(packed.format().quant(), Some(Quant::Q8_0));
    for weight in [&joined, &packed] {
        assert_eq!(gemm::linear(&x, weight, None).unwrap().to_vec::<f32>().unwrap(), want);
    }
}
