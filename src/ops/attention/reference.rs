use super::Attention;
use crate::ops::{Real, Sample};

pub fn attention<T: Real>(op: &Attention, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
    let mut out = vec![T::default(); op.batch * op.len_q * op.heads_q * op.head_dim];
    let mut lse = vec![T::default(); if op.lse { op.batch * op.heads_q * op.len_q } else { 0 }];
    for b in 0..op.batch {
        for h in 0..op.heads_q {
            let wants_lse = op.lse && rows.wants(b * op.heads_q + h);
            for i in 0..op.len_q {
                let row = (b * op.len_q + i) * op.heads_q + h;
                if !wants_lse && !rows.wants(row) {
                    continue;
                }
                let out = &mut out[row * op.head_dim..][..op.head_dim];
                let sum = query(op, inputs, (b, h, i), out);
                if op.lse {
                    lse[(b * op.heads_q + h) * op.len_q + i] = sum;
                }
            }
        }
    }
    vec![out, lse]
}

/// One query of one head: the result is written, the log-sum-exp returned.
fn query<T: Real>(op: &Attention, inputs: &[Option<Vec<T>>], (b, h, i): (usize, usize, usize), out: &mut [T]) -> T {
    let operand = |n: usize| inputs[n].as_deref().unwrap_or_default();
    let (q, k, v, bias) = (operand(0), operand(1), operand(2), operand(3));
    let (ids_q, ids_k, padding) = (operand(4), operand(5), operand(6));
    let d = op.head_dim;
    let keys = if op.lens_k { operand(7)[b].to_f64() as usize } else { op.len_k };
    let q = &q[((b * op.len_q + i) * op.heads_q + h) * d..][..d];
    let head = h / (op.heads_q / op.heads_kv);
    let key = |j: usize| ((b * op.len_k + j) * op.heads_kv + head) * d;

    let mut seen: Vec<(usize, T)> = Vec::new();
    for j in op.attend().visible(i, keys) {
        let hidden = op.segments && ids_q[b * op.len_q + i] != ids_k[b * op.len_k + j]
            || op.key_padding && padding[b * op.len_k + j] == T::default();
        if hidden {
            continue;
        }
        let mut dot = T::default();
        for (&x, &y) in q.iter().zip(&k[key(j)..][..d]) {
            dot += x * y;
        }
        let mut score = dot * T::of(f64::from(op.attend().scale()));
        if op.bias {
            let (b, h) = (b.min(op.bias_batch - 1), h.min(op.bias_heads - 1));
            score += bias[((b * op.bias_heads + h) * op.len_q + i) * op.len_k + j];
        }
        seen.push((j, score));
    }
    let lowest = T::of(f64::NEG_INFINITY);
    let largest = seen.iter().fold(lowest, |m, &(_, s)| s.larger(m));
    if largest == lowest {
        return lowest;
    }
    let mut sum = T::default();
    for &(j, score) in &seen {
        let weight = (score - largest).exp();
        sum += weight;
        for (o, &x) in out.iter_mut().zip(&v[key(j)..][..d]) {
            *o += weight * x;
        }
    }
    for o in out {
        *o = *o / sum;
    }
    largest + sum.ln()
}
