//! Softmax on the CPU, a row at a time.
//!
//! Layout: `x` [rows, cols] with contiguous rows at any distance, `out` contiguous.
//!
//! Algorithm, two passes: 2^((x - p)·log2 e), summed; and a scaling by 1/sum into the result. p need not be the largest value, as long as no
//! weight is so large that its exponent has been rounded much: it is the largest of the row's first values (`pivot`), and where the
//! mean of the weights shows that others are far above them (`MEAN`), they are made again, relative to the largest. Between
//! passes a row's weights lie in a buffer of f32 in L1, so that results of 16 bits are rounded once; one loop makes this row's and
//! writes the row before, which keeps units of arithmetic and of memory busy at once, and waits for no sum. With AVX-512 two vectors of f32
//! are under way at a time (one takes 30 % longer, four the same), four of 16 bits (two 3 %). Rows are spread over threads in parts of
//! up to 128; a row is never split. Results beyond the caches are streamed.
//!
//! Bound: memory (one read, one write); an exponential and its share of the passes cost 14 instructions a vector with AVX-512, of which
//! Zen 5 does three in a cycle: 577 x 1024 f32 takes 4.8 cycles a vector, where a copy in L3 takes 4.5. What cost more than
//! it seems: a pass of its own for the maximum, on the way of other rows' (20 %); asking in the loop whether there is a row to write
//! (10 %), or whether results are streamed (6 %); a call for each row and not for each part (5 %).

use super::Softmax;
use crate::backend::cpu::simd::{
    Isa, Lane, MAX_LANES, Simd, Wide, fetch_line, fetch_line_to_write, load_end, math, stream_end,
};
use crate::backend::cpu::{Caps, Cpu, Scratch, rows_of_part};
use crate::backend::{Backend, Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};
use std::ops::Range;

/// Elements of a part at least, and rows at most.
const PART: usize = 4096;
const PART_ROWS: usize = 128;
/// How far ahead values are asked for, in bytes, where rows do not stay in L1.
const AHEAD: usize = 8192;
/// The mean of a row's weights, at most: of larger ones exponents would be rounded.
const MEAN: f32 = 64.0;
/// Vectors of 16-bit values under way at a time.
const WIDTH: usize = 4;

impl Kernels<Cpu> for Softmax {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("softmax", supports, launch).takes(&[Takes::Rows])];
}

fn supports<S: Simd>(_: &Softmax, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, Softmax>, op: &Softmax, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.dtype, T => {
        let (x, stride) = (l.input::<T>(0), l.layout(0).strides[0]);
        let Some(out) = l.output::<T>(0) else { return Ok(()) };
        if out.is_empty() {
            return Ok(());
        }
        let caps = Cpu::caps(l.device);
        let streams = caps.streams(size_of_val(out));
        let least = (PART / op.cols).max(1);
        let rows = rows_of_part(op.rows, least..=PART_ROWS.max(least), caps.threads);
        let near = op.cols * 6 * size_of::<f32>() <= caps.cache_bytes[0] && !streams;
        l.pool().chunks_mut(out, rows * op.cols, |i, out| {
            let part = Part { x: &x[i * rows * stride..], stride, cols: op.cols, streams };
            if op.cols <= S::LANES {
                short_rows(s, part, out);
            } else if near {
                softmax::<_, _, false>(s, part, out);
            } else {
                softmax::<_, _, true>(s, part, out);
            }
        });
    });
    Ok(())
}

/// Rows of one part.
#[derive(Clone, Copy)]
struct Part<'a, T> {
    x: &'a [T],
    stride: usize,
    cols: usize,
    streams: bool,
}

/// A row whose weights are still to be scaled and written.
struct Weighed<'a, T> {
    weights: &'a [f32],
    scale: f32,
    out: &'a mut [T],
}

simd_fn! {
    /// Rows that one vector holds.
    fn short_rows[S, T: Lane](s, part: Part<'_, T>, out: &mut [T]) {
        let mut beyond = [f32::NEG_INFINITY; MAX_LANES];
        beyond[..part.cols].fill(0.0);
        let beyond = s.load(&beyond);
        for (j, out) in out.chunks_exact_mut(part.cols).enumerate() {
            let v = s.add(T::load_part(s, part.row(j)), beyond);
            let e = math::exp2(s, Base::new(s, s.max_lane(v)).exponent(s, v));
            T::store_part(s, s.mul(e, s.splat(scale(s.sum(e)))), out);
        }
    }
}

