use super::Cast;
use crate::dtype::DType;
use crate::ops::Real;

/// Floats are left to the rounding of whoever reads the result.
pub fn cast<T: Real>(op: &Cast, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let x = inputs[0].as_ref().expect("checked");
    let (low, high) = match op.to {
        DType::I32 => (i32::MIN as f64, i32::MAX as f64),
        DType::U32 => (0.0, u32::MAX as f64),
        DType::U8 => (0.0, 255.0),
        _ => return vec![x.clone()],
    };
    let integer = |v: &T| {
        let v = v.to_f64().trunc().clamp(low, high);
        // Without the sign of a negative zero.
        T::of(if v == 0.0 || v.is_nan() { 0.0 } else { v })
    };
    vec![x.iter().map(integer).collect()]
}
