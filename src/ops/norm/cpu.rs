//! Row normalisation on the CPU: layer norm and rms norm, with residual, affine and modulation.
//!
//! Layout: `x`, `residual`, `scale`, `shift` have contiguous rows at any distance; `weight`, `bias` [cols] and the results are
//! contiguous.
//!
//! Algorithm, passes over a row that stays in L1: x + residual into the second result; the mean; Σ(x - mean)², so that
//! no digits are lost where the mean is large; (x - mean)·gain/deviation + offset, while the next row is asked for. A row of 16
//! bits is widened once, into a buffer. With AVX-512 four vectors are under way at a time; sums are folded in a fixed order. A
//! modulated row has gain = w·(1 + scale) and offset = b·(1 + scale) + shift, made once per part and group. Rows are spread over
//! threads in parts of about 32 KiB; a row is never split. Results beyond the caches are streamed.
//!
//! Bound: memory (one read, one write). Asking for the next row takes 8 % off rows of 1024 f32 in L3, 13 to 25 % off 2048 of 4096
//! (Zen 5, one thread). Tried and lost: testing for weight and bias inside the loop over a row; asking for the next result, too; taking the
//! next row's first sum while a row is written (6 % slower).

use super::{BIAS, Norm, RESIDUAL, SCALE, SHIFT, WEIGHT, X};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd, Wide, fetch_near, stream_end};
use crate::backend::cpu::{Caps, Cpu, Scratch};
use crate::backend::{Backend, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_lane;
use crate::simd_fn;

/// What the rows of both ops take.
pub const TAKES: &[Takes] = &[Takes::Rows, Takes::Contiguous, Takes::Contiguous, Takes::Rows, Takes::Rows, Takes::Rows];

/// Elements of a part.
const PART: usize = 8192;
/// Vectors under way at a time.
const WIDTH: usize = 4;

pub fn supports<S: Simd>(caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

/// A matrix whose rows lie at a distance.
#[derive(Clone, Copy)]
struct Rows<'a, T> {
    values: &'a [T],
    stride: usize,
    cols: usize,
}

impl<'a, T: Lane> Rows<'a, T> {
    /// An operand, if the problem has it.
    fn of(l: &Launch<'a, Cpu>, i: usize, cols: usize) -> Option<Rows<'a, T>> {
        Some(Rows { values: l.optional(i)?, stride: l.layout(i).strides[0], cols })
    }

    fn row(&self, i: usize) -> &'a [T] {
        &self.values[i * self.stride..][..self.cols]
    }

    /// Where a row begins, to be brought closer; there need not be one.
    fn soon(&self, i: usize) -> *const T {
        self.values.as_ptr().wrapping_add(i * self.stride)
    }
}

pub fn launch<S: Simd>(n: &Norm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    if n.rows * n.cols > 0 {
        with_lane!(n.dtype, T => with_lane!(n.out, U => all_rows::<S, T, U>(s, n, l)));
    }
    Ok(())
}

fn all_rows<S: Simd, T: Lane, U: Lane>(s: S, n: &Norm, l: &mut Launch<'_, Cpu>) {
    let cols = n.cols;
    let Some(x) = Rows::<T>::of(l, X, cols) else { return };
    let affine = Affine {
        weight: l.optional(WEIGHT),
        bias: l.optional(BIAS),
        modulation: Rows::of(l, SCALE, cols).zip(Rows::of(l, SHIFT, cols)),
    };
    let residual = Rows::<f32>::of(l, RESIDUAL, cols);
    let (Some(out), sum) = (l.output::<U>(0), l.output::<f32>(1)) else { return };
    let streams = Cpu::caps(l.device).streams(size_of_val(out));
    let (rows, per_group) = ((PART / cols).max(1), n.rows / n.groups);
    let part = |first: usize, out: &mut [U], mut sum: Option<&mut [f32]>| {
        let mut kept = Scratch::new(cols.next_multiple_of(WIDTH * S::LANES));
        let mut combined = Combined { group: usize::MAX, gain: Vec::new(), offset: Vec::new() };
        for (j, out) in out.chunks_exact_mut(cols).enumerate() {
            let i = first + j;
            let (gain, offset) = affine.of_group(i / per_group, cols, &mut combined);
            match (residual, sum.as_deref_mut()) {
                (Some(residual), Some(sum)) => {
                    let sum = &mut sum[j * cols..(j + 1) * cols];
                    add_row(s, x.row(i), residual.row(i), sum);
                    norm_row(s, sum, residual.soon(i + 1), n, gain, offset, &mut kept, streams, out);
                }
                _ => norm_row(s, x.row(i), x.soon(i + 1), n, gain, offset, &mut kept, streams, out),
            }
        }
        if streams {
            stream_end();
        }
    };
    let len = rows * cols;
    match sum {
        None => l.pool().chunks_mut(out, len, |i, out| part(i * rows, out, None)),
        Some(sum) => l.pool().chunk_pairs_mut((out, len), (sum, len), |i, out, sum| part(i * rows, out, Some(sum))),
    }
}

/// What follows the normalisation.
struct Affine<'a> {
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    modulation: Option<(Rows<'a, f32>, Rows<'a, f32>)>,
}

