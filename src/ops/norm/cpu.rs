//! Row normalisation on the CPU: layer norm and rms norm, with residual, affine and modulation.
//!
//! Layout: `x`, `residual`, `scale`, `shift` have contiguous rows at any distance; `weight`, `bias` [cols] and the results are
//! contiguous.
//!
//! Algorithm, passes over a row that stays in L1: x + residual into the second result; the mean; Σ(x - mean)², so that
//! no digits are lost where the mean is large; (x - mean)·gain/deviation + offset. Short rows of 16 bits are widened once, into a
//! buffer; others in each pass, so that gain and offset stay in L1 beside them (AVX-512 alone; 2048 x 4096 bf16 takes 1.0 ms, from a
//! buffer 1.24). With AVX-512 four vectors of a row are under way at a time, and short rows go in twos: folding a row's sums, dividing and
//! taking the root are some 150 cycles in which the other row's work goes on (bf16 takes a quarter less, rms norm of f32, bound by
//! memory, gains nothing and goes one by one). Sums are folded in a fixed order. The next rows are asked for where memory has little
//! else to do: while deviations of a row read in place are squared (577 x 1024 in L3: 57 us, while results are written 66; 2048 x 4096 1.4 for
//! 1.8 ms), else while results are written. A modulated row has gain = w·(1 + scale) and offset = b·(1 + scale) + shift, made once
//! per part and group. Rows are spread over threads in parts of about 32 KiB; a row is never split. Results beyond the caches are
//! streamed.
//!
//! Bound: memory (one read, one write); a copy of 577 x 1024 f32 takes 40 us where the layer norm takes 55 (Zen 5, one thread). Tried and
//! lost: testing for weight and bias inside the loop over a row; asking for the next result, too; taking the next row's first sum
//! while a row is written (6 % slower); asking while the first sums are taken (10 %).

use super::{BIAS, Norm, RESIDUAL, SCALE, SHIFT, WEIGHT, X};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd, Wide, fetch_near, load_end, stream_end};
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
/// Rows under way at a time, where they are short.
const TOGETHER: usize = 2;

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

    /// Where rows begin, to be brought closer; there need not be any.
    fn soon<const R: usize>(&self, i: usize) -> [*const T; R] {
        std::array::from_fn(|r| self.values.as_ptr().wrapping_add((i + r) * self.stride))
    }
}

/// `CENTRED` is the problem's: known to the compiler, no loop asks for it.
pub fn launch<S: Simd, const CENTRED: bool>(n: &Norm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    if n.rows * n.cols > 0 {
        with_lane!(n.dtype, T => with_lane!(n.out, U => all_rows::<S, T, U, CENTRED>(s, n, l)));
    }
    Ok(())
}

