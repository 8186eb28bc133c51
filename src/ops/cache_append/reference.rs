use super::CacheAppend;
use crate::ops::Real;

pub fn cache_append<T: Real>(op: &CacheAppend, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let operand = |i: usize| inputs[i].as_ref().expect("checked");
    let (x, index, mut cache) = (operand(0), operand(1), operand(2).clone());
    for b in 0..op.batch {
        for i in 0..op.len {
            let row = b * op.capacity + index[b].to_f64() as usize + i;
            for j in 0..op.width {
                cache[row * op.width + j] = x[(b * op.len + i) * op.width + j];
            }
        }
    }
    vec![cache]
}
