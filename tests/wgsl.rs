//! What the cases do not hold, of every WGSL row: NaN and infinities, equal values, indices out of range, and results that
//! begin in the middle of a word.
#![cfg(feature = "wgpu")]

mod common;

use common::own_adapter;
use half::{bf16, f16};
use lapidary::ops::{Results, parse};
use lapidary::{Device, Elem, Error, Result, Tensor};

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

/// The rows of an op that come with and without subgroup operations.
const BOTH: [&str; 2] = ["", "_subgroup"];

fn run(device: &Device, text: &str, row: &str, operands: &[Option<&Tensor>]) -> Results {
    parse(text).unwrap().run(device, Some(row), operands).unwrap()
}

fn tensor<T: Elem>(device: &Device, values: &[T], shape: &[usize]) -> Tensor {
    Tensor::from_slice(device, values, shape).unwrap()
}

fn read<T: Elem>(results: &Results, i: usize) -> Result<Vec<T>> {
    results[i].as_ref().unwrap().to_vec()
}

#[test]
fn argmax_takes_the_lowest_of_several_and_nan_first() {
    let Some(d) = own_adapter() else { return };
    for both in BOTH {
        let place = |x: &[f32]| {
            let x_on = tensor(&d, x, &[1, x.len()]);
            let results = run(&d, &format!("argmax(cols={})", x.len()), &format!("argmax__wgsl{both}"), &[Some(&x_on)]);
            read::<u32>(&results, 0).unwrap()[0]
        };
        assert_eq!(place(&[-INF; 700]), 0);
        assert_eq!(place(&[-0.0, 0.0, -0.0]), 0);
        let mut x = vec![1.0; 20000];
        (x[7001], x[17000]) = (2.0, 2.0);
        assert_eq!(place(&x), 7001);
        for at in [19999, 18000, 4096, 515, 0] {
            x[at] = NAN;
            assert_eq!(place(&x), at as u32);
        }
    }
}

#[test]
fn topk_orders_ties_by_place_and_nan_first() {
    let Some(d) = own_adapter() else { return };
    let top = |x: &[f32], k: usize| {
        let on = tensor(&d, x, &[1, x.len()]);
        let results = run(&d, &format!("topk(cols={},k={k})", x.len()), "topk__wgsl", &[Some(&on)]);
        let (values, places) = (read::<f32>(&results, 0).unwrap(), read::<u32>(&results, 1).unwrap());
        values.iter().zip(&places).for_each(|(v, &at)| assert_eq!(v.to_bits(), x[at as usize].to_bits()));
        places
    };
    assert_eq!(top(&[1.0, 3.0, -0.0, 0.0, 3.0], 5), [1, 4, 0, 2, 3]);
    // In one segment, in several, and in several blocks of ranks.
    assert_eq!(top(&[1.0; 3000], 4), [0, 1, 2, 3]);
    assert_eq!(top(&[1.0; 13000], 4), [0, 1, 2, 3]);
    assert_eq!(top(&[1.0; 6000], 3000), (0..3000).collect::<Vec<u32>>());
    assert_eq!(top(&[-INF; 3000], 3), [0, 1, 2]);
    let rising: Vec<f32> = (0..15000).map(|i| (i / 2) as f32).collect();
    assert_eq!(top(&rising, 5), [14998, 14999, 14996, 14997, 14994]);
    let mut x = vec![0.0; 13000];
    (x[12900], x[1500], x[2000]) = (NAN, NAN, INF);
    assert_eq!(top(&x, 4), [1500, 12900, 2000, 0]);
    assert_eq!(top(&[NAN; 13000], 3), [0, 1, 2]);
    // The last segment has fewer than k.
    let falling: Vec<f32> = (0..8193).map(|i| -(i as f32)).collect();
    assert_eq!(top(&falling, 900), (0..900).collect::<Vec<u32>>());
}

#[test]
fn extremes_with_nan_are_nan() {
    let Some(d) = own_adapter() else { return };
    let extreme = |kind: &str, inner: usize, row: &str, x: &[f32]| {
        let len = x.len() / inner;
        let problem = format!("reduce(kind={kind},len={len},inner={inner})");
        read::<f32>(&run(&d, &problem, row, &[Some(&tensor(&d, x, &[1, len, inner]))]), 0).unwrap()
    };
    for (at, len) in [(0, 1), (5, 9), (99, 500), (3, 40000), (39999, 40000)] {
        let mut x = vec![-1.0; len];
        x[at] = NAN;
        let columns: Vec<f32> = x.iter().flat_map(|&v| [v, 1.0]).collect();
        for kind in ["max", "min"] {
            for both in BOTH {
                assert!(extreme(kind, 1, &format!("reduce__wgsl{both}"), &x)[0].is_nan(), "{at} of {len}");
            }
            let both = extreme(kind, 2, "reduce_columns__wgsl", &columns);
            assert!(both[0].is_nan() && both[1] == 1.0, "{at} of {len}");
        }
    }
    assert_eq!(extreme("max", 1, "reduce__wgsl", &[-INF; 3]), [-INF]);
}

