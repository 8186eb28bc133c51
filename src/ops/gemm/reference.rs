use super::Gemm;
use crate::ops::{Real, Sample};

pub fn gemm<T: Real>(op: &Gemm, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
    let (lhs, rhs) = (inputs[0].as_ref().expect("checked"), inputs[1].as_ref().expect("checked"));
    let (bias, residual) = (inputs[2].as_ref(), inputs[3].as_ref());
    let (m, n, k) = (op.m, op.n, op.k);
    let mut out = vec![T::default(); op.batch * m * n];
    for row in (0..op.batch * m).filter(|&row| rows.wants(row)) {
        let mut a = lhs[row * k..(row + 1) * k].to_vec();
        if op.format.quant().is_some() {
            a.chunks_mut(32).for_each(T::rounded_together);
        }
        let base = if op.rhs_batch == 1 { 0 } else { row / m * op.rhs_rows() };
        let product = |j: usize| {
            let b = &rhs[(base + j) * k..(base + j + 1) * k];
            let sum = a.iter().zip(b).fold(T::default(), |sum, (&x, &y)| sum + x * y);
            bias.map_or(sum, |bias| sum + bias[j])
        };
        for j in 0..n {
            let mut value = op.activation.reference(product(j));
            if op.gated {
                value = value * product(n + j);
            }
            out[row * n + j] = residual.map_or(value, |r| value + r[row * n + j]);
        }
    }
    vec![out]
}
