use super::{BIAS, Norm, RESIDUAL, SCALE, SHIFT, WEIGHT, X};
use crate::ops::{Real, Sample};

pub(in crate::ops) fn reference<T: Real>(n: &Norm, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
    let operand = |i: usize| inputs[i].as_ref();
    let (x, cols) = (operand(X).expect("checked"), n.cols);
    let mut out = vec![T::default(); x.len()];
    let mut sum = vec![T::default(); if n.residual { x.len() } else { 0 }];
    for i in (0..n.rows).filter(|&i| rows.wants(i)) {
        let at = |j: usize| i * cols + j;
        let row: Vec<T> = (0..cols).map(|j| operand(RESIDUAL).map_or(x[at(j)], |r| x[at(j)] + r[at(j)])).collect();
        if n.residual {
            sum[i * cols..(i + 1) * cols].copy_from_slice(&row);
        }
        let count = T::of(cols as f64);
        let mut mean = T::default();
        if n.centred {
            row.iter().for_each(|&v| mean += v);
            mean = mean / count;
        }
        let mut squares = T::default();
        row.iter().for_each(|&v| squares += (v - mean) * (v - mean));
        let deviation = (squares / count + T::of(n.eps.0 as f64)).sqrt();
        let group = i / (n.rows / n.groups) * cols;
        for (j, &v) in row.iter().enumerate() {
            let mut y = (v - mean) / deviation;
            y = operand(WEIGHT).map_or(y, |w| y * w[j]);
            y = operand(BIAS).map_or(y, |b| y + b[j]);
            if let (Some(scale), Some(shift)) = (operand(SCALE), operand(SHIFT)) {
                y = y * (T::of(1.0) + scale[group + j]) + shift[group + j];
            }
            out[at(j)] = y;
        }
    }
    vec![out, sum]
}
