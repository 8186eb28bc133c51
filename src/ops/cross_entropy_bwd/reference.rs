use super::CrossEntropyBwd;
use crate::ops::{Real, Sample, labels};

pub fn cross_entropy_bwd<T: Real>(op: &CrossEntropyBwd, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
    let operand = |i: usize| inputs[i].as_ref().expect("checked");
    let (logits, labels, lse, grad_loss) = (operand(0), operand(1), operand(3), operand(4));
    let mut out = vec![T::default(); logits.len()];
    for i in (0..op.rows).filter(|&i| rows.wants(i)) {
        let Some(class) = labels::class(labels[i].to_f64() as i64, op.ignore) else { continue };
        let g = inputs[2].as_ref().map_or(T::of(1.0), |weights| weights[i]) * grad_loss[i];
        let h = inputs[5].as_ref().map_or(T::default(), |grad| grad[i]);
        for j in i * op.classes..(i + 1) * op.classes {
            out[j] = (logits[j] - lse[i]).exp() * (g + h);
        }
        out[i * op.classes + class] = out[i * op.classes + class] - g;
    }
    vec![out]
}