#[test]
fn labels_are_checked_and_rows_that_do_not_count_are_not_read() {
    let Some(d) = own_adapter() else { return };
    let logits = tensor(&d, &[0.0, 0.0, NAN, INF, 1.0, -INF, 3.0, 3.0], &[4, 2]);
    for both in BOTH {
        let row = format!("cross_entropy__wgsl{both}");
        let losses = |labels: [i32; 4], ignore: i64| {
            let problem = format!("cross_entropy(rows=4,classes=2,ignore={ignore})");
            run(&d, &problem, &row, &[Some(&logits), Some(&tensor(&d, &labels, &[4]))])
        };
        let results = losses([1, -7, 0, 5], 5);
        for (i, want) in [[2f32.ln(), 0.0, 0.0, 0.0], [2f32.ln(), 0.0, 1.0, 0.0]].iter().enumerate() {
            let got = read::<f32>(&results, i).unwrap();
            assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}");
        }
        assert_eq!(read::<f32>(&losses([-1, -1, 1, -1], -100), 0).unwrap()[2], INF);
        let beyond = losses([0, -100, 0, 2], -100);
        let fault = read::<f32>(&beyond, 0);
        assert!(matches!(fault, Err(Error::Index { op: "cross_entropy", value: 2, index: 3, limit: 2 })), "{fault:?}");
        // It is told once.
        assert_eq!(read::<f32>(&beyond, 0).unwrap()[3], 0.0);
        losses([7, -100, 0, 1], -100);
        assert!(matches!(d.synchronise(), Err(Error::Index { value: 7, index: 0, .. })));
        // The largest u32 is a label like others.
        let unsigned = |ignore: i64| {
            let problem = format!("cross_entropy(classes=2,labels=u32,ignore={ignore})");
            let operands = [tensor(&d, &[1f32, 2.0], &[1, 2]), tensor(&d, &[u32::MAX], &[1])];
            read::<f32>(&run(&d, &problem, &row, &[Some(&operands[0]), Some(&operands[1])]), 0)
        };
        assert_eq!(unsigned(u32::MAX.into()).unwrap(), [0.0]);
        assert!(matches!(unsigned(-1), Err(Error::Index { .. })));
    }
    let ones = tensor(&d, &[1f32; 3], &[3]);
    let operands = [tensor(&d, &[0f32; 12], &[3, 4]), tensor(&d, &[1, 9, -1], &[3])];
    let operands = [Some(&operands[0]), Some(&operands[1]), None, Some(&ones), Some(&ones)];
    let results = run(&d, "cross_entropy_bwd(rows=3,classes=4)", "cross_entropy_bwd__wgsl", &operands);
    assert!(matches!(read::<f32>(&results, 0), Err(Error::Index { value: 9, index: 1, limit: 4, .. })));
    assert_eq!(read::<f32>(&results, 0).unwrap()[4..], [0.0; 8]);
}

#[test]
fn an_attention_that_saw_nothing_is_not_read() {
    let Some(d) = own_adapter() else { return };
    let mut a = [1f32; 16];
    (a[0], a[12]) = (NAN, NAN);
    let (a, b) = (tensor(&d, &a, &[1, 4, 1, 4]), tensor(&d, &[3f32; 16], &[1, 4, 1, 4]));
    let (lse_a, lse_b) =
        (tensor(&d, &[-INF, 0.0, 0.0, -INF], &[1, 1, 4]), tensor(&d, &[0.0, -INF, 0.0, -INF], &[1, 1, 4]));
    let operands = [Some(&a), Some(&lse_a), Some(&b), Some(&lse_b)];
    let results = run(&d, "attention_merge(len_q=4,head_dim=4)", "attention_merge_f32__wgsl", &operands);
    let want: Vec<f32> = [3.0, 1.0, 2.0, 0.0].iter().flat_map(|&v| [v; 4]).collect();
    assert_eq!(read::<f32>(&results, 0).unwrap(), want);
    let lse = read::<f32>(&results, 1).unwrap();
    assert!(lse[..2] == [0.0; 2] && (lse[2] - 2f32.ln()).abs() < 1e-6 && lse[3] == -INF, "{lse:?}");
}

#[test]
fn what_stands_beside_a_result_stays() {
    let Some(d) = own_adapter() else { return };
    let values: Vec<f32> = (0..15).map(|i| i as f32 - 4.0).collect();
    for both in BOTH {
        // Three rows of five: the first begins and the last ends within a word.
        let mut out = tensor(&d, &[bf16::from_f32(7.0); 35], &[7, 5]);
        let op = parse("rms_norm(rows=3,cols=5,out=bf16)").unwrap();
        let x = tensor(&d, &values, &[3, 5]);
        let mut whole = out.as_mut().unwrap();
        let place = &mut [whole.slice(0, 1..4).unwrap()];
        op.run_into(&d, Some(&format!("rms_norm__wgsl{both}")), &[Some(&x)], place).unwrap();
        let got: Vec<f32> = out.to_vec::<bf16>().unwrap().into_iter().map(f32::from).collect();
        assert!(got[..5].iter().chain(&got[20..]).all(|&v| v == 7.0), "{got:?}");
        for (x, y) in values.chunks(5).zip(got[5..20].chunks(5)) {
            let size = (x.iter().map(|v| v * v).sum::<f32>() / 5.0).sqrt();
            assert!(x.iter().zip(y).all(|(x, y)| (x / size - y).abs() < 0.02), "{got:?}");
        }

        let mut out = tensor(&d, &[f16::from_f32(7.0); 35], &[7, 5, 1]);
        let op = parse("group_norm(batch=3,channels=5,out=f16)").unwrap();
        let x = tensor(&d, &values, &[3, 5, 1]);
        let mut whole = out.as_mut().unwrap();
        let place = &mut [whole.slice(0, 1..4).unwrap()];
        op.run_into(&d, Some(&format!("group_norm__wgsl{both}")), &[Some(&x)], place).unwrap();
        let got: Vec<f32> = out.to_vec::<f16>().unwrap().into_iter().map(f32::from).collect();
        assert!(got[..5].iter().chain(&got[20..]).all(|&v| v == 7.0), "{got:?}");
        let want = [-2f32, -1.0, 0.0, 1.0, 2.0].map(|v| v / 2f32.sqrt());
        assert!(got[5..20].chunks(5).all(|y| y.iter().zip(want).all(|(y, w)| (y - w).abs() < 2e-3)), "{got:?}");
    }
}
