//! Softmax on the CPU, a row at a time.
//!
//! Layout: `x` [rows, cols] with contiguous rows at any distance, `out` contiguous.
//!
//! Algorithm, three passes over a row that stays in L1: the maximum; 2^((x - m)·log2 e), summed; a scaling by 1/sum into the
//! result. Rows of which six fit into L1 are worked on three at a time: one loop finds the next row's maximum, makes this row's
//! exponentials and writes the row before. Units of arithmetic and of memory are busy at once, and no pass waits for
//! another's last sum (577 x 1024 f32 takes 20 % longer pass by pass). Longer rows are written on the way of the next row's
//! exponentials. Between passes a row lies in a buffer of f32, so that 16-bit rows are widened once and their exponentials made
//! once, and summed before they are rounded; those are of 18 bits, others of 24. With AVX-512 four vectors are under way at a
//! time (one takes 20 % longer, two 8 %, eight 15 %). Rows are spread over threads in chunks of about 16 KiB of output or 16 rows; a
//! row is never split. Results beyond the caches are streamed.
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
        let rows = (op.rows / (PARTS_OF_A_THREAD * caps.threads)).min(PART_ROWS).max(PART / op.cols).max(1);
        // Rows of which six fit into L1 are worked on three at a time.
        let together = op.cols * 6 * size_of::<f32>() <= caps.cache_bytes[0];
        // Long rows of f32 in L2 are bound by its misses, and gain nothing from waiting for the next one.
        let waits = together || streams || op.dtype != DType::F32;
        l.pool().chunks_mut(out, rows * op.cols, |i, out| {
            let len = op.cols.next_multiple_of(WIDTH * S::LANES);
            // A third of a page apart within their pages: a load seems to wait for a store of the same place in another page.
            let distance = len + (PAGE / 3 / 16 * 16 + PAGE - len % PAGE) % PAGE;
            let mut buffer = vec![0f32; 2 * distance + len];
            let (kept, rest) = buffer.split_at_mut(distance);
            let (ahead, behind) = rest.split_at_mut(distance);
            let (mut kept, mut ahead, mut behind) = (&mut kept[..len], &mut ahead[..len], behind);
            let row_of = |j: usize| &x[(i * rows + j) * stride..][..op.cols];
            let count = out.len() / op.cols;
            let (mut largest, mut before) = (f32::NEG_INFINITY, None);
            for (j, out) in out.chunks_exact_mut(op.cols).enumerate() {
                if j == 0 || !together {
                    largest = look(s, row_of(j), kept);
                }
                let next = (together && j + 1 < count).then(|| Next { x: row_of(j + 1), kept: &mut *ahead });
                let after = row_of(j).as_ptr().wrapping_add(if together { 2 * stride } else { stride });
                let lines = (streams || !together).then_some([after, out.as_ptr()]);
                let scale;
                (scale, largest) = weigh_row(s, row_of(j), largest, kept, next, before, lines, streams);
                // Two buffers take turns where no row is looked at ahead: three would not stay in L1.
                (kept, ahead, behind) = if together { (ahead, behind, kept) } else { (behind, ahead, kept) };
                let row = Weighed { weights: behind, scale, out };
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

/// A row whose maximum is looked for; 16-bit values and the last ones are left in `kept`.
struct Next<'a, T> {
    x: &'a [T],
    kept: &'a mut [f32],
}

simd_fn! {
    /// The maximum of a row.
    fn look[S, T: Lane](s, x: &[T], kept: &mut [f32]) -> f32 {
        let next = Next { x, kept };
        if S::IS_ROOMY && x.len() >= WIDTH * S::LANES { next.look(Wide::<S, WIDTH>(s), s) } else { next.look(s, s) }
    }
}

simd_fn! {
    /// The weights of a row, to `kept`, which has room for it in whole wide vectors; on the way the row before is written. Returns
    /// the weights' scale and the next row's maximum.
    fn weigh_row[S, T: Lane](s, x: &[T], largest: f32, kept: &mut [f32], next: Option<Next<'_, T>>, before: Option<Weighed<'_, T>>, lines: Option<[*const T; 2]>, streams: bool) -> (f32, f32) {
        if S::IS_ROOMY && x.len() >= WIDTH * S::LANES {
            weigh(Wide::<S, WIDTH>(s), s, x, largest, kept, next, before, lines, streams)
        } else {
            weigh(s, s, x, largest, kept, next, before, lines, streams)
        }
    }
}

impl<T: Lane> Next<'_, T> {
    #[inline(always)]
    fn look<W: Simd, S: Simd>(mut self, w: W, s: S) -> f32 {
        let whole = self.x.len() - self.x.len() % W::LANES;
        let mut largest = w.splat(f32::NEG_INFINITY);
        for at in (0..whole).step_by(W::LANES) {
            largest = w.max(largest, self.load(w, at));
        }
        w.max_lane(w.max(largest, self.load_end(w, s, whole)))
    }

    #[inline(always)]
    fn load<W: Simd>(&mut self, w: W, at: usize) -> W::V {
        let v = T::load(w, &self.x[at..]);
        if T::DTYPE != DType::F32 {
            w.store(v, &mut self.kept[at..]);
        }
        v
    }

    /// What is left from `at` on, less than a vector, and -inf.
    #[inline(always)]
    fn load_end<W: Simd, S: Simd>(&mut self, w: W, s: S, at: usize) -> W::V {
        let tail = &mut self.kept[at..];
        if at == self.x.len() {
            return w.splat(f32::NEG_INFINITY);
        }
        let tail = &mut tail[..W::LANES];
        tail.fill(f32::NEG_INFINITY);
        for (x, kept) in self.x[at..].chunks(S::LANES).zip(tail.chunks_mut(S::LANES)) {
            s.store_part(T::load_part(s, x), &mut kept[..x.len()]);
        }
        w.load(tail)
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
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn weigh<W: Simd, S: Simd, T: Lane>(
    w: W,
    s: S,
    x: &[T],
    largest: f32,
    kept: &mut [f32],
    mut next: Option<Next<'_, T>>,
    mut before: Option<Weighed<'_, T>>,
    lines: Option<[*const T; 2]>,
    streams: bool,
) -> (f32, f32) {
    let whole = x.len() - x.len() % W::LANES;
    let is_f32 = T::DTYPE == DType::F32;
    // A row of nothing but -inf: its weights are 2^-inf = 0 from any finite base, and their scale is 0 as well.
    let is_empty = largest == f32::NEG_INFINITY;
    let (scale, shift) = (w.splat(std::f32::consts::LOG2_E), w.splat(if is_empty { 0.0 } else { largest }));
    let (mut sums, mut ahead) = (w.zero(), w.splat(f32::NEG_INFINITY));
    for at in (0..whole).step_by(W::LANES) {
        let v = if is_f32 { T::load(w, &x[at..]) } else { w.load(&kept[at..]) };
        let e = exp2(w, w.mul(w.sub(v, shift), scale), is_f32);
        sums = w.add(sums, e);
        w.store(e, &mut kept[at..]);
        if let Some(next) = &mut next {
            ahead = w.max(ahead, next.load(w, at));
        }
        if let Some(row) = &mut before {
            row.write(w, at, streams);
        }
        let Some([after, out]) = lines else { continue };
        for line in (at..at + W::LANES).step_by(64 / size_of::<T>()) {
            fetch_line(after.wrapping_add(line).cast());
            if !streams {
                fetch_line_to_write(out.wrapping_add(line).cast());
            }
        }
    }
    if whole < x.len() {
        let e = exp2(w, w.mul(w.sub(w.load(&kept[whole..]), shift), scale), is_f32);
        sums = w.add(sums, e);
        w.store(e, &mut kept[whole..]);
    }
    if let Some(next) = &mut next {
        ahead = w.max(ahead, next.load_end(w, s, whole));
    }
    if let Some(row) = &mut before {
        row.write_end(s, whole);
    }
    (if is_empty { 0.0 } else { 1.0 / w.sum(sums) }, w.max_lane(ahead))
}

#[inline(always)]
fn exp2<W: Simd>(w: W, y: W::V, is_f32: bool) -> W::V {
    if is_f32 { math::exp2(w, y) } else { math::exp2_short(w, y) }
}
