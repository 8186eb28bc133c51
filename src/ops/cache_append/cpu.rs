//! Appending to a cache on the CPU.
//!
//! Layout: `x` [batch, len, width] with contiguous rows at any distance, `index` [batch] contiguous, `cache`
//! [batch, capacity, width] contiguous.
//!
//! All indices are checked first, so that nothing is written where one is wrong. The new rows of a sequence lie together
//! in the cache: threads copy (or round) them in parts of about 16 Ki elements, one sequence after the other. Bound:
//! memory.

use super::CacheAppend;
use crate::backend::cpu::simd::{Lane, Simd};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::Elem;
use crate::error::{Error, Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for CacheAppend {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("cache_append", supports, launch).takes(&[Takes::Rows])];
}

/// Values of a part.
const PART: usize = 16384;

fn supports<S: Simd>(_: &CacheAppend, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, CacheAppend>, op: &CacheAppend, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it").exact();
    let (index, limit) = (l.input::<u32>(1), op.capacity - op.len + 1);
    if let Some(b) = index.iter().position(|&i| i as usize >= limit) {
        return Err(Error::Index { op: "cache_append", value: index[b].into(), index: b, limit: limit as u64 });
    }
    with_float!(op.cache, T => match op.dtype == op.cache {
        true => rows::<T, T>(op, l, index, |row, to| to.copy_from_slice(row)),
        false => rows::<f32, T>(op, l, index, |row, to| narrow(s, row, to)),
    });
    Ok(())
}

fn rows<T: Elem, C: Elem>(
    op: &CacheAppend,
    l: &mut Launch<'_, Cpu>,
    index: &[u32],
    work: impl Fn(&[T], &mut [C]) + Sync,
) {
    let (x, [batch, row, ..], width) = (l.input::<T>(0), l.layout(0).strides, op.width);
    let Some(cache) = l.output::<C>(0) else { return };
    if op.len * width == 0 {
        return;
    }
    let rows = (PART / width).max(1);
    for ((b, &first), cache) in index.iter().enumerate().zip(cache.chunks_exact_mut(op.capacity * width)) {
        let to = &mut cache[first as usize * width..][..op.len * width];
        l.pool().chunks_mut(to, rows * width, |part, to| {
            for (i, to) in to.chunks_exact_mut(width).enumerate() {
                work(&x[b * batch + (part * rows + i) * row..][..width], to);
            }
        });
    }
}

simd_fn! {
    fn narrow[S, T: Lane](s, x: &[f32], to: &mut [T]) {
        let (x_body, x_tail) = x.split_at(x.len() - x.len() % S::LANES);
        let (body, tail) = to.split_at_mut(x_body.len());
        for (x, to) in x_body.chunks_exact(S::LANES).zip(body.chunks_exact_mut(S::LANES)) {
            T::store(s, s.load(x), to);
        }
        if !tail.is_empty() {
            T::store_part(s, s.load_part(x_tail), tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::cache_append::*;
    use crate::{Device, Tensor};

    #[test]
    fn rows_go_behind_the_index_and_no_further() {
        let d = Device::cpu_with_threads(2).unwrap();
        let mut cache = Tensor::zeros(&d, DType::F32, &[2, 3, 1, 2]).unwrap();
        let fused = Tensor::from_slice(&d, &[1f32, 2., 3., 4., 5., 6., 7., 8.], &[2, 1, 2, 1, 2]).unwrap();
        let x = fused.slice(2, 1..2).unwrap().reshape(&[2, 1, 1, 2]).unwrap();
        let index = |i: [u32; 2]| Tensor::from_slice(&d, &i, &[2]).unwrap();
        cache_append(&mut cache, &x, &index([0, 2])).unwrap();
        let want = [3., 4., 0., 0., 0., 0., 0., 0., 0., 0., 7., 8.];
        assert_eq!(cache.to_vec::<f32>().unwrap(), want);
        let beyond = cache_append(&mut cache, &x, &index([1, 3]));
        assert!(matches!(beyond, Err(Error::Index { value: 3, index: 1, limit: 3, .. })));
        assert_eq!(cache.to_vec::<f32>().unwrap(), want);
        let held = cache.clone();
        assert!(matches!(cache_append(&mut cache, &x, &index([0, 0])), Err(Error::Aliased { .. })));
        drop(held);
        assert!(cache_append(&mut cache, &x.slice(0, 0..1).unwrap(), &index([0, 0])).is_err());
        assert!(cache_append(&mut cache, &fused, &index([0, 0])).is_err());
        assert!(cache_append(&mut cache, &x, &index([0, 0]).slice(0, 0..1).unwrap()).is_err());
    }
}
