use super::ScatterAdd;
use crate::ops::Real;

pub fn scatter_add<T: Real>(op: &ScatterAdd, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let (x, ids) = (inputs[0].as_ref().expect("checked"), inputs[1].as_ref().expect("checked"));
    let mut out = vec![T::default(); op.count * op.width];
    for (i, id) in ids.iter().enumerate() {
        for j in 0..op.width {
            out[id.to_f64() as usize * op.width + j] += x[i * op.width + j];
        }
    }
    vec![out]
}
