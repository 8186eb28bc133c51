use super::Gather;
use crate::ops::Real;

pub fn gather<T: Real>(op: &Gather, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let (table, ids) = (inputs[0].as_ref().expect("checked"), inputs[1].as_ref().expect("checked"));
    let mut out = Vec::with_capacity(op.n * op.width);
    for id in ids {
        let row = id.to_f64() as usize;
        out.extend_from_slice(&table[row * op.width..(row + 1) * op.width]);
    }
    vec![out]
}
