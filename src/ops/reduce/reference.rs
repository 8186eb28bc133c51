use super::{Kind, Reduce};
use crate::ops::Real;

pub fn reduce<T: Real>(op: &Reduce, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let x = inputs[0].as_ref().expect("checked");
    let mut out = vec![T::default(); op.outer * op.inner];
    for o in 0..op.outer {
        for i in 0..op.inner {
            let value = |j: usize| x[(o * op.len + j) * op.inner + i];
            let mut all = if matches!(op.kind, Kind::Max | Kind::Min) { value(0) } else { T::default() };
            for v in (0..op.len).map(value) {
                match op.kind {
                    Kind::Sum | Kind::Mean => all += v,
                    Kind::Norm2 => all += v * v,
                    // A NaN compares with nothing: it is taken, and stays.
                    Kind::Max if all >= v || all.to_f64().is_nan() => {}
                    Kind::Min if all <= v || all.to_f64().is_nan() => {}
                    Kind::Max | Kind::Min => all = v,
                }
            }
            out[o * op.inner + i] = match op.kind {
                Kind::Mean => all / T::of(op.len as f64),
                Kind::Norm2 => all.sqrt(),
                _ => all,
            };
        }
    }
    vec![out]
}