/// What weights are multiplied by, whose sum is 0 in a row of nothing but -inf.
fn scale(sum: f32) -> f32 {
    if sum == 0.0 { 0.0 } else { 1.0 / sum }
}

simd_fn! {
    /// All rows of a part. `FAR` ones are asked for ahead, or streamed.
    fn softmax[S, T: Lane; const FAR: bool](s, part: Part<'_, T>, out: &mut [T]) {
        match T::DTYPE {
            _ if !S::IS_ROOMY || part.cols < WIDTH * S::LANES => part.softmax::<_, _, FAR>(s, s, out),
            DType::F32 => part.softmax::<_, _, FAR>(Wide::<S, 2>(s), s, out),
            _ => part.softmax::<_, _, FAR>(Wide::<S, WIDTH>(s), s, out),
        }
    }
}

impl<'a, T: Lane> Part<'a, T> {
    #[inline(always)]
    fn softmax<W: Simd, S: Simd, const FAR: bool>(self, w: W, s: S, out: &mut [T]) {
        let Part { cols, streams, .. } = self;
        let len = cols.next_multiple_of(W::LANES);
        let mut buffer = Scratch::new(2 * len + W::LANES);
        let (ends, buffer) = buffer.split_at_mut(W::LANES);
        let (mut weights, mut behind) = buffer.split_at_mut(len);
        let count = out.len() / cols;
        let (mut pivot, mut before) = (pivot(w, s, self.row(0), ends), None);
        for (j, out) in out.chunks_exact_mut(cols).enumerate() {
            let x = self.row(j);
            let base = Base::new(w, pivot);
            // Before the loop over this row, which hides how long it takes.
            pivot = self::pivot(w, s, self.row((j + 1).min(count - 1)), ends);
            let soon = [x.as_ptr().wrapping_add(AHEAD / size_of::<T>()), out.as_ptr()];
            let step = Step { x, base, weights: &mut *weights, soon, streams };
            let mut sum = step.weigh::<_, FAR>(w, s, before.take());
            if sum > MEAN * cols as f32 || sum.is_nan() {
                sum = weigh_from_largest(s, x, weights);
            }
            (weights, behind) = (behind, weights);
            before = Some(Weighed { weights: behind, scale: scale(sum), out });
        }
        if let Some(row) = before {
            row.write(w, s, streams);
        }
        if streams {
            stream_end();
        }
    }

    #[inline(always)]
    fn row(&self, j: usize) -> &'a [T] {
        &self.x[j * self.stride..][..self.cols]
    }
}

/// What a row's weights are relative to: the largest of its first values, as many as are under way at a time, unless these are -inf.
#[inline(always)]
fn pivot<W: Simd, S: Simd, T: Lane>(w: W, s: S, x: &[T], ends: &mut [f32]) -> f32 {
    let first = if x.len() < W::LANES { load_end(w, s, x, f32::NEG_INFINITY, ends) } else { T::load(w, x) };
    let pivot = w.max_lane(first);
    if pivot == f32::NEG_INFINITY { largest(s, x) } else { pivot }
}

simd_fn! {
    #[cold]
    fn largest[S, T: Lane](s, x: &[T]) -> f32 {
        let mut largest = s.splat(f32::NEG_INFINITY);
        let whole = x.chunks_exact(S::LANES);
        let mut end = [f32::NEG_INFINITY; MAX_LANES];
        largest = s.max(largest, load_end(s, s, whole.remainder(), f32::NEG_INFINITY, &mut end));
        for x in whole {
            largest = s.max(largest, T::load(s, x));
        }
        s.max_lane(largest)
    }
}

simd_fn! {
    /// The weights of a row relative to its largest value, and their sum.
    #[cold]
    fn weigh_from_largest[S, T: Lane](s, x: &[T], weights: &mut [f32]) -> f32 {
        let base = Base::new(s, largest(s, x));
        let step = Step { x, base, weights, soon: [x.as_ptr(); 2], streams: false };
        step.weigh::<_, false>(s, s, None)
    }
}

