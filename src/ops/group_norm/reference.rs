use super::GroupNorm;
use crate::ops::Real;

pub fn group_norm<T: Real>(op: &GroupNorm, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let x = inputs[0].as_ref().expect("checked");
    let mut out = vec![T::default(); x.len()];
    let len = op.group_len();
    if len == 0 {
        return vec![out];
    }
    for (g, (x, out)) in x.chunks_exact(len).zip(out.chunks_exact_mut(len)).enumerate() {
        let count = T::of(len as f64);
        let (mut mean, mut squares) = (T::default(), T::default());
        x.iter().for_each(|&v| mean += v);
        mean = mean / count;
        x.iter().for_each(|&v| squares += (v - mean) * (v - mean));
        let deviation = (squares / count + T::of(op.eps().0 as f64)).sqrt();
        for (i, (&v, out)) in x.iter().zip(out).enumerate() {
            let c = g % op.groups * (op.channels / op.groups) + i / op.inner;
            let mut y = (v - mean) / deviation;
            if let (Some(weight), Some(bias)) = (&inputs[1], &inputs[2]) {
                y = y * weight[c] + bias[c];
            }
            *out = if op.silu { y / (T::of(1.0) + (-y).exp()) } else { y };
        }
    }
    vec![out]
}
