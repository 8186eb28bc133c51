use super::TopK;
use crate::ops::Real;
use std::cmp::Ordering;

pub fn topk<T: Real>(op: &TopK, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let x = inputs[0].as_ref().expect("checked");
    let (mut values, mut indices) = (Vec::new(), Vec::new());
    for row in (0..op.rows).map(|i| &x[i * op.cols..(i + 1) * op.cols]) {
        let mut order: Vec<usize> = (0..op.cols).collect();
        let nan = |j: usize| row[j].to_f64().is_nan();
        // A stable sort: of equal values the first stays first.
        order.sort_by(|&a, &b| {
            row[b].partial_cmp(&row[a]).unwrap_or_else(|| match (nan(a), nan(b)) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Less,
                _ => Ordering::Greater,
            })
        });
        values.extend(order[..op.k].iter().map(|&j| row[j]));
        indices.extend(order[..op.k].iter().map(|&j| T::of(j as f64)));
    }
    vec![values, indices]
}
