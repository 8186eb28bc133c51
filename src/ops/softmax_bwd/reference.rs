use super::SoftmaxBwd;
use crate::ops::{Real, Sample};

pub fn softmax_bwd<T: Real>(op: &SoftmaxBwd, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
    let (y, dy) = (inputs[0].as_ref().expect("checked"), inputs[1].as_ref().expect("checked"));
    let mut dx = vec![T::default(); y.len()];
    for i in (0..op.rows).filter(|&i| rows.wants(i)) {
        let row = i * op.cols..(i + 1) * op.cols;
        let sum = row.clone().fold(T::default(), |sum, j| sum + y[j] * dy[j]);
        for j in row {
            dx[j] = y[j] * (dy[j] - sum);
        }
    }
    vec![dx]
}
