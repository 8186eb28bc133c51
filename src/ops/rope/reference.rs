use super::{Pairs, Rope};
use crate::ops::{Real, Sample};

pub fn rope<T: Real>(op: &Rope, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
    let operand = |i: usize| inputs[i].as_ref().expect("checked");
    let (x, positions, inv_freq) = (operand(0), operand(1), operand(2));
    let (half, single) = (op.rotary_dim / 2, |x: T| x.to_f64() as f32);
    let axes = op.sections.iter().enumerate().flat_map(|(axis, &n)| std::iter::repeat_n(axis, n));
    let axes: Vec<usize> = axes.collect();
    let mut out = x.clone();
    for place in 0..op.batch * op.len {
        let (b, i) = (if op.positions_batch == 1 { 0 } else { place / op.len }, place % op.len);
        for (j, &axis) in axes.iter().enumerate() {
            let position = positions[(axis * op.positions_batch + b) * op.len + i];
            // The definition rounds the angle to f32.
            let angle = T::of(f64::from(single(position) * single(inv_freq[j])));
            let cos = angle.cos() * T::of(op.factor.0.into());
            let sin = angle.sin() * T::of(op.sine_factor().into());
            let (first, second) = match op.pairs {
                Pairs::Halves => (j, j + half),
                Pairs::Interleaved => (2 * j, 2 * j + 1),
            };
            for row in (place * op.heads..(place + 1) * op.heads).filter(|&r| rows.wants(r)) {
                let (first, second) = (row * op.head_dim + first, row * op.head_dim + second);
                out[first] = x[first] * cos - x[second] * sin;
                out[second] = x[second] * cos + x[first] * sin;
            }
        }
    }
    vec![out]
}