impl<T: Lane> Weighed<'_, T> {
    #[inline(always)]
    fn write<W: Simd, S: Simd>(self, w: W, s: S, streams: bool) {
        let whole = self.out.len() - self.out.len() % W::LANES;
        let (out, end) = self.out.split_at_mut(whole);
        for (weights, out) in self.weights.chunks_exact(W::LANES).zip(out.chunks_exact_mut(W::LANES)) {
            write(w, weights, self.scale, out, streams);
        }
        write_end(s, &self.weights[whole..], self.scale, end);
    }
}

#[inline(always)]
fn write<W: Simd, T: Lane>(w: W, weights: &[f32], scale: f32, out: &mut [T], streams: bool) {
    let y = w.mul(w.load(weights), w.splat(scale));
    if streams { T::stream(w, y, out) } else { T::store(w, y, out) }
}

#[inline(always)]
fn write_end<S: Simd, T: Lane>(s: S, weights: &[f32], scale: f32, out: &mut [T]) {
    for (weights, out) in weights.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
        T::store_part(s, s.mul(s.load_part(&weights[..out.len()]), s.splat(scale)), out);
    }
}

/// A row whose weights are made.
struct Step<'a, T, W: Simd> {
    x: &'a [T],
    base: Base<W>,
    /// Where weights go, with room for them in whole vectors.
    weights: &'a mut [f32],
    /// A row of values and one of results that are soon to be wanted; there need not be any.
    soon: [*const T; 2],
    streams: bool,
}

impl<T: Lane, W: Simd> Step<'_, T, W> {
    /// Writes the row `before` on the way. Returns the weights' sum, carried per lane and folded at the end, in a fixed order.
    #[inline(always)]
    fn weigh<S: Simd, const FAR: bool>(self, w: W, s: S, before: Option<Weighed<'_, T>>) -> f32 {
        let Step { x, base, weights, soon, streams } = self;
        let whole = x.len() - x.len() % W::LANES;
        let (weights, end) = weights.split_at_mut(whole);
        let mut sums = w.zero();
        let vectors = x.chunks_exact(W::LANES).zip(weights.chunks_exact_mut(W::LANES));
        match before {
            Some(Weighed { weights: behind, scale, out }) => {
                let (out, out_end) = out.split_at_mut(whole);
                let behinds = behind.chunks_exact(W::LANES).zip(out.chunks_exact_mut(W::LANES));
                for (i, ((x, weights), (behind, out))) in vectors.zip(behinds).enumerate() {
                    sums = base.weigh(w, T::load(w, x), weights, sums);
                    write(w, behind, scale, out, FAR && streams);
                    if FAR {
                        ask(soon, i * W::LANES..(i + 1) * W::LANES, streams);
                    }
                }
                write_end(s, &behind[whole..], scale, out_end);
            }
            None => {
                for (x, weights) in vectors {
                    sums = base.weigh(w, T::load(w, x), weights, sums);
                }
            }
        }
        if whole < x.len() {
            let x = load_end(w, s, &x[whole..], f32::NEG_INFINITY, end);
            sums = base.weigh(w, x, end, sums);
        }
        w.sum(sums)
    }
}

/// Asks for some values of the rows that are soon to be wanted.
#[inline(always)]
fn ask<T>([values, results]: [*const T; 2], at: Range<usize>, streams: bool) {
    for at in at.step_by(64 / size_of::<T>()) {
        fetch_line(values.wrapping_add(at).cast());
        if !streams {
            fetch_line_to_write(results.wrapping_add(at).cast());
        }
    }
}

/// What makes exponents of a row's values.
struct Base<W: Simd> {
    scale: W::V,
    shift: W::V,
}

impl<W: Simd> Base<W> {
    #[inline(always)]
    fn new(w: W, of: f32) -> Self {
        // A row of nothing but -inf has weights of 2^-inf = 0 from any finite base.
        let of = if of == f32::NEG_INFINITY { 0.0 } else { of };
        // From 2^30 on any other value is 64 or more below the largest one, and nothing beside it: the scale need not be exact,
        // but the product, whose rounding might overflow the exponent.
        let scale = if of.abs() < (1 << 30) as f32 { std::f32::consts::LOG2_E } else { 1.0 };
        let shift = if W::ISA == Isa::Portable { of } else { -of * scale };
        Base { scale: w.splat(scale), shift: w.splat(shift) }
    }

