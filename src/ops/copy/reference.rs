use crate::ops::Real;

pub fn copy<T: Real>(inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    vec![inputs[0].clone().expect("checked")]
}
