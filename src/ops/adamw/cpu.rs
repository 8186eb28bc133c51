//! AdamW on the CPU: all contiguous.
//!
//! What all parameters share is computed once, in f64. Threads take parts of `PART` parameters. Bound: memory, four reads
//! and three writes (with a bf16 copy three and a half).

use super::{AdamW, complement};
use crate::backend::cpu::simd::{Lane, Simd};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::{isa_rows, simd_fn};
use half::bf16;
use std::sync::{Mutex, PoisonError};

impl Kernels<Cpu> for AdamW {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("adamw_f32", supports, launch)];
}

/// Parameters of a part.
const PART: usize = 16384;

fn supports<S: Simd>(_: &AdamW, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, AdamW>, op: &AdamW, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let grad = l.input::<f32>(0);
    let step = Step::new(op, l.input(1));
    let (Some(param), Some(m), Some(v)) = (l.output::<f32>(0), l.output::<f32>(1), l.output::<f32>(2)) else {
        return Ok(());
    };
    let mut weights = l.output::<bf16>(3).map(|weight| weight.chunks_mut(PART));
    let parts = grad.chunks(PART).zip(param.chunks_mut(PART)).zip(m.chunks_mut(PART).zip(v.chunks_mut(PART)));
    let parts = parts.map(|((grad, param), (m, v))| {
        let weight = weights.as_mut().and_then(Iterator::next).unwrap_or_default();
        Mutex::new(Part { grad, param, m, v, weight })
    });
    let parts: Vec<_> = parts.collect();
    l.pool().run(parts.len(), |i| update(s, &step, &mut parts[i].lock().unwrap_or_else(PoisonError::into_inner)));
    Ok(())
}

/// Some parameters; `weight` may be empty.
struct Part<'a> {
    grad: &'a [f32],
    param: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    weight: &'a mut [bf16],
}

/// What all parameters share.
struct Step {
    grad_scale: f32,
    /// 1 - lr · weight_decay
    decay: f32,
    /// 1 - beta1
    gain1: f32,
    beta2: f32,
    /// 1 - beta2
    gain2: f32,
    /// √correction2
    root: f32,
    eps: f32,
    /// lr / correction1
    size: f32,
}

impl Step {
    fn new(op: &AdamW, params: &[f32]) -> Step {
        let [lr, correction1, correction2, grad_scale] = std::array::from_fn(|i| f64::from(params[i]));
        Step {
            grad_scale: grad_scale as f32,
            decay: (1.0 - lr * f64::from(op.weight_decay.0)) as f32,
            gain1: complement(op.beta1) as f32,
            beta2: op.beta2.0,
            gain2: complement(op.beta2) as f32,
            root: correction2.sqrt() as f32,
            eps: op.eps.0,
            size: (lr / correction1) as f32,
        }
    }
}

/// Vectors of the same.
struct Splat<V> {
    grad_scale: V,
    decay: V,
    gain1: V,
    beta2: V,
    gain2: V,
    root: V,
    eps: V,
    size: V,
}

/// New parameter, m and v.
#[inline(always)]
fn updated<S: Simd>(s: S, k: &Splat<S::V>, grad: S::V, param: S::V, m: S::V, v: S::V) -> [S::V; 3] {
    let g = s.mul(grad, k.grad_scale);
    let m = s.fma(s.sub(g, m), k.gain1, m);
    let v = s.fma(s.mul(g, k.gain2), g, s.mul(v, k.beta2));
    let divisor = s.add(s.div(s.sqrt(v), k.root), k.eps);
    [s.fnma(s.div(m, divisor), k.size, s.mul(param, k.decay)), m, v]
}

