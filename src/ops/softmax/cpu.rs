//! Softmax on the CPU, a row at a time.
//!
//! Layout: `x` [rows, cols] with contiguous rows at any distance, `out` contiguous.
//!
//! Algorithm, three passes over a row that stays in L1: the maximum; 2^((x - m)·log2 e), summed; a scaling by 1/sum into the
//! result, on the way of the next row's second pass, so that memory is read and written at an even rate. Between passes the
//! row lies in a buffer of f32, so that 16-bit rows are widened once and their exponentials made once, and summed before they
//! are rounded; those are of 18 bits, others of 24. With AVX-512 four vectors are under way at a time. Rows are spread over
//! threads in chunks of about 16 KiB of output or 16 rows; a row is never split. Results beyond the caches are streamed.
//!
//! Bound: memory (one read, one write); the exponential costs 15 instructions per vector, 13 for 16 bits, and rounding to
//! bf16 six.

use super::Softmax;
use crate::backend::cpu::simd::{Lane, Simd, Wide, fetch_line, fetch_line_to_write, math, stream_end};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Backend, Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_lane;
use crate::{isa_rows, simd_fn};

/// Elements of a part, at least, and rows, where every thread still gets several parts.
const PART: usize = 4096;
const PART_ROWS: usize = 16;
const PARTS_OF_A_THREAD: usize = 4;
/// f32 values of a page.
const PAGE: usize = 1024;
/// Vectors under way at a time.
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
        if op.cols == 0 {
            return Ok(());
        }
        let caps = Cpu::caps(l.device);
        let streams = caps.streams(size_of_val(out));
        // f32 rows in L2 are bound by its misses, and gain nothing from waiting for the next one.
        let waits = streams || op.dtype != DType::F32;
        let rows = (op.rows / (PARTS_OF_A_THREAD * caps.threads)).min(PART_ROWS).max(PART / op.cols).max(1);
        l.pool().chunks_mut(out, rows * op.cols, |i, out| {
            let len = op.cols.next_multiple_of(WIDTH * S::LANES);
            // Half a page apart within their pages: a load seems to wait for a store of the same place in another page.
            let distance = len + (PAGE / 2 + PAGE - len % PAGE) % PAGE;
            let mut buffer = vec![0f32; distance + len];
            let (mut kept, mut other) = buffer.split_at_mut(distance);
            let mut before = None;
            for (j, out) in out.chunks_exact_mut(op.cols).enumerate() {
                let x = &x[(i * rows + j) * stride..];
                let next = x.get(stride..stride + op.cols).unwrap_or(&[]);
                let scale = weigh_row(s, &x[..op.cols], [next, &*out], kept, streams, before);
                std::mem::swap(&mut kept, &mut other);
                let row = Weighed { weights: other, scale, out };
                before = if waits {
                    Some(row)
                } else {
                    write_row(s, row, streams);
                    None
                };
            }
            if let Some(row) = before {
                write_row(s, row, streams);
            }
            if streams {
                stream_end();
            }
        });
    });
    Ok(())
}

/// A row whose weights are still to be scaled and written.
struct Weighed<'a, T> {
    weights: &'a [f32],
    scale: f32,
    out: &'a mut [T],
}

simd_fn! {
    /// The weights of a row, to `kept`, which has room for it in whole wide vectors, and their scale; on the way the row before
    /// is written.
    fn weigh_row[S, T: Lane](s, x: &[T], ahead: [&[T]; 2], kept: &mut [f32], streams: bool, before: Option<Weighed<'_, T>>) -> f32 {
        if S::IS_ROOMY && x.len() >= WIDTH * S::LANES {
            weigh(Wide::<S, WIDTH>(s), s, x, ahead, kept, streams, before)
        } else {
            weigh(s, s, x, ahead, kept, streams, before)
        }
    }
}

