use super::Softmax;
use crate::ops::{Real, Sample};

pub fn softmax<T: Real>(op: &Softmax, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
    let x = inputs[0].as_ref().expect("checked");
    let mut out = vec![T::default(); x.len()];
    for i in (0..op.rows).filter(|&i| rows.wants(i)) {
        let row = i * op.cols..(i + 1) * op.cols;
        let largest = x[row.clone()].iter().fold(T::of(f64::NEG_INFINITY), |m, &v| v.larger(m));
        if largest.to_f64() == f64::NEG_INFINITY {
            continue;
        }
        let mut sum = T::default();
        for j in row.clone() {
            out[j] = (x[j] - largest).exp();
            sum += out[j];
        }
        for j in row {
            out[j] = out[j] / sum;
        }
    }
    vec![out]
}
