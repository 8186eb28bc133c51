use super::{AdamW, complement};
use crate::ops::Real;

pub fn adamw<T: Real>(op: &AdamW, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let operand = |i: usize| inputs[i].as_ref().expect("checked");
    let (grad, step) = (operand(0), operand(1));
    let (mut param, mut m, mut v) = (operand(2).clone(), operand(3).clone(), operand(4).clone());
    let &[lr, correction1, correction2, grad_scale] = &step[..] else { return Vec::new() };
    let of = |x: f32| T::of(x.into());
    for i in 0..op.n {
        let g = grad_scale * grad[i];
        param[i] = param[i] * (T::of(1.0) - lr * of(op.weight_decay.0));
        m[i] = m[i] + T::of(complement(op.beta1)) * (g - m[i]);
        v[i] = of(op.beta2.0) * v[i] + T::of(complement(op.beta2)) * g * g;
        let divisor = v[i].sqrt() / correction2.sqrt() + of(op.eps.0);
        param[i] = param[i] - lr / correction1 * (m[i] / divisor);
    }
    let weight = if op.weight { param.clone() } else { Vec::new() };
    vec![param, m, v, weight]
}