simd_fn! {
    fn write_row[S, T: Lane](s, row: Weighed<'_, T>, streams: bool) {
        if S::IS_ROOMY { row.write_all(Wide::<S, WIDTH>(s), s, streams) } else { row.write_all(s, s, streams) }
    }
}

impl<T: Lane> Weighed<'_, T> {
    #[inline(always)]
    fn write_all<W: Simd, S: Simd>(mut self, w: W, s: S, streams: bool) {
        let whole = self.out.len() - self.out.len() % W::LANES;
        for at in (0..whole).step_by(W::LANES) {
            self.write(w, at, streams);
        }
        self.write_end(s, whole);
    }

    #[inline(always)]
    fn write<W: Simd>(&mut self, w: W, at: usize, streams: bool) {
        let y = w.mul(w.load(&self.weights[at..]), w.splat(self.scale));
        if streams { T::stream(w, y, &mut self.out[at..]) } else { T::store(w, y, &mut self.out[at..]) }
    }

    #[inline(always)]
    fn write_end<S: Simd>(&mut self, s: S, at: usize) {
        let weights = self.weights[at..].chunks(S::LANES);
        for (weights, out) in weights.zip(self.out[at..].chunks_mut(S::LANES)) {
            T::store_part(s, s.mul(s.load_part(&weights[..out.len()]), s.splat(self.scale)), out);
        }
    }
}

/// By vectors of `W`. Maxima and sums are carried per lane and folded at the end, in a fixed order.
#[inline(always)]
fn weigh<W: Simd, S: Simd, T: Lane>(
    w: W,
    s: S,
    x: &[T],
    [next, out]: [&[T]; 2],
    kept: &mut [f32],
    streams: bool,
    mut before: Option<Weighed<'_, T>>,
) -> f32 {
    let whole = x.len() - x.len() % W::LANES;
    let kept = &mut kept[..x.len().next_multiple_of(W::LANES)];
    let is_f32 = T::DTYPE == DType::F32;
    let mut largest = w.splat(f32::NEG_INFINITY);
    for at in (0..whole).step_by(W::LANES) {
        let v = T::load(w, &x[at..]);
        largest = w.max(largest, v);
        if !is_f32 {
            w.store(v, &mut kept[at..]);
        }
    }
    if whole < x.len() {
        let tail = &mut kept[whole..];
        tail.fill(f32::NEG_INFINITY);
        for (x, kept) in x[whole..].chunks(S::LANES).zip(tail.chunks_mut(S::LANES)) {
            s.store_part(T::load_part(s, x), &mut kept[..x.len()]);
        }
        largest = w.max(largest, w.load(tail));
    }
    let m = w.max_lane(largest);
    // A row of nothing but -inf: its weights are 2^-inf = 0 from any finite base, and their scale is 0 as well.
    let is_empty = m == f32::NEG_INFINITY;
    let (scale, shift) = (w.splat(std::f32::consts::LOG2_E), w.splat(if is_empty { 0.0 } else { m }));
    let mut sums = w.zero();
    for at in (0..kept.len()).step_by(W::LANES) {
        let v = if is_f32 && at < whole { T::load(w, &x[at..]) } else { w.load(&kept[at..]) };
        let y = w.mul(w.sub(v, shift), scale);
        let e = if is_f32 { math::exp2(w, y) } else { math::exp2_short(w, y) };
        sums = w.add(sums, e);
        w.store(e, &mut kept[at..]);
        if let Some(row) = before.as_mut().filter(|_| at < whole) {
            row.write(w, at, streams);
        }
        for line in (at..at + W::LANES).step_by(64 / size_of::<T>()) {
            fetch_line(next.as_ptr().wrapping_add(line).cast());
            if !streams {
                fetch_line_to_write(out.as_ptr().wrapping_add(line).cast());
            }
        }
    }
    if let Some(row) = &mut before {
        row.write_end(s, whole);
    }
    if is_empty { 0.0 } else { 1.0 / w.sum(sums) }
}
