use super::Concat;
use crate::ops::Real;

pub fn concat<T: Real>(op: &Concat, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let mut out = Vec::with_capacity(op.outer * op.total() * op.inner);
    for o in 0..op.outer {
        for (x, part) in inputs.iter().flatten().zip(op.parts.iter()) {
            let run = part * op.inner;
            out.extend_from_slice(&x[o * run..(o + 1) * run]);
        }
    }
    vec![out]
}
