//! Softmax on the CPU, a row at a time.
//!
//! Layout: `x` [rows, cols] with contiguous rows at any distance, `out` contiguous.
//!
//! Algorithm, three passes over a row that stays in L1: the maximum; 2^((x - m)·log2 e), summed; a scaling by 1/sum into the
//! result. Rows of which six fit into L1 are worked on three at a time: one loop finds the next row's maximum, makes this row's
//! exponentials and writes the row before. Units of arithmetic and of memory are busy at once, and no pass waits for
//! another's last sum (577 x 1024 f32 takes 20 % longer pass by pass). Longer rows are written on the way of the next row's
//! exponentials. Between passes a row lies in a buffer of f32, so that 16-bit rows are widened once and their exponentials made
//! once, and summed before they are rounded; those are of 18 bits, others of 24. With AVX-512 two vectors of f32 are under way at a
//! time (one and four take 3 % longer), four of 16 bits (two 8 %). Rows are spread over threads in parts of up to 128; a row is never
//! split. Results beyond the caches are streamed.
//!
//! Bound: memory (one read, one write); an exponential and its share of the passes cost 16 instructions a vector with AVX-512, of which
//! Zen 5 does three in a cycle: 577 x 1024 f32 takes 6.1 cycles a vector, where a copy in L3 takes 4.5. What cost more than
//! it seems: a call for each row and not for each part (5 %), asking inside the loop whether results are streamed (6 %).

