//! The k largest values of rows, on the CPU.
//!
//! Layout: `x` [rows, cols] with contiguous rows at any distance; `values` and `indices` [rows, k] contiguous.
//!
//! Algorithm: a value and its place make one 64-bit key whose order is the wanted one, so that no two are equal. A list
//! takes the keys of values above a threshold; when it holds 2k + `SLACK` it is cut to its k largest (a selection in
//! linear time), whose least value is the new threshold. A later value equal to the threshold has a higher place and
//! loses. Blocks with no value above the threshold, found with vectors, are passed over: of random values about
//! k·ln(cols / k) are ever taken. At the end the list is cut once more and sorted. Linear in cols for any k.
//!
//! Threads take rows. Bound: memory, one read, for small k.

use super::TopK;
use crate::backend::cpu::simd::{Lane, Simd};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for TopK {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("topk", supports, launch).takes(&[Takes::Rows])];
}

/// Values of a block.
const BLOCK: usize = 64;
/// Keys that the list holds beyond 2k.
const SLACK: usize = 256;

fn supports<S: Simd>(_: &TopK, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, TopK>, op: &TopK, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.dtype, T => {
        let (x, stride) = (l.input::<T>(0), l.layout(0).strides[0]);
        if op.rows * op.k == 0 {
            return Ok(());
        }
        // Two results, one closure: places are found first, and values are taken by them.
        let (Some(values), Some(indices)) = (l.output::<T>(0), l.output::<u32>(1)) else { return Ok(()) };
        let row = |i: usize| &x[i * stride..][..op.cols];
        l.pool().chunks_mut(indices, op.k, |i, indices| {
            let mut keys = Vec::with_capacity(2 * op.k + SLACK + BLOCK);
            select(s, row(i), op.k, &mut keys);
            for (to, key) in indices.iter_mut().zip(keys) {
                *to = !(key as u32);
            }
        });
        for (i, values) in values.chunks_exact_mut(op.k).enumerate() {
            for (to, &j) in values.iter_mut().zip(&indices[i * op.k..]) {
                *to = row(i)[j as usize];
            }
        }
    });
    Ok(())
}

/// Larger for larger values (NaN the largest, both zeros alike), of equal ones for lower places.
#[inline(always)]
fn key(v: f32, place: usize) -> u64 {
    // Adding zero makes -0 positive.
    let bits = (v + 0.0).to_bits();
    let ordered = if v.is_nan() {
        u32::MAX
    } else if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    };
    u64::from(ordered) << 32 | u64::from(!(place as u32))
}

simd_fn! {
    /// The keys of the k largest values, in descending order.
    fn select[S, T: Lane](s, x: &[T], k: usize, keys: &mut Vec<u64>) {
        let (mut threshold, mut full) = (f32::NEG_INFINITY, false);
        for (i, block) in x.chunks(BLOCK).enumerate() {
            if full && !any_above(s, block, threshold) {
                continue;
            }
            for (j, v) in block.iter().enumerate() {
                let v = v.to_f64() as f32;
                if !full || v > threshold || v.is_nan() {
                    keys.push(key(v, i * BLOCK + j));
                }
            }
            if keys.len() >= 2 * k + SLACK {
                keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
                keys.truncate(k);
                full = true;
                // NaN as a threshold lets only NaN pass, which the next cut sorts out by place.
                threshold = x[!(keys[k - 1] as u32) as usize].to_f64() as f32;
            }
        }
        if keys.len() > k {
            keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
            keys.truncate(k);
        }
        keys.sort_unstable_by(|a, b| b.cmp(a));
    }
}

/// Whether a value is above the threshold, or NaN.
#[inline(always)]
fn any_above<S: Simd, T: Lane>(s: S, x: &[T], threshold: f32) -> bool {
    let (t, zero, one) = (s.splat(threshold), s.zero(), s.splat(1.0));
    let mut chunks = x.chunks_exact(S::LANES);
    let mut found = zero;
    for v in &mut chunks {
        let v = T::load(s, v);
        // NaN counts too: like infinity, it is not below infinity.
        let endless = s.select_lt(v, s.splat(f32::INFINITY), zero, one);
        found = s.add(found, s.select_lt(t, v, one, endless));
    }
    s.sum(found) > 0.0
        || chunks.remainder().iter().any(|v| {
            let v = v.to_f64() as f32;
            v > threshold || v.is_nan()
        })
}

#[cfg(test)]
mod tests {
    use crate::ops::topk::*;
    use crate::{Device, Tensor};

    #[test]
    fn ties_by_place_and_nan_first() {
        let d = Device::cpu_with_threads(2).unwrap();
        let top = |x: &[f32], k: usize| {
            let (_, places) = topk(&Tensor::from_slice(&d, x, &[x.len()]).unwrap(), k).unwrap();
            places.to_vec::<u32>().unwrap()
        };
        assert_eq!(top(&[1.0, 3.0, -0.0, 0.0, 3.0], 5), [1, 4, 0, 2, 3]);
        assert_eq!(top(&[1.0; 3000], 4), [0, 1, 2, 3]);
        assert_eq!(top(&[f32::NEG_INFINITY; 3000], 3), [0, 1, 2]);
        let rising: Vec<f32> = (0..5000).map(|i| (i / 2) as f32).collect();
        assert_eq!(top(&rising, 5), [4998, 4999, 4996, 4997, 4994]);
        let mut x = vec![0.0; 3000];
        (x[2900], x[1500], x[2000]) = (f32::NAN, f32::NAN, f32::INFINITY);
        assert_eq!(top(&x, 4), [1500, 2900, 2000, 0]);
        assert_eq!(top(&[f32::NAN; 3000], 3), [0, 1, 2]);
        assert!(topk(&Tensor::zeros(&d, DType::F32, &[3, 2]).unwrap(), 3).is_err());
        assert!("topk(rows=18446744073709551615,cols=2,k=1)".parse::<TopK>().is_err());
    }
}
