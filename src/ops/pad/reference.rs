use super::Pad;
use crate::ops::Real;

pub fn pad<T: Real>(op: &Pad, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let x = inputs[0].as_ref().expect("checked");
    let ([d, h, w], [d_in, h_in, w_in]) = (op.padded(), *op.size);
    let mut out = vec![T::default(); op.shape(!op.fold).iter().product()];
    for at in 0..op.outer * d * h * w {
        let sources = (op.source(0, at / (h * w) % d), op.source(1, at / w % h), op.source(2, at % w));
        let (Some(z), Some(y), Some(x_at)) = sources else { continue };
        let point = ((at / (d * h * w) * d_in + z) * h_in + y) * w_in + x_at;
        match op.fold {
            true => out[point] += x[at],
            false => out[at] = x[point],
        }
    }
    vec![out]
}
