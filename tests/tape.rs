//! The tape: losses, sums of gradients, blocks that are computed twice, and what the walk backwards holds.

use lapidary::nn::Linear;
use lapidary::ops::activation::Activation;
use lapidary::ops::gemm::{self, Epilogue};
use lapidary::ops::{elementwise, recomputed, reduce};
use lapidary::{DType, Device, Error, Gradients, Result, Tensor, backward, no_grad};

fn device() -> Device {
    Device::cpu_with_threads(2).unwrap()
}

/// Numbers without a pattern, between -1 and 1.
fn numbers(device: &Device, shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1999) as f32 / 1000.0 - 1.0).collect();
    Tensor::from_slice(device, &values, shape).unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.contiguous().unwrap().to_vec().unwrap()
}

fn total(t: &Tensor) -> Tensor {
    reduce::sum(&t.contiguous().unwrap().reshape(&[t.count()]).unwrap(), 0).unwrap()
}

fn close(a: &Tensor, b: &Tensor) {
    assert_eq!(a.shape(), b.shape());
    for (a, b) in values(a).into_iter().zip(values(b)) {
        assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} for {b}");
    }
}

#[test]
fn a_loss_has_one_element() {
    let d = device();
    let x = numbers(&d, &[2, 3], 1).with_grad();
    assert!(matches!(x.clone().backward(), Err(Error::View { .. })));
    assert!(total(&x.detach()).backward().is_err(), "not on the tape");
    let mut grads = total(&elementwise::square(&x).unwrap()).backward().unwrap();
    close(grads.get(&x).unwrap(), &elementwise::add(&x, &x).unwrap().detach());
    assert_eq!(grads.iter().count(), 1);
    assert!(grads.remove(&x).is_some() && grads.get(&x).is_none() && grads.iter().next().is_none());
    let wide = [(x.clone(), numbers(&d, &[2, 3], 2).to_dtype(DType::F16).unwrap())];
    assert!(backward(&wide, elementwise::add).is_err(), "gradients are f32");
}

#[test]
fn gradients_of_parts_of_a_batch_add_up() {
    let d = device();
    let (w, unused) = (numbers(&d, &[4, 3], 1).with_grad(), numbers(&d, &[2], 4).with_grad());
    let loss = |x: &Tensor| total(&elementwise::tanh(&gemm::linear(x, &w, None).unwrap()).unwrap());
    let x = numbers(&d, &[6, 3], 2);
    let whole = loss(&x).backward().unwrap();
    let mut sum = Gradients::default();
    for part in x.split(0, &[2, 1, 3]).unwrap() {
        sum.accumulate(loss(&part).backward().unwrap()).unwrap();
    }
    sum.accumulate(total(&unused).backward().unwrap()).unwrap();
    close(sum.get(&w).unwrap(), whole.get(&w).unwrap());
    assert_eq!(values(sum.get(&unused).unwrap()), [1.0, 1.0]);
    let halved = sum.map(|grad| elementwise::affine(grad, 0.5, 0.0)).unwrap();
    close(&elementwise::affine(halved.get(&w).unwrap(), 2.0, 0.0).unwrap(), whole.get(&w).unwrap());
}

#[test]
fn operands_that_repeat_get_the_sum_of_their_gradients() {
    let d = device();
    let g = numbers(&d, &[2, 3, 4, 5], 9);
    for shape in [&[5][..], &[4, 1], &[3, 1, 5], &[2, 1, 1, 5], &[1, 3, 4, 1], &[], &[2, 3, 4, 5]] {
        let (x, y) = (numbers(&d, shape, 3).with_grad(), numbers(&d, &[2, 3, 4, 5], 4));
        let grads = backward([(elementwise::mul(&x, &y).unwrap(), g.clone())], elementwise::add).unwrap();
        let mut want = elementwise::mul(&g, &y).unwrap();
        let lead = 4 - shape.len();
        for dim in (0..4).filter(|&dim| dim < lead || shape[dim - lead] == 1) {
            want = reduce::sum(&want, dim).unwrap();
        }
        close(grads.get(&x).unwrap(), &want.reshape(shape).unwrap());
    }
}

#[test]
fn parts_are_one_step() {
    let d = device();
    let x = numbers(&d, &[2, 7], 1).with_grad();
    let parts = x.split(1, &[3, 0, 2, 2]).unwrap();
    assert_eq!(parts.iter().map(|t| t.shape()[1]).collect::<Vec<_>>(), [3, 0, 2, 2]);
    assert!(x.split(1, &[3, 3]).is_err() && x.split(2, &[1]).is_err() && x.split(1, &[usize::MAX, 8]).is_err());
    // The third part takes no part.
    let loss = elementwise::add(&total(&elementwise::square(&parts[0]).unwrap()), &total(&parts[3])).unwrap();
    let grads = loss.backward().unwrap();
    let (grad, x) = (values(grads.get(&x).unwrap()), values(&x));
    for (i, (g, x)) in grad.into_iter().zip(x).enumerate() {
        assert_eq!(g, [2.0 * x, 2.0 * x, 2.0 * x, 0.0, 0.0, 1.0, 1.0][i % 7]);
    }
}

/// A block with a weight that it holds, and one with what it is conditioned on.
fn block(x: &Tensor, w: &Tensor, gain: &Tensor) -> Result<Tensor> {
    let activation = Activation::Silu;
    let hidden = gemm::linear_with(x, w, &Epilogue { activation, residual: Some(x), ..Default::default() })?;
    elementwise::mul(&hidden, gain)
}

