use super::AttentionMerge;
use crate::ops::{Real, Sample};

pub fn attention_merge<T: Real>(op: &AttentionMerge, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
    let operand = |n: usize| inputs[n].as_deref().unwrap_or_default();
    let (out_a, lse_a, out_b, lse_b) = (operand(0), operand(1), operand(2), operand(3));
    let (mut out, mut lse) = (vec![T::default(); out_a.len()], vec![T::default(); lse_a.len()]);
    for b in 0..op.batch {
        for h in 0..op.heads {
            for i in 0..op.len_q {
                let at = (b * op.heads + h) * op.len_q + i;
                let largest = lse_a[at].larger(lse_b[at]);
                if largest.to_f64() == f64::NEG_INFINITY {
                    lse[at] = largest;
                    continue;
                }
                let (x, y) = ((lse_a[at] - largest).exp(), (lse_b[at] - largest).exp());
                let sum = x + y;
                lse[at] = largest + sum.ln();
                let row = ((b * op.len_q + i) * op.heads + h) * op.head_dim;
                for c in row..row + op.head_dim {
                    out[c] = (x * out_a[c] + y * out_b[c]) / sum;
                }
            }
        }
    }
    vec![out, lse]
}
