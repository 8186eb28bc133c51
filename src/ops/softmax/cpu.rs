//! Softmax on the CPU, a row at a time.
//!
//! Layout: `x` [rows, cols] with contiguous rows at any distance, `out` contiguous.
//!
//! Algorithm, three passes over a row that stays in L1: the maximum; 2^((x - m)·log2 e), summed; a scaling by 1/sum into the
//! result. Between passes the row lies in a buffer of f32, so that 16-bit rows are widened once and their exponentials
//! made once, and summed before they are rounded; those are of 18 bits, others of 24. With AVX-512 four vectors are under
//! way at a time. Rows are spread over threads in chunks of about 16 KiB of output; a row is never split. Results beyond the
//! caches are streamed.
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

/// Elements of a part.
const PART: usize = 4096;
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
        let streams = Cpu::caps(l.device).streams(size_of_val(out));
        let rows = (PART / op.cols).max(1);
        l.pool().chunks_mut(out, rows * op.cols, |i, out| {
            let mut kept = vec![0f32; op.cols.next_multiple_of(WIDTH * S::LANES)];
            for (j, out) in out.chunks_exact_mut(op.cols).enumerate() {
                let x = &x[(i * rows + j) * stride..];
                let next = x.get(stride..stride + op.cols).unwrap_or(&[]);
                softmax_row(s, &x[..op.cols], next, &mut kept, streams, out);
            }
            if streams {
                stream_end();
            }
        });
    });
    Ok(())
}

simd_fn! {
    /// One row. `kept` has room for it in whole wide vectors.
    fn softmax_row[S, T: Lane](s, x: &[T], next: &[T], kept: &mut [f32], streams: bool, out: &mut [T]) {
        if S::IS_ROOMY && x.len() >= WIDTH * S::LANES {
            row(Wide::<S, WIDTH>(s), s, x, next, kept, streams, out);
        } else {
            row(s, s, x, next, kept, streams, out);
        }
    }
}

/// By vectors of `W`. Maxima and sums are carried per lane and folded at the end, in a fixed order.
#[inline(always)]
fn row<W: Simd, S: Simd, T: Lane>(w: W, s: S, x: &[T], next: &[T], kept: &mut [f32], streams: bool, out: &mut [T]) {
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
    if m == f32::NEG_INFINITY {
        out.fill(<T as bytemuck::Zeroable>::zeroed());
        return;
    }
    let (scale, shift) = (w.splat(std::f32::consts::LOG2_E), w.splat(m));
    let mut sums = w.zero();
    for at in (0..kept.len()).step_by(W::LANES) {
        let v = if is_f32 && at < whole { T::load(w, &x[at..]) } else { w.load(&kept[at..]) };
        let y = w.mul(w.sub(v, shift), scale);
        let e = if is_f32 { math::exp2(w, y) } else { math::exp2_short(w, y) };
        sums = w.add(sums, e);
        w.store(e, &mut kept[at..]);
        for line in (at..at + W::LANES).step_by(64 / size_of::<T>()) {
            fetch_line(next.as_ptr().wrapping_add(line).cast());
            if !streams {
                fetch_line_to_write(out.as_ptr().wrapping_add(line).cast());
            }
        }
    }
    let sum = w.sum(sums);
    let inverse = w.splat(1.0 / sum);
    for at in (0..whole).step_by(W::LANES) {
        let y = w.mul(w.load(&kept[at..]), inverse);
        if streams { T::stream(w, y, &mut out[at..]) } else { T::store(w, y, &mut out[at..]) }
    }
    let inverse = s.splat(1.0 / sum);
    for (kept, out) in kept[whole..].chunks(S::LANES).zip(out[whole..].chunks_mut(S::LANES)) {
        T::store_part(s, s.mul(s.load_part(&kept[..out.len()]), inverse), out);
    }
}
