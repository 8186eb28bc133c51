use super::RvqDecode;
use crate::ops::Real;

pub fn rvq_decode<T: Real>(op: &RvqDecode, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let (codes, books) = (inputs[0].as_ref().expect("checked"), inputs[1].as_ref().expect("checked"));
    let (dim, size) = (op.codebook_dim, op.codebook_size);
    let mut out = vec![T::default(); op.n * dim];
    for l in 0..op.num_quantizers {
        for i in 0..op.n {
            let code = codes[l * op.n + i].to_f64() as usize;
            for j in 0..dim {
                out[i * dim + j] += books[(l * size + code) * dim + j];
            }
        }
    }
    vec![out]
}
