use super::CrossEntropy;
use crate::ops::{Real, Sample, labels};

pub fn cross_entropy<T: Real>(op: &CrossEntropy, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
    let (logits, labels) = (inputs[0].as_ref().expect("checked"), inputs[1].as_ref().expect("checked"));
    let (mut loss, mut lse) = (vec![T::default(); op.rows], vec![T::default(); op.rows]);
    for i in (0..op.rows).filter(|&i| rows.wants(i)) {
        let Some(class) = labels::class(labels[i].to_f64() as i64, op.ignore) else { continue };
        let row = &logits[i * op.classes..(i + 1) * op.classes];
        let largest = row.iter().fold(T::of(f64::NEG_INFINITY), |m, &x| x.larger(m));
        let mut sum = T::default();
        for &x in row {
            sum += (x - largest).exp();
        }
        lse[i] = largest + sum.ln();
        let weight = inputs[2].as_ref().map_or(T::of(1.0), |weights| weights[i]);
        loss[i] = weight * ((largest - row[class]) + sum.ln());
    }
    vec![loss, lse]
}