    /// Stores the weights of some values; returns the sums with them.
    #[inline(always)]
    fn weigh(&self, w: W, x: W::V, weights: &mut [f32], sums: W::V) -> W::V {
        let e = math::exp2(w, self.exponent(w, x));
        w.store(e, weights);
        w.add(sums, e)
    }

    /// (v - m)·log2 e, in one instruction where it rounds once: then it is as exact, but for what m·log2 e was rounded by, which all
    /// weights of a row and their sum have in common.
    #[inline(always)]
    fn exponent(&self, w: W, v: W::V) -> W::V {
        match W::ISA {
            Isa::Portable => w.mul(w.sub(v, self.shift), self.scale),
            _ => w.fma(v, self.scale, self.shift),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::*;

    fn softmax_of<S: Simd>(s: S, x: &[f32], cols: usize) -> [Vec<f32>; 2] {
        let part = Part { x, stride: cols, cols, streams: false };
        let (mut near, mut far) = (vec![9.0; x.len()], vec![9.0; x.len()]);
        softmax::<S, f32, false>(s, part, &mut near);
        softmax::<S, f32, true>(s, part, &mut far);
        [near, far]
    }

    /// Rows whose first values say little of the others.
    fn rows(cols: usize) -> Vec<Vec<f32>> {
        let row = |f: &dyn Fn(f32) -> f32| (0..cols).map(|i| f(i as f32)).collect::<Vec<_>>();
        let of_end = |x: f32| move |i: f32| if i < cols as f32 - 2.0 { f32::NEG_INFINITY } else { x * i };
        vec![
            row(&|i| (i * 0.7).sin()),
            row(&|i| 3.0 * i),
            row(&|i| 1e4 - 50.0 * i),
            row(&of_end(0.1)),
            row(&|i| if i == cols as f32 - 1.0 { 1e30 } else { -1e30 }),
            row(&|i| 1e9 + 64.0 * i),
            row(&|_| f32::NEG_INFINITY),
            row(&|_| -3e38),
        ]
    }

    fn each<S: Simd>(s: S) {
        for cols in [1, 5, 16, 63, 64, 200, 1000] {
            let rows = rows(cols);
            for all in softmax_of(s, &rows.concat(), cols) {
                for (row, got) in rows.iter().zip(all.chunks_exact(cols)) {
                    let alone = softmax_of(s, row, cols);
                    assert!(
                        alone.iter().all(|alone| alone == got),
                        "{:?} {cols}: a row noticed its neighbours",
                        S::ISA
                    );
                    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
                    let weight = |x: f32| if x == f32::NEG_INFINITY { 0.0 } else { (x as f64 - largest).exp() };
                    let sum: f64 = row.iter().map(|&x| weight(x)).sum();
                    for (&x, &got) in row.iter().zip(got) {
                        let want = if sum == 0.0 { 0.0 } else { weight(x) / sum };
                        // Exponents are rounded, the more the further a value is below the largest.
                        let error =
                            (got as f64 - want).abs() / (1e-6 + 1e-7 * (largest - x as f64).min(1e3)) / want.max(1e-20);
                        assert!(error <= 1.0, "{:?} {cols}: {got} for {want}", S::ISA);
                    }
                }
            }
            for nan in [f32::NAN, f32::INFINITY] {
                for at in [0, cols - 1] {
                    let mut row: Vec<f32> = (0..cols).map(|i| i as f32).collect();
                    row[at] = nan;
                    assert!(softmax_of(s, &row, cols).iter().flatten().all(|y| y.is_nan()), "{:?} {cols} {at}", S::ISA);
                }
            }
        }
    }

    #[test]
    fn rows_may_rise_far_above_their_first_values() {
        Portable::detect().into_iter().for_each(each);
        #[cfg(target_arch = "x86_64")]
        {
            Avx2::detect().into_iter().for_each(each);
            Avx512::detect().into_iter().for_each(each);
        }
    }
}