/// Gain and offset of one group.
struct Combined {
    group: usize,
    gain: Vec<f32>,
    offset: Vec<f32>,
}

impl<'a> Affine<'a> {
    /// A factor and an offset per column; an offset never comes without a factor.
    fn of_group<'c>(&self, group: usize, cols: usize, c: &'c mut Combined) -> (Option<&'c [f32]>, Option<&'c [f32]>)
    where
        'a: 'c,
    {
        match (self.weight, self.bias, self.modulation) {
            (weight, None, None) => return (weight, None),
            (Some(weight), Some(bias), None) => return (Some(weight), Some(bias)),
            (_, _, modulation) if c.group != group => {
                c.group = group;
                c.gain.clear();
                c.gain.extend_from_slice(self.weight.unwrap_or(&[]));
                c.gain.resize(cols, 1.0);
                c.offset.clear();
                c.offset.extend_from_slice(self.bias.unwrap_or(&[]));
                c.offset.resize(cols, 0.0);
                if let Some((scale, shift)) = modulation {
                    let gains = c.gain.iter_mut().zip(&mut c.offset);
                    for ((gain, offset), (scale, shift)) in gains.zip(scale.row(group).iter().zip(shift.row(group))) {
                        *gain *= 1.0 + scale;
                        *offset = *offset * (1.0 + scale) + shift;
                    }
                }
            }
            _ => {}
        }
        (Some(&c.gain), Some(&c.offset))
    }
}

simd_fn! {
    /// sum = x + residual.
    fn add_row[S, T: Lane](s, x: &[T], residual: &[f32], sum: &mut [f32]) {
        let body = x.len() - x.len() % S::LANES;
        let ((x, x_tail), (r, r_tail)) = (x.split_at(body), residual.split_at(body));
        let (sum, sum_tail) = sum.split_at_mut(body);
        let operands = x.chunks_exact(S::LANES).zip(r.chunks_exact(S::LANES));
        for ((x, r), sum) in operands.zip(sum.chunks_exact_mut(S::LANES)) {
            s.store(s.add(T::load(s, x), s.load(r)), sum);
        }
        s.store_part(s.add(T::load_part(s, x_tail), s.load_part(r_tail)), sum_tail);
    }
}

/// The sum of a row.
#[inline(always)]
pub fn sum<S: Simd, T: Lane>(s: S, x: &[T]) -> f32 {
    fold::<S, T, false>(s, x, 0.0)
}

/// Σ(x - mean)² of a row.
#[inline(always)]
pub fn sum_squares<S: Simd, T: Lane>(s: S, x: &[T], mean: f32) -> f32 {
    fold::<S, T, true>(s, x, mean)
}

