//! Cross-entropy on the CPU.
//!
//! Layout: `logits` [rows, classes] with contiguous rows at any distance, all else contiguous.
//!
//! Algorithm: labels are checked first. A row is read once, in blocks of `BLOCK` that stay in L1: the block's maximum; where
//! it is a new one, what was summed so far is scaled by e^(old - new); then Σ 2^((x - m)·log2 e) (online softmax, Milakov
//! and Gimelshein, arXiv 1805.02867). Each row leaves (m, ln Σ) in the workspace, from which both results are made:
//! m - x[label] + ln Σ loses no digits where the sum of m and ln Σ would. Threads take rows, about 32 Ki logits at a time.
//!
//! Bound: memory, one read.

use super::CrossEntropy;
use crate::backend::cpu::simd::{Lane, Simd, math};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::labels::Labels;
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for CrossEntropy {
    const KERNELS: &'static [Kernel<Cpu, Self>] =
        isa_rows![("cross_entropy", supports, launch).takes(&[Takes::Rows]).workspace(workspace)];
}

/// Logits of a block.
const BLOCK: usize = 1024;
/// Logits of a part.
const PART: usize = 32768;

fn supports<S: Simd>(_: &CrossEntropy, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn workspace(op: &CrossEntropy, _: &Caps) -> usize {
    op.rows * size_of::<[f32; 2]>()
}

fn launch<S: Simd>(_: &Kernel<Cpu, CrossEntropy>, op: &CrossEntropy, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let labels = Labels::new("cross_entropy", l, 1, op.labels, op.ignore, op.classes)?;
    with_float!(op.dtype, T => rows::<S, T>(s, op, &labels, l));
    Ok(())
}

fn rows<S: Simd, T: Lane>(s: S, op: &CrossEntropy, labels: &Labels<'_>, l: &mut Launch<'_, Cpu>) {
    let (logits, stride, weights) = (l.input::<T>(0), l.layout(0).strides[0], l.optional::<f32>(2));
    let sums = l.scratch::<f32>();
    let rows = (PART / op.classes.max(1)).max(1);
    l.pool().chunks_mut(sums, 2 * rows, |part, sums| {
        for (i, sums) in sums.chunks_exact_mut(2).enumerate() {
            let row = part * rows + i;
            if labels.class(row).is_some() {
                sums.copy_from_slice(&log_sum(s, &logits[row * stride..][..op.classes]));
            }
        }
    });
    let (Some(loss), Some(lse)) = (l.output::<f32>(0), l.output::<f32>(1)) else { return };
    for (row, (loss, lse)) in loss.iter_mut().zip(lse).enumerate() {
        (*loss, *lse) = match labels.class(row) {
            None => (0.0, 0.0),
            Some(class) => {
                let (largest, log_sum) = (sums[2 * row], sums[2 * row + 1]);
                let weight = weights.map_or(1.0, |weights| weights[row]);
                let logit = logits[row * stride + class].to_f64() as f32;
                (weight * (largest - logit + log_sum), largest + log_sum)
            }
        };
    }
}

simd_fn! {
    /// The largest logit m of a row, and ln Σ e^(x - m).
    fn log_sum[S, T: Lane](s, x: &[T]) -> [f32; 2] {
        let scale = s.splat(std::f32::consts::LOG2_E);
        let (mut largest, mut sum) = (f32::NEG_INFINITY, 0f32);
        for block in x.chunks(BLOCK) {
            let vectors = block.chunks_exact(S::LANES);
            let tail = vectors.remainder();
            let mut most = s.splat(f32::NEG_INFINITY);
            for v in vectors.clone() {
                most = s.max(most, T::load(s, v));
            }
            let most = tail.iter().fold(s.max_lane(most), |m, v| m.max(v.to_f64() as f32));
            if most > largest {
                sum *= (largest - most).exp();
                largest = most;
            }
            // As long as there are only infinities, they are to count as zeros, not as NaN.
            let shift = s.splat(if largest == f32::NEG_INFINITY { 0.0 } else { largest });
            let mut sums = s.zero();
            for v in vectors {
                sums = s.add(sums, math::exp2(s, s.mul(s.sub(T::load(s, v), shift), scale)));
            }
            sum += s.sum(sums);
            if !tail.is_empty() {
                let mut last = [0f32; crate::backend::cpu::simd::MAX_LANES];
                s.store(math::exp2(s, s.mul(s.sub(T::load_part(s, tail), shift), scale)), &mut last);
                sum += last[..tail.len()].iter().sum::<f32>();
            }
        }
        [largest, sum.ln()]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::cross_entropy::*;
    use crate::{Device, Tensor};

    #[test]
    fn rows_that_do_not_count_are_not_read() {
        let d = Device::cpu_with_threads(2).unwrap();
        let x = [0.0, 0.0, f32::NAN, f32::INFINITY, 1.0, f32::NEG_INFINITY, 3.0, 3.0];
        let logits = Tensor::from_slice(&d, &x, &[2, 2, 2]).unwrap();
        let label = |l: [i32; 4]| Tensor::from_slice(&d, &l, &[2, 2]).unwrap();
        let (loss, lse) =
            cross_entropy_with_lse(&logits, &label([1, -7, 0, 5]), &Options { ignore: 5, ..Default::default() })
                .unwrap();
        assert_eq!(loss.shape(), [2, 2]);
        assert_eq!(loss.to_vec::<f32>().unwrap(), [2f32.ln(), 0.0, 0.0, 0.0]);
        assert_eq!(lse.to_vec::<f32>().unwrap(), [2f32.ln(), 0.0, 1.0, 0.0]);
        let beyond = cross_entropy(&logits, &label([0, -100, 0, 2]), &Options::default());
        assert!(matches!(beyond, Err(Error::Index { value: 2, index: 3, limit: 2, .. })));
        let unlikely = cross_entropy(&logits, &label([-1, -1, 1, -1]), &Options::default()).unwrap();
        assert_eq!(unlikely.to_vec::<f32>().unwrap()[2], f32::INFINITY);
    }

    #[test]
    fn the_mean_is_over_rows_that_count() {
        let d = Device::cpu_with_threads(1).unwrap();
        let logits = Tensor::from_slice(&d, &[0f32, 0., 2., 2., 9., 1.], &[3, 2]).unwrap();
        let labels = Tensor::from_slice(&d, &[0i32, 1, -100], &[3]).unwrap();
        let weights = Tensor::from_slice(&d, &[1f32, 3., 100.], &[3]).unwrap();
        let mean = |labels: &Tensor, weights: Option<&Tensor>| {
            let mean = mean_loss(&logits, labels, &Options { weights, ..Default::default() })?;
            assert_eq!(mean.shape(), [1]);
            Ok::<_, Error>(mean.to_vec::<f32>()?[0])
        };
        assert!((mean(&labels, None).unwrap() - 2f32.ln()).abs() < 1e-6);
        assert!((mean(&labels, Some(&weights)).unwrap() - 2f32.ln()).abs() < 1e-6);
        assert!(mean(&Tensor::from_slice(&d, &[-1i32; 3], &[3]).unwrap(), None).is_err());
        assert!(mean(&labels, Some(&Tensor::zeros(&d, DType::F32, &[3]).unwrap())).is_err());
        assert!(mean(&logits, None).is_err());
    }
}
