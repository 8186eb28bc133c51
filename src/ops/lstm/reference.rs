use super::Lstm;
use crate::ops::Real;

pub fn lstm<T: Real>(op: &Lstm, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let (gates, w_hh) = (inputs[0].as_ref().expect("checked"), inputs[1].as_ref().expect("checked"));
    let n = op.hidden;
    let initial = |i: usize| inputs[i].clone().unwrap_or(vec![T::default(); op.batch * n]);
    let (mut h, mut c) = (initial(2), initial(3));
    let mut out = vec![T::default(); op.batch * op.len * n];
    let sigmoid = |x: T| T::of(1.0) / (T::of(1.0) + (-x).exp());
    for b in 0..op.batch {
        let (h, c) = (&mut h[b * n..(b + 1) * n], &mut c[b * n..(b + 1) * n]);
        for step in 0..op.len {
            let t = if op.reverse { op.len - 1 - step } else { step };
            let mut next = vec![T::default(); n];
            for j in 0..n {
                let [i, f, g, o] = [0, 1, 2, 3].map(|gate| {
                    let mut sum = gates[(b * op.len + t) * 4 * n + gate * n + j];
                    for k in 0..n {
                        sum += w_hh[(gate * n + j) * n + k] * h[k];
                    }
                    sum
                });
                c[j] = sigmoid(f) * c[j] + sigmoid(i) * g.tanh();
                next[j] = sigmoid(o) * c[j].tanh();
            }
            h.copy_from_slice(&next);
            out[(b * op.len + t) * n..][..n].copy_from_slice(&next);
        }
    }
    vec![out, h, c]
}