fn all_rows<S: Simd, T: Lane, U: Lane, const CENTRED: bool>(s: S, n: &Norm, l: &mut Launch<'_, Cpu>) {
    let cols = n.cols;
    let Some(x) = Rows::<T>::of(l, X, cols) else { return };
    let affine = Affine {
        weight: l.optional(WEIGHT),
        bias: l.optional(BIAS),
        modulation: Rows::of(l, SCALE, cols).zip(Rows::of(l, SHIFT, cols)),
    };
    let residual = Rows::<f32>::of(l, RESIDUAL, cols);
    let (Some(out), sum) = (l.output::<U>(0), l.output::<f32>(1)) else { return };
    let caps = Cpu::caps(l.device);
    let streams = caps.streams(size_of_val(out));
    let (rows, per_group) = ((PART / cols).max(1), n.rows / n.groups);
    // Rows of which four fit into L1 are worked on two at a time, where memory leaves something to gain: the end of one's sums is
    // hidden by the other's.
    let fit = 4 * cols * size_of::<f32>() <= caps.cache_bytes[0];
    let together = if S::IS_ROOMY && fit && (CENTRED || T::DTYPE != DType::F32) { TOGETHER } else { 1 };
    let part = |first: usize, out: &mut [U], mut sum: Option<&mut [f32]>| {
        let mut kept = Scratch::new(together * cols.next_multiple_of(WIDTH * S::LANES));
        let mut combined = Combined { group: usize::MAX, gain: Vec::new(), offset: Vec::new() };
        let (count, mut done) = (out.len() / cols, 0);
        while done < count {
            let i = first + done;
            let group = i / per_group;
            let (gain, offset) = affine.of_group(group, cols, &mut combined);
            let sum = sum.as_deref_mut().map(|sum| &mut sum[done * cols..]);
            let (out, kept) = (&mut out[done * cols..], &mut *kept);
            let (operands, then) = (Operands { x, residual, sum }, Then { eps: n.eps.0, gain, offset, streams });
            // The first condition, for the compiler: other instruction sets get no second copy of all this.
            if S::IS_ROOMY
                && together == TOGETHER
                && done + TOGETHER <= count
                && (i + TOGETHER - 1) / per_group == group
            {
                operands.norm::<S, U, TOGETHER, CENTRED>(s, i, then, kept, &mut out[..TOGETHER * cols]);
                done += TOGETHER;
            } else {
                operands.norm::<S, U, 1, CENTRED>(s, i, then, kept, &mut out[..cols]);
                done += 1;
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

/// What is normalised: rows of `x`, to which those of `residual` are added first, into `sum`.
struct Operands<'a, 's, T> {
    x: Rows<'a, T>,
    residual: Option<Rows<'a, f32>>,
    sum: Option<&'s mut [f32]>,
}

impl<T: Lane> Operands<'_, '_, T> {
    /// Rows `i` and following.
    fn norm<S: Simd, U: Lane, const R: usize, const CENTRED: bool>(
        self,
        s: S,
        i: usize,
        then: Then<'_>,
        kept: &mut [f32],
        out: &mut [U],
    ) {
        let Operands { x, residual, sum } = self;
        match (residual, sum) {
            (Some(residual), Some(sum)) => {
                for (r, sum) in sum.chunks_exact_mut(x.cols).enumerate().take(R) {
                    add_row(s, x.row(i + r), residual.row(i + r), sum);
                }
                let sums: [&[f32]; R] = std::array::from_fn(|r| &sum[r * x.cols..][..x.cols]);
                norm_rows::<_, _, _, R, CENTRED>(s, sums, residual.soon(i + R), then, kept, out);
            }
            _ => {
                let rows: [&[T]; R] = std::array::from_fn(|r| x.row(i + r));
                norm_rows::<_, _, _, R, CENTRED>(s, rows, x.soon(i + R), then, kept, out);
            }
        }
    }
}

/// What follows the normalisation.
struct Affine<'a> {
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    modulation: Option<(Rows<'a, f32>, Rows<'a, f32>)>,
}

/// What is made of the deviations of some rows; an offset never comes without a gain.
#[derive(Clone, Copy)]
struct Then<'a> {
    eps: f32,
    gain: Option<&'a [f32]>,
    offset: Option<&'a [f32]>,
    streams: bool,
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
    /// `R` rows, while those at `next` are asked for. `kept` has room for them in whole wide vectors.
    fn norm_rows[S, T: Lane, U: Lane; const R: usize, const CENTRED: bool](
        s, x: [&[T]; R], next: [*const T; R], then: Then<'_>, kept: &mut [f32], out: &mut [U],
    ) {
        if S::IS_ROOMY && x[0].len() >= WIDTH * S::LANES {
            rows::<_, _, _, _, R, CENTRED>(Wide::<S, WIDTH>(s), s, x, next, then, kept, out);
        } else {
            rows::<_, _, _, _, R, CENTRED>(s, s, x, next, then, kept, out);
        }
    }
}

/// Asks for the vector `at` of a row.
#[inline(always)]
fn fetch_ahead<W: Simd, T: Lane>(row: *const T, at: usize) {
    for line in (0..W::LANES * size_of::<T>()).step_by(64) {
        fetch_near(row.wrapping_add(at).cast::<u8>().wrapping_add(line));
    }
}

/// By vectors of `W`. What is not read in place lies widened in `kept`, from the first pass on; so does what does not fill a vector.
#[inline(always)]
fn rows<W: Simd, S: Simd, T: Lane, U: Lane, const R: usize, const CENTRED: bool>(
    w: W,
    s: S,
    x: [&[T]; R],
    next: [*const T; R],
    then: Then<'_>,
    kept: &mut [f32],
    out: &mut [U],
) {
    let (len, count) = (x[0].len(), x[0].len() as f32);
    let (whole, padded) = (len - len % W::LANES, len.next_multiple_of(W::LANES));
    let in_place = T::DTYPE == DType::F32 || S::IS_ROOMY && R == 1;
    // The next rows are asked for where memory has little else to do.
    let early = in_place && CENTRED;
    let mut keeps = kept.chunks_exact_mut(padded);
    let mut kept: [&mut [f32]; R] = std::array::from_fn(|_| keeps.next().expect("room for all rows"));
    let mut outs = out.chunks_exact_mut(len);
    let mut out: [&mut [U]; R] = std::array::from_fn(|_| outs.next().expect("as many results as rows"));
    let mut sums = [w.zero(); R];
    {
        // Slices of one length, which is looked at once.
        let kept = kept.each_mut().map(|kept| &mut kept[..whole]);
        let x = x.map(|x| &x[..whole]);
        for at in (0..whole).step_by(W::LANES) {
            for r in 0..R {
                let v = T::load(w, &x[r][at..at + W::LANES]);
                sums[r] = if CENTRED { w.add(sums[r], v) } else { w.fma(v, v, sums[r]) };
                if !in_place {
                    w.store(v, &mut kept[r][at..at + W::LANES]);
                }
            }
        }
    }
    if whole < len {
        for r in 0..R {
            let v = load_end(w, s, &x[r][whole..], 0.0, &mut kept[r][whole..]);
            sums[r] = if CENTRED { w.add(sums[r], v) } else { w.fma(v, v, sums[r]) };
        }
    }
    let (mut mean, mut squares) = ([0.0; R], [0.0; R]);
    for r in 0..R {
        squares[r] = w.sum(sums[r]);
    }
    if CENTRED {
        let mut means = [w.zero(); R];
        for r in 0..R {
            mean[r] = squares[r] / count;
            means[r] = w.splat(mean[r]);
            // What pads the row adds nothing.
            kept[r][len..].fill(mean[r]);
        }
        let mut sums = [w.zero(); R];
        let (rows, keeps) = (x.map(|x| &x[..whole]), kept.each_ref().map(|kept| &kept[..whole]));
        for at in (0..whole).step_by(W::LANES) {
            for r in 0..R {
                let end = at + W::LANES;
                if early {
                    fetch_ahead::<W, T>(next[r], at);
                }
                let v = if in_place { T::load(w, &rows[r][at..end]) } else { w.load(&keeps[r][at..end]) };
                let d = w.sub(v, means[r]);
                sums[r] = w.fma(d, d, sums[r]);
            }
        }
        if whole < len {
            for r in 0..R {
                let d = w.sub(w.load(&kept[r][whole..]), means[r]);
                sums[r] = w.fma(d, d, sums[r]);
            }
        }
        for r in 0..R {
            squares[r] = w.sum(sums[r]);
        }
    }
    let mut inverse = [0.0; R];
    for r in 0..R {
        inverse[r] = 1.0 / (squares[r] / count + then.eps).sqrt();
    }
    // A macro for wide vectors and single ones, whose types differ.
    macro_rules! scale {
        ($($operand:ident),* => |$v:ident, $y:ident| $e:expr) => {{
            let (mut m, mut i) = ([w.zero(); R], [w.zero(); R]);
            for r in 0..R {
                (m[r], i[r]) = (w.splat(mean[r]), w.splat(inverse[r]));
            }
            {
                $(let $operand = &$operand[..whole];)*
                let (rows, keeps) = (x.map(|x| &x[..whole]), kept.each_ref().map(|kept| &kept[..whole]));
                let out = out.each_mut().map(|out| &mut out[..whole]);
                for at in (0..whole).step_by(W::LANES) {
                    let end = at + W::LANES;
                    $(let $operand = w.load(&$operand[at..end]);)*
                    for r in 0..R {
                        if !early {
                            fetch_ahead::<W, T>(next[r], at);
                        }
                        let x = if in_place { T::load(w, &rows[r][at..end]) } else { w.load(&keeps[r][at..end]) };
                        let ($v, $y) = (w, w.mul(w.sub(x, m[r]), i[r]));
                        let out = &mut out[r][at..end];
                        if then.streams { U::stream(w, $e, out) } else { U::store(w, $e, out) }
                    }
                }
            }
            for at in (whole..len).step_by(S::LANES) {
                let end = (at + S::LANES).min(len);
                $(let $operand = s.load_part(&$operand[at..end]);)*
                for r in 0..R {
                    let (m, i) = (s.splat(mean[r]), s.splat(inverse[r]));
                    let ($v, $y) = (s, s.mul(s.sub(s.load_part(&kept[r][at..end]), m), i));
                    U::store_part(s, $e, &mut out[r][at..end]);
                }
            }
        }};
    }
    match (then.gain, then.offset) {
        (Some(gain), Some(offset)) => scale!(gain, offset => |v, y| v.fma(y, gain, offset)),
        (Some(gain), None) => scale!(gain => |v, y| v.mul(y, gain)),
        _ => scale!(=> |_v, y| y),
    }
}