simd_fn! {
    fn update[S](s, step: &Step, part: &mut Part<'_>) {
        let k = Splat {
            grad_scale: s.splat(step.grad_scale),
            decay: s.splat(step.decay),
            gain1: s.splat(step.gain1),
            beta2: s.splat(step.beta2),
            gain2: s.splat(step.gain2),
            root: s.splat(step.root),
            eps: s.splat(step.eps),
            size: s.splat(step.size),
        };
        let Part { grad, param, m, v, weight } = part;
        let (n, whole) = (grad.len(), grad.len() - grad.len() % S::LANES);
        for at in (0..whole).step_by(S::LANES) {
            let (p, mean, square) = (s.load(&param[at..]), s.load(&m[at..]), s.load(&v[at..]));
            let [p, mean, square] = updated(s, &k, s.load(&grad[at..]), p, mean, square);
            s.store(p, &mut param[at..]);
            s.store(mean, &mut m[at..]);
            s.store(square, &mut v[at..]);
            if !weight.is_empty() {
                bf16::store(s, p, &mut weight[at..]);
            }
        }
        if whole < n {
            let (p, mean, square) = (s.load_part(&param[whole..]), s.load_part(&m[whole..]), s.load_part(&v[whole..]));
            let [p, mean, square] = updated(s, &k, s.load_part(&grad[whole..]), p, mean, square);
            s.store_part(p, &mut param[whole..]);
            s.store_part(mean, &mut m[whole..]);
            s.store_part(square, &mut v[whole..]);
            if !weight.is_empty() {
                bf16::store_part(s, p, &mut weight[whole..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::adamw::*;
    use crate::{Device, Tensor};

    #[test]
    fn steps_are_those_of_the_formula() {
        let d = Device::cpu_with_threads(1).unwrap();
        let options = Options { weight_decay: 0.1, ..Default::default() };
        let (lr, grads) = (0.01, [0.5f64, -2.0, 0.25]);
        let tensor = |x: f32| Tensor::from_slice(&d, &[x], &[1, 1]).unwrap();
        let (mut param, mut m, mut v) = (tensor(1.5), tensor(0.0), tensor(0.0));
        let mut weight = Tensor::zeros(&d, DType::BF16, &[1, 1]).unwrap();
        let (mut p, mut mean, mut square) = (1.5f64, 0.0f64, 0.0f64);
        for (i, &g) in grads.iter().enumerate() {
            // Gradients of two batches added up: half of each counts.
            let step = options.step_params(&d, lr as f32, i as u64 + 1, 0.5).unwrap();
            let state = State { param: &mut param, m: &mut m, v: &mut v, weight: Some(&mut weight) };
            adamw(state, &tensor(2.0 * g as f32), &step, &options).unwrap();
            let t = i as i32 + 1;
            p *= 1.0 - lr * 0.1;
            mean = 0.9 * mean + 0.1 * g;
            square = 0.999 * square + 0.001 * g * g;
            let divisor = (square / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8;
            p -= lr * mean / (1.0 - 0.9f64.powi(t)) / divisor;
            let got = f64::from(param.to_vec::<f32>().unwrap()[0]);
            assert!((got - p).abs() < 3e-7, "step {t}: {got} for {p}");
            let got = f64::from(v.to_vec::<f32>().unwrap()[0]);
            assert!((got / square - 1.0).abs() < 3e-7, "step {t}: v is {got} for {square}");
        }
        let rounded = bf16_of(&param);
        assert_eq!(weight.to_vec::<half::bf16>().unwrap()[0].to_f32(), rounded);
        let held = m.clone();
        let state = State { param: &mut param, m: &mut m, v: &mut v, weight: None };
        let step = options.step_params(&d, 0.1, 4, 1.0).unwrap();
        assert!(matches!(adamw(state, &tensor(1.0), &step, &options), Err(Error::Aliased { .. })));
        drop(held);
        let state = State { param: &mut param, m: &mut m, v: &mut v, weight: None };
        assert!(adamw(state, &Tensor::zeros(&d, DType::F32, &[1]).unwrap(), &step, &options).is_err());
    }

    fn bf16_of(x: &Tensor) -> f32 {
        half::bf16::from_f32(x.to_vec::<f32>().unwrap()[0]).to_f32()
    }
}
