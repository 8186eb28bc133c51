use super::{Distance, RvqEncode};
use crate::ops::{Real, Sample};

/// The direct form Σ(r - e)², by which exact ties are exact.
pub fn rvq_encode<T: Real>(op: &RvqEncode, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
    let (x, books) = (inputs[0].as_ref().expect("checked"), inputs[1].as_ref().expect("checked"));
    let (n, dim, size) = (op.n, op.codebook_dim, op.codebook_size);
    // Vectors that are not wanted keep NaN, which says so.
    let mut codes = vec![T::of(f64::NAN); op.num_quantizers * n];
    let mut measure = codes.clone();
    let mut quantized = vec![T::default(); n * dim];
    let length = |v: &[T]| v.iter().fold(T::default(), |sum, &a| sum + a * a).sqrt();
    let unit = |v: &[T]| {
        let scale = length(v).larger(T::of(1e-12));
        v.iter().map(|&a| a / scale).collect::<Vec<T>>()
    };
    for i in (0..n).filter(|&i| rows.wants(i)) {
        let mut r = x[i * dim..(i + 1) * dim].to_vec();
        for l in 0..op.num_quantizers {
            let book = |k: usize| &books[(l * size + k) * dim..(l * size + k + 1) * dim];
            let looking = if op.distance == Distance::Cosine { unit(&r) } else { r.clone() };
            let score = |k: usize| match op.distance {
                Distance::Euclidean => {
                    let sum = looking.iter().zip(book(k)).fold(T::default(), |s, (&a, &b)| s + (a - b) * (a - b));
                    -sum
                }
                Distance::Cosine => looking.iter().zip(unit(book(k))).fold(T::default(), |s, (&a, b)| s + a * b),
            };
            let (mut best, mut most) = (0, score(0));
            for k in 1..size {
                let s = score(k);
                if s > most {
                    (best, most) = (k, s);
                }
            }
            let chosen = if op.distance == Distance::Cosine { unit(book(best)) } else { book(best).to_vec() };
            for j in 0..dim {
                r[j] = r[j] - chosen[j];
                quantized[i * dim + j] += chosen[j];
            }
            codes[l * n + i] = T::of(best as f64);
            measure[l * n + i] = if op.distance == Distance::Cosine { most } else { length(&r) };
        }
    }
    vec![codes, quantized, measure]
}
