use super::{DOUT, DSUM, NormBwd, SCALE, WEIGHT, X};
use crate::ops::Real;

pub fn norm_bwd<T: Real>(op: &NormBwd, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let operand = |i: usize| inputs[i].as_ref();
    let (x, dout) = (operand(X).expect("checked"), operand(DOUT).expect("checked"));
    let (cols, count) = (op.cols, T::of(op.cols as f64));
    let mut dx = vec![T::default(); x.len()];
    let [mut products, mut sums] =
        [op.products, op.sums].map(|b| vec![T::default(); if b { op.groups * cols } else { 0 }]);
    let mean = |values: &[T]| values.iter().fold(T::default(), |sum, &v| sum + v) / count;
    for i in 0..op.rows {
        let (x, dout) = (&x[i * cols..][..cols], &dout[i * cols..][..cols]);
        let group = i / (op.rows / op.groups) * cols;
        let centre = if op.centred { mean(x) } else { T::default() };
        let squares: Vec<T> = x.iter().map(|&v| (v - centre) * (v - centre)).collect();
        let deviation = (mean(&squares) + T::of(op.eps().0 as f64)).sqrt();
        let normed: Vec<T> = x.iter().map(|&v| (v - centre) / deviation).collect();
        let h = |c: usize| {
            let h = operand(WEIGHT).map_or(dout[c], |w| dout[c] * w[c]);
            operand(SCALE).map_or(h, |scale| h * (T::of(1.0) + scale[group + c]))
        };
        let h: Vec<T> = (0..cols).map(h).collect();
        let along: Vec<T> = h.iter().zip(&normed).map(|(&h, &n)| h * n).collect();
        let (h_mean, along) = (if op.centred { mean(&h) } else { T::default() }, mean(&along));
        for c in 0..cols {
            let d = (h[c] - h_mean - normed[c] * along) / deviation;
            dx[i * cols + c] = operand(DSUM).map_or(d, |dsum| d + dsum[i * cols + c]);
            if op.products {
                products[group + c] += dout[c] * normed[c];
            }
            if op.sums {
                sums[group + c] += dout[c];
            }
        }
    }
    vec![dx, products, sums]
}
