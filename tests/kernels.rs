//! Every kernel that this machine can run, on every case, against the f64 reference; contiguous and scattered operands.

use lapidary::bench::{Arrangement, Operands, check_rows, parse_call};
use lapidary::ops::rvq_encode::{self, Distance};
use lapidary::ops::{CATALOG, Class};
use lapidary::{Device, Tensor};

/// Cases of model shapes are checked up to this many floating-point operations or bytes; `lapidary check` does all.
const BUDGET: u64 = 25_000_000;

#[test]
fn every_kernel_agrees_with_the_reference() {
    let device = Device::cpu_with_threads(2).unwrap();
    let (mut checked, mut failures) = (0, Vec::new());
    for entry in CATALOG {
        for case in (entry.cases)().into_iter().filter(|c| c.within(BUDGET)) {
            let problem = &*case.problem;
            let mut ran = 0;
            check_rows(problem, &device, None, &Arrangement::standard(problem), &mut |done| {
                ran += 1;
                if let Some(failure) = done.failure() {
                    failures.push(format!("{} {} {}: {failure}", done.kernel, problem.text(), done.arrangement.name()));
                }
            })
            .unwrap();
            assert!(ran > 0, "{}: no kernel takes it", problem.text());
            checked += ran;
        }
    }
    assert!(failures.is_empty(), "{} of {checked} checks failed:\n{}", failures.len(), failures.join("\n"));
    println!("{checked} checks");
}

/// Products as gradients ask for them: transposed operands without gaps, which kernels pack in another way than strided
/// ones.
#[test]
fn transposed_products_agree_with_the_reference() {
    let device = Device::cpu_with_threads(2).unwrap();
    for text in [
        "gemm(m=40,n=70,k=29) lhs:strides=1x40 rhs:strides=1x70",
        "gemm(m=300,n=33,k=530) lhs:strides=1x300 rhs:strides=1x33",
        "gemm(m=7,n=64,k=9,rhs=bf16) rhs:strides=1x64",
        "gemm(m=9,n=50,k=77,lhs=bf16,rhs=bf16) lhs:strides=1x9 rhs:strides=1x50",
        "gemm(batch=3,rhs_batch=3,m=20,n=35,k=11) lhs:strides=220x1x20 rhs:strides=385x1x35",
        "gemm(m=9,n=21,k=30,gated=true,activation=silu) rhs:strides=1x42",
    ] {
        let call = parse_call(text).unwrap();
        check_rows(&*call.problem, &device, None, &[call.arrangement], &mut |done| {
            assert_eq!(done.failure(), None, "{} {text}", done.kernel);
        })
        .unwrap();
    }
}

/// Small whole numbers, of which sums are exact and distances are often equal; vectors of several parts, tiles that are not full.
#[test]
fn of_equally_near_entries_the_first_is_chosen() {
    let (n, dim, size, levels) = (401, 19, 75, 3);
    let whole = |i: usize, values: i32| (i as u32).wrapping_mul(2_654_435_761).rotate_right(15) as i32 % values;
    let x: Vec<i32> = (0..n * dim).map(|i| whole(i, 4)).collect();
    // The second half of a codebook repeats the first.
    let entry = |level: usize, k: usize, j: usize| {
        whole((level * size + k % (size / 2)) * dim + j + 7_777, 2 + level as i32 % 2)
    };
    let books: Vec<f32> =
        (0..levels * size * dim).map(|i| entry(i / (size * dim), i / dim % size, i % dim) as f32).collect();
    let device = Device::cpu_with_threads(2).unwrap();
    let floats: Vec<f32> = x.iter().map(|&v| v as f32).collect();
    let tensor = |data: &[f32], shape: &[usize]| Tensor::from_slice(&device, data, shape).unwrap();
    let (x_tensor, books) = (tensor(&floats, &[n, dim]), tensor(&books, &[levels, size, dim]));
    let encoded = rvq_encode::encode(&x_tensor, &books, Distance::Euclidean).unwrap();
    let codes = encoded.codes.to_vec::<u32>().unwrap();
    let (quantized, measure) = (encoded.quantized.to_vec::<f32>().unwrap(), encoded.measure.to_vec::<f32>().unwrap());
    let mut ties = 0;
    for (i, x) in x.chunks_exact(dim).enumerate() {
        let mut r = x.to_vec();
        for level in 0..levels {
            let distance = |k: usize| (0..dim).map(|j| (r[j] - entry(level, k, j)).pow(2)).sum::<i32>();
            let least = (0..size).map(distance).min().unwrap();
            let mut nearest = (0..size).filter(|&k| distance(k) == least);
            let code = nearest.next().unwrap();
            ties += usize::from(nearest.next().is_some());
            assert_eq!(codes[level * n + i] as usize, code, "vector {i}, level {level}");
            r.iter_mut().enumerate().for_each(|(j, r)| *r -= entry(level, code, j));
            assert_eq!(measure[level * n + i], (least as f32).sqrt());
        }
        assert!((0..dim).all(|j| quantized[i * dim + j] == (x[j] - r[j]) as f32), "vector {i}");
    }
    assert!(ties > n, "only {ties} ties");
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let devices = [1, 3].map(|n| Device::cpu_with_threads(n).unwrap());
    for entry in CATALOG {
        for case in (entry.cases)().into_iter().filter(|c| c.within(BUDGET)) {
            let problem = &*case.problem;
            for row in problem.explain(&devices[0], &[]).iter().filter(|r| r.unsupported.is_none()) {
                let bits = devices.each_ref().map(|device| {
                    let operands = Operands::random(problem, device, 3, &Arrangement::Contiguous).unwrap();
                    let results = operands.run(problem, device, Some(row.name)).unwrap();
                    results.into_iter().flatten().map(|t| t.to_bytes().unwrap()).collect::<Vec<_>>()
                });
                assert!(bits[0] == bits[1], "{} {}: 1 and 3 threads differ", row.name, problem.text());
            }
        }
    }
}

#[test]
fn problems_print_as_they_parse() {
    for entry in CATALOG {
        let mut classes = [0; 2];
        for case in (entry.cases)() {
            let text = case.problem.text();
            assert_eq!((entry.parse)(&text).unwrap().text(), text);
            assert_eq!(case.problem.name(), entry.name);
            classes[(case.class == Class::Model) as usize] += 1;
        }
        assert!(classes.iter().all(|&n| n > 0), "{} lacks edge or model cases", entry.name);
    }
}
