//! What happens to sums on their way out: bias, activation, rounding, and their places in the result.
#![allow(unsafe_code)] // boxes of the result are written by different threads through one pointer

use super::{Product, Window};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd};
use crate::dtype::{DType, Elem};
use crate::ops::activation::Activation;
use crate::ops::with_float;
use crate::simd_fn;
use std::marker::PhantomData;

/// A result of any float dtype, of which each thread writes other elements.
pub struct Sink<'a> {
    base: *mut u8,
    len: usize,
    dtype: DType,
    whole: PhantomData<&'a mut [u8]>,
}

// SAFETY: threads write disjoint parts, see `part`.
unsafe impl Sync for Sink<'_> {}

impl<'a> Sink<'a> {
    pub fn new<T: Elem>(out: &'a mut [T]) -> Sink<'a> {
        Sink { base: out.as_mut_ptr().cast(), len: out.len(), dtype: T::DTYPE, whole: PhantomData }
    }

    /// `len` elements from `from` on.
    ///
    /// # Safety
    /// While the slice lives, nobody else may hold one that overlaps it.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part<T: Elem>(&self, from: usize, len: usize) -> &mut [T] {
        assert!(T::DTYPE == self.dtype && from <= self.len && len <= self.len - from);
        // SAFETY: inside the slice that `new` was given, whose elements are of this type; the caller vouches for
        // uniqueness.
        unsafe { std::slice::from_raw_parts_mut(self.base.cast::<T>().add(from), len) }
    }
}

/// Outputs of a box whose sums and whose places in the result lie at equal distances.
struct Segment {
    from: usize,
    to: usize,
    count: usize,
}

/// Where the outputs of a box lie in a channel of the result.
pub struct Places {
    segments: Vec<Segment>,
    every: usize,
}

impl Places {
    /// Of the outputs of a window from `first` on, whose sums lie in lines and planes of these distances.
    pub fn new(p: &Product<'_>, window: &Window, first: [usize; 3], extent: [usize; 3], pitch: [usize; 2]) -> Places {
        let place = |axis: usize, i: usize| window.axes[axis].first + window.axes[axis].every * (first[axis] + i);
        let every = window.axes[2].every;
        let mut segments: Vec<Segment> = Vec::new();
        for (d, h) in (0..extent[0]).flat_map(|d| (0..extent[1]).map(move |h| (d, h))) {
            let from = (d * pitch[0] + h) * pitch[1];
            let to = (place(0, d) * p.size_out[1] + place(1, h)) * p.size_out[2] + place(2, 0);
            match segments.last_mut() {
                Some(s) if s.from + s.count == from && s.to + s.count * every == to => s.count += extent[2],
                _ => segments.push(Segment { from, to, count: extent[2] }),
            }
        }
        Places { segments, every }
    }

    /// Finishes the sums of one channel, which begins at `base` of the result.
    ///
    /// # Safety
    /// Nobody else may hold these outputs meanwhile, nor outputs of other windows between them.
    pub unsafe fn store<S: Simd>(
        &self,
        s: S,
        p: &Product<'_>,
        sums: &[f32],
        channel: usize,
        base: usize,
        out: &Sink<'_>,
    ) {
        let bias = p.bias.map_or(0.0, |bias| bias[channel]);
        with_float!(out.dtype, T => for segment in self.segments.iter().filter(|segment| segment.count > 0) {
            let sums = &sums[segment.from..][..segment.count];
            // SAFETY: the caller vouches for these places.
            let out = unsafe { out.part::<T>(base + segment.to, (segment.count - 1) * self.every + 1) };
            finish(s, sums, bias, p.activation, self.every, out);
        });
    }
}

simd_fn! {
    /// Sums to every `every`th place.
    fn finish[S, T: Lane](s, sums: &[f32], bias: f32, activation: Activation, every: usize, out: &mut [T]) {
        let bias = s.splat(bias);
        for (i, sums) in sums.chunks(S::LANES).enumerate() {
            let x = if sums.len() == S::LANES { s.load(sums) } else { s.load_part(sums) };
            let x = activation.apply(s, s.add(x, bias));
            let out = &mut out[i * S::LANES * every..];
            match every {
                1 if sums.len() == S::LANES => T::store(s, x, out),
                1 => T::store_part(s, x, &mut out[..sums.len()]),
                _ => {
                    let mut values = [<T as bytemuck::Zeroable>::zeroed(); MAX_LANES];
                    T::store(s, x, &mut values);
                    for (out, value) in out.iter_mut().step_by(every).zip(&values[..sums.len()]) {
                        *out = *value;
                    }
                }
            }
        }
    }
}