use super::Softmax;
use crate::backend::cpu::simd::{Isa, Lane, Simd, Wide, fetch_line, fetch_line_to_write, load_end, math, stream_end};
use crate::backend::cpu::{Caps, Cpu, Scratch, rows_of_part};
use crate::backend::{Backend, Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_lane;
use crate::{isa_rows, simd_fn};

/// Elements of a part at least, and rows at most.
const PART: usize = 4096;
const PART_ROWS: usize = 128;
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
    with_lane!(op.dtype, T => {
        let (x, stride) = (l.input::<T>(0), l.layout(0).strides[0]);
        let Some(out) = l.output::<T>(0) else { return Ok(()) };
        if out.is_empty() {
            return Ok(());
        }
        let caps = Cpu::caps(l.device);
        let streams = caps.streams(size_of_val(out));
        let least = (PART / op.cols).max(1);
        let rows = rows_of_part(op.rows, least..=PART_ROWS.max(least), caps.threads);
        // Rows of which six fit into L1 are worked on three at a time.
        let together = op.cols * 6 * size_of::<f32>() <= caps.cache_bytes[0];
        // Long rows of f32 in L2 are bound by its misses, and gain nothing from waiting for the next one.
        let waits = together || streams || op.dtype != DType::F32;
        l.pool().chunks_mut(out, rows * op.cols, |i, out| {
            let part = Part { x: &x[i * rows * stride..], stride, cols: op.cols, together, waits, streams };
            if together && !streams {
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
    /// Whether the next row is looked at, and the row before written, with this one.
    together: bool,
    /// Whether a row is written with the next.
    waits: bool,
    streams: bool,
}

/// A row whose weights are still to be scaled and written.
struct Weighed<'a, T> {
    weights: &'a [f32],
    scale: f32,
    out: &'a mut [T],
}

/// A row whose maximum is looked for; 16-bit values and the last ones are left in `kept`.
struct Next<'a, T> {
    x: &'a [T],
    kept: &'a mut [f32],
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

impl<T: Lane> Part<'_, T> {
    #[inline(always)]
    fn softmax<W: Simd, S: Simd, const FAR: bool>(self, w: W, s: S, out: &mut [T]) {
        let Part { cols, stride, together, streams, .. } = self;
        let len = cols.next_multiple_of(W::LANES);
        let mut buffer = Scratch::new(3 * len);
        let (kept, rest) = buffer.split_at_mut(len);
        let (mut kept, (mut ahead, mut behind)) = (kept, rest.split_at_mut(len));
        let count = out.len() / cols;
        let (mut largest, mut before) = (f32::NEG_INFINITY, None);
        for (j, out) in out.chunks_exact_mut(cols).enumerate() {
            let row = self.row(j);
            if j == 0 || !together {
                largest = Next { x: row, kept: &mut *kept }.look(w, s);
            }
            let next = (together && j + 1 < count).then(|| Next { x: self.row(j + 1), kept: &mut *ahead });
            let after = row.as_ptr().wrapping_add(if together { 2 * stride } else { stride });
            let soon = [after, out.as_ptr()];
            let step = Step { x: row, largest, kept: &mut *kept, next, before: before.take(), soon, streams };
            let scale;
            (scale, largest) = step.weigh::<_, _, FAR>(w, s);
            // Two buffers take turns where no row is looked at ahead: three would not stay in L1.
            (kept, ahead, behind) = if together { (ahead, behind, kept) } else { (behind, ahead, kept) };
            let row = Weighed { weights: behind, scale, out };
            before = if self.waits {
                Some(row)
            } else {
                row.write(w, s, streams);
                None
            };
        }
        if let Some(row) = before {
            row.write(w, s, streams);
        }
        if streams {
            stream_end();
        }
    }

    #[inline(always)]
    fn row(&self, j: usize) -> &[T] {
        &self.x[j * self.stride..][..self.cols]
    }
}

impl<T: Lane> Next<'_, T> {
    #[inline(always)]
    fn look<W: Simd, S: Simd>(self, w: W, s: S) -> f32 {
        let whole = self.x.len() - self.x.len() % W::LANES;
        let mut largest = w.splat(f32::NEG_INFINITY);
        for (x, kept) in self.x.chunks_exact(W::LANES).zip(self.kept.chunks_exact_mut(W::LANES)) {
            largest = w.max(largest, load(w, x, kept));
        }
        if whole < self.x.len() {
            let end = load_end(w, s, &self.x[whole..], f32::NEG_INFINITY, &mut self.kept[whole..]);
            largest = w.max(largest, end);
        }
        w.max_lane(largest)
    }
}

/// The first values of a row; those of 16 bits are left in `kept`.
#[inline(always)]
fn load<W: Simd, T: Lane>(w: W, x: &[T], kept: &mut [f32]) -> W::V {
    let v = T::load(w, x);
    if T::DTYPE != DType::F32 {
        w.store(v, kept);
    }
    v
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

/// A row whose weights are made, and what is done on the way.
struct Step<'a, T> {
    x: &'a [T],
    largest: f32,
    /// Where weights go, with room for them in whole vectors; 16-bit values and the last ones lie there before.
    kept: &'a mut [f32],
    /// A row whose maximum is found.
    next: Option<Next<'a, T>>,
    /// A row that is written.
    before: Option<Weighed<'a, T>>,
    /// A row of values and one of results that are soon to be wanted; there need not be any.
    soon: [*const T; 2],
    streams: bool,
}

impl<T: Lane> Step<'_, T> {
    /// Returns the weights' scale, and the next row's maximum. Maxima and sums are carried per lane and folded at the end, in a fixed
    /// order.
    #[inline(always)]
    fn weigh<W: Simd, S: Simd, const FAR: bool>(self, w: W, s: S) -> (f32, f32) {
        let Step { x, largest, kept, next, before, soon: [after, out_line], streams } = self;
        let whole = x.len() - x.len() % W::LANES;
        let is_f32 = T::DTYPE == DType::F32;
        // A row of nothing but -inf: its weights are 2^-inf = 0 from any finite base, and their scale is 0 as well.
        let is_empty = largest == f32::NEG_INFINITY;
        let base = Base::new(w, if is_empty { 0.0 } else { largest });
        let (mut sums, mut ahead) = (w.zero(), w.splat(f32::NEG_INFINITY));
        let (kept, kept_end) = kept.split_at_mut(whole);
        // Rows that are not there have no vectors.
        let (next_x, next_kept) = next.map_or((&[][..], &mut [][..]), |row| (row.x, row.kept));
        let (weights, out, before_scale) =
            before.map_or((&[][..], &mut [][..], 0.0), |row| (row.weights, row.out, row.scale));
        let (out, out_end) = out.split_at_mut(whole.min(out.len()));
        let mut nexts = next_x.chunks_exact(W::LANES).zip(next_kept.chunks_exact_mut(W::LANES));
        let mut befores = weights.chunks_exact(W::LANES).zip(out.chunks_exact_mut(W::LANES));
        for (i, (x, kept)) in x.chunks_exact(W::LANES).zip(kept.chunks_exact_mut(W::LANES)).enumerate() {
            let v = if is_f32 { T::load(w, x) } else { w.load(kept) };
            let e = exp2(w, base.exponent(w, v), is_f32);
            sums = w.add(sums, e);
            w.store(e, kept);
            if let Some((x, kept)) = nexts.next() {
                ahead = w.max(ahead, load(w, x, kept));
            }
            if let Some((weights, out)) = befores.next() {
                write(w, weights, before_scale, out, FAR && streams);
            }
            if !FAR {
                continue;
            }
            let at = i * W::LANES;
            for line in (at..at + W::LANES).step_by(64 / size_of::<T>()) {
                fetch_line(after.wrapping_add(line).cast());
                if !streams {
                    fetch_line_to_write(out_line.wrapping_add(line).cast());
                }
            }
        }
        if whole < x.len() {
            let e = exp2(w, base.exponent(w, w.load(kept_end)), is_f32);
            sums = w.add(sums, e);
            w.store(e, kept_end);
        }
        if whole < next_x.len() {
            ahead = w.max(ahead, load_end(w, s, &next_x[whole..], f32::NEG_INFINITY, &mut next_kept[whole..]));
        }
        if !out_end.is_empty() {
            write_end(s, &weights[whole..], before_scale, out_end);
        }
        (if is_empty { 0.0 } else { 1.0 / w.sum(sums) }, w.max_lane(ahead))
    }
}

/// What makes exponents of a row's values.
struct Base<W: Simd> {
    scale: W::V,
    shift: W::V,
}

impl<W: Simd> Base<W> {
    #[inline(always)]
    fn new(w: W, largest: f32) -> Self {
        // From here on any other value is 64 or more below the largest one, and nothing beside it: the scale need not be exact,
        // but the product, whose rounding might overflow the exponent.
        let scale = if largest.abs() < (1 << 30) as f32 { std::f32::consts::LOG2_E } else { 1.0 };
        let shift = if W::ISA == Isa::Portable { largest } else { -largest * scale };
        Base { scale: w.splat(scale), shift: w.splat(shift) }
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

#[inline(always)]
fn exp2<W: Simd>(w: W, y: W::V, is_f32: bool) -> W::V {
    if is_f32 { math::exp2(w, y) } else { math::exp2_short(w, y) }
}