/// Four vectors of partial sums, so that additions do not wait for each other.
#[inline(always)]
fn fold<S: Simd, T: Lane, const SQUARES: bool>(s: S, x: &[T], mean: f32) -> f32 {
    let (m, means) = (s.splat(mean), [mean; MAX_LANES]);
    let mut sums = [s.zero(); 4];
    let blocks = x.chunks_exact(4 * S::LANES);
    let rest = blocks.remainder().chunks_exact(S::LANES);
    let last = rest.remainder();
    for block in blocks {
        for (sum, v) in sums.iter_mut().zip(block.chunks_exact(S::LANES)) {
            *sum = fold_vector::<S, SQUARES>(s, *sum, T::load(s, v), m);
        }
    }
    for (sum, v) in sums.iter_mut().zip(rest) {
        *sum = fold_vector::<S, SQUARES>(s, *sum, T::load(s, v), m);
    }
    if !last.is_empty() {
        // Lanes past the end are zero less zero.
        let means = s.load_part(&means[..last.len()]);
        sums[3] = fold_vector::<S, SQUARES>(s, sums[3], T::load_part(s, last), means);
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

#[inline(always)]
fn fold_vector<S: Simd, const SQUARES: bool>(s: S, sum: S::V, v: S::V, mean: S::V) -> S::V {
    if SQUARES {
        let d = s.sub(v, mean);
        s.fma(d, d, sum)
    } else {
        s.add(sum, v)
    }
}

simd_fn! {
    /// One row, while the one at `next` is asked for; an offset never comes without a gain. `kept` has room for it in whole wide
    /// vectors.
    fn norm_row[S, T: Lane, U: Lane](
        s, x: &[T], next: *const T, n: &Norm, gain: Option<&[f32]>, offset: Option<&[f32]>, kept: &mut [f32], streams: bool, out: &mut [U],
    ) {
        if S::IS_ROOMY && x.len() >= WIDTH * S::LANES {
            row(Wide::<S, WIDTH>(s), s, x, next, n, gain, offset, kept, streams, out);
        } else {
            row(s, s, x, next, n, gain, offset, kept, streams, out);
        }
    }
}

/// By vectors of `W`. A row that is not f32 is widened once, into `kept`; so is what does not fill a vector.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn row<W: Simd, S: Simd, T: Lane, U: Lane>(
    w: W,
    s: S,
    x: &[T],
    next: *const T,
    n: &Norm,
    gain: Option<&[f32]>,
    offset: Option<&[f32]>,
    kept: &mut [f32],
    streams: bool,
    out: &mut [U],
) {
    let (len, count) = (x.len(), x.len() as f32);
    let whole = len - len % W::LANES;
    let kept = &mut kept[..len.next_multiple_of(W::LANES)];
    let is_f32 = T::DTYPE == DType::F32;
    let mut sums = w.zero();
    for at in (0..whole).step_by(W::LANES) {
        let v = T::load(w, &x[at..]);
        sums = if n.centred { w.add(sums, v) } else { w.fma(v, v, sums) };
        if !is_f32 {
            w.store(v, &mut kept[at..]);
        }
    }
    if whole < len {
        let tail = &mut kept[whole..];
        tail.fill(0.0);
        for (x, kept) in x[whole..].chunks(S::LANES).zip(tail.chunks_mut(S::LANES)) {
            s.store_part(T::load_part(s, x), &mut kept[..x.len()]);
        }
        let v = w.load(tail);
        sums = if n.centred { w.add(sums, v) } else { w.fma(v, v, sums) };
    }
    let (mut mean, mut squares) = (0.0, w.sum(sums));
    if n.centred {
        mean = squares / count;
        // What pads the row adds nothing.
        kept[len..].fill(mean);
        let (m, mut sums) = (w.splat(mean), w.zero());
        for at in (0..kept.len()).step_by(W::LANES) {
            let v = if is_f32 && at < whole { T::load(w, &x[at..]) } else { w.load(&kept[at..]) };
            let d = w.sub(v, m);
            sums = w.fma(d, d, sums);
        }
        squares = w.sum(sums);
    }
    let inverse = 1.0 / (squares / count + n.eps.0).sqrt();
    // A macro for wide vectors and single ones, whose types differ.
    macro_rules! scale {
        ($($operand:ident),* => |$v:ident, $y:ident| $e:expr) => {{
            let (m, i) = (w.splat(mean), w.splat(inverse));
            for at in (0..whole).step_by(W::LANES) {
                for line in (0..W::LANES * size_of::<T>()).step_by(64) {
                    fetch_near(next.wrapping_add(at).cast::<u8>().wrapping_add(line));
                }
                let x = if is_f32 { T::load(w, &x[at..]) } else { w.load(&kept[at..]) };
                let ($v, $y) = (w, w.mul(w.sub(x, m), i));
                $(let $operand = w.load(&$operand[at..]);)*
                if streams { U::stream(w, $e, &mut out[at..]) } else { U::store(w, $e, &mut out[at..]) }
            }
            let (m, i) = (s.splat(mean), s.splat(inverse));
            for at in (whole..len).step_by(S::LANES) {
                let end = (at + S::LANES).min(len);
                let ($v, $y) = (s, s.mul(s.sub(s.load_part(&kept[at..end]), m), i));
                $(let $operand = s.load_part(&$operand[at..end]);)*
                U::store_part(s, $e, &mut out[at..end]);
            }
        }};
    }
    match (gain, offset) {
        (Some(gain), Some(offset)) => scale!(gain, offset => |v, y| v.fma(y, gain, offset)),
        (Some(gain), None) => scale!(gain => |v, y| v.mul(y, gain)),
        _ => scale!(=> |_v, y| y),
    }
}