/// The gradients of a stack of blocks with respect to `x`, two weights and a condition.
fn stack(d: &Device, run: impl Fn(Tensor, Tensor, Tensor) -> Result<Tensor>) -> [Tensor; 4] {
    let x = numbers(d, &[5, 8], 1).with_grad();
    let w = [2, 3].map(|seed| numbers(d, &[8, 8], seed).with_grad());
    let condition = numbers(d, &[8], 4).with_grad();
    // On the tape, but no leaf; used by both blocks and by what follows.
    let gain = elementwise::sigmoid(&condition).unwrap();
    let mut y = x.clone();
    for w in &w {
        y = run(y, w.clone(), gain.clone()).unwrap();
    }
    let loss = total(&elementwise::mul(&y, &gain).unwrap());
    let grads = loss.backward().unwrap();
    [&x, &w[0], &w[1], &condition].map(|leaf| grads.get(leaf).unwrap().clone())
}

#[test]
fn a_recomputed_block_has_the_gradients_of_a_recorded_one() {
    let d = device();
    let recorded = stack(&d, |x, w, gain| block(&x, &w, &gain));
    let captured =
        stack(&d, |x, w, gain| Ok(recomputed(&[&x], move |x| Ok(vec![block(&x[0], &w, &gain)?]))?.remove(0)));
    let given =
        stack(&d, |x, w, gain| Ok(recomputed(&[&x, &w, &gain], |x| Ok(vec![block(&x[0], &x[1], &x[2])?]))?.remove(0)));
    let nested = stack(&d, |x, w, gain| {
        let inner = move |x: &[Tensor]| {
            let (w, gain) = (w.clone(), gain.clone());
            recomputed(&[&x[0]], move |x| Ok(vec![block(&x[0], &w, &gain)?, x[0].clone()]))
        };
        Ok(recomputed(&[&x], inner)?.remove(0))
    });
    for ((recorded, captured), (given, nested)) in recorded.iter().zip(&captured).zip(given.iter().zip(&nested)) {
        close(captured, recorded);
        close(given, recorded);
        close(nested, recorded);
    }
}

#[test]
fn a_recomputed_block_hands_on_what_it_only_passes() {
    let d = device();
    let (x, other) = (numbers(&d, &[3], 1).with_grad(), numbers(&d, &[3], 2).with_grad());
    let passed = other.clone();
    let results = recomputed(&[&x], move |x| Ok(vec![x[0].clone(), passed.clone()])).unwrap();
    let loss = total(&elementwise::mul(&results[0], &results[1]).unwrap());
    let grads = loss.backward().unwrap();
    close(grads.get(&x).unwrap(), &other.detach());
    close(grads.get(&other).unwrap(), &x.detach());
    let plain = recomputed(&[&x.detach()], |x| Ok(x.to_vec())).unwrap();
    assert!(!plain[0].has_node(), "nothing of the tape is used");
    let frozen = other.clone();
    let results = recomputed(&[&x.detach()], move |x| {
        let _pause = no_grad();
        Ok(vec![elementwise::add(&x[0], &frozen)?])
    });
    assert!(!results.unwrap()[0].has_node(), "what the block itself does not record is not used");
}

#[test]
fn the_walk_frees_what_it_has_passed() {
    let d = device();
    let mib = 1 << 20;
    let x = numbers(&d, &[mib / 4], 1).with_grad();
    let layers = |x: &Tensor, n: usize| (0..n).fold(x.clone(), |x, _| elementwise::sin(&x).unwrap());
    let before = d.memory().current_bytes;
    let loss = total(&layers(&x, 40));
    let held = d.memory().current_bytes - before;
    assert!(held >= 39 * mib, "{held}");
    d.reset_peak_memory();
    let grads = loss.backward().unwrap();
    let extra = d.memory().peak_bytes - before - held;
    assert!(extra <= 5 * mib, "{extra} bytes more than the tape held");
    assert!(d.memory().current_bytes - before <= mib + 4096, "only the gradient of x is left");
    drop(grads);

    // Of blocks that are recomputed only the inputs are held, and one block while it is walked.
    d.reset_peak_memory();
    let mut y = x.clone();
    for _ in 0..4 {
        y = recomputed(&[&y], move |y| Ok(vec![layers(&y[0], 10)])).unwrap().remove(0);
    }
    let loss = total(&y);
    drop(y);
    let grads = loss.backward().unwrap();
    let peak = d.memory().peak_bytes - before;
    assert!(peak <= 19 * mib, "{peak}");
    drop(grads);
}

#[test]
fn frozen_weights_hand_gradients_through() {
    let d = device();
    let x = numbers(&d, &[4, 24], 1).with_grad();
    let weight = numbers(&d, &[18, 24], 2);
    for (weight, compute) in [(weight.clone(), DType::F32), (weight.to_dtype(DType::BF16).unwrap(), DType::F32)] {
        let (trained, frozen) = (weight.with_grad(), weight.clone());
        let of = |weight: &Tensor| {
            let linear = Linear::new(weight, None, compute).unwrap();
            let y = linear.forward_with(&x, Activation::GeluTanh, None, DType::F32).unwrap();
            total(&y).backward().unwrap()
        };
        let (with, without) = (of(&trained), of(&frozen));
        close(without.get(&x).unwrap(), with.get(&x).unwrap());
        let grad = with.get(&trained).unwrap();
        assert_eq!((grad.shape(), grad.dtype()), (&[18, 24][..], DType::F32));
        // Gated, in the format that the device wants.
        let gated = |weight: &Tensor| {
            let epilogue = Epilogue { activation: Activation::Silu, gated: true, ..Default::default() };
            total(&gemm::linear_with(&x, weight, &epilogue).unwrap()).backward().unwrap()
        };
        let packed = gemm::prepare(&weight, DType::F32, true).unwrap();
        let (with, without) = (gated(&trained), gated(&packed));
        close(without.get(&x).unwrap(), with.get(&x).unwrap());
    }
}
