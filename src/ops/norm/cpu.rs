//! Row normalisation on the CPU: layer norm and rms norm, with residual, affine and modulation.
//!
//! Layout: `x`, `residual`, `scale`, `shift` have contiguous rows at any distance; `weight`, `bias` [cols] and the results are
//! contiguous.
//!
//! Algorithm, two passes over a row: Σ(x - p) and Σ(x - p)², where p is the mean of the row's first values, so that no digits are lost
//! where the mean is large (where they would be, because p is far from the mean, deviations are squared in a pass of their own); then
//! (x - mean)·gain/deviation + offset. Rows of which three fit into L1 are worked on three at a time: one loop writes a row and takes
//! the sums of the second row after it, while those of the row between are folded: 150 cycles of sums, quotients and roots that nothing
//! waits for. It reads and writes as evenly as a copy. Longer rows, read while another is written, would lose gain and offset from L1
//! (2048 x 4096 f32: 2.1 ms, pass by pass 1.4): there the passes follow each other, and the next row is asked for while one is
//! written. 16 bits are widened in both passes. x + residual is made for a whole part first, into the second result. With AVX-512 four
//! vectors of a row are under way at a time. Sums are folded in a fixed order. A modulated row has gain = w·(1 + scale) and offset =
//! b·(1 + scale) + shift, made once per part and group. Rows are spread over threads in parts of up to 512 KiB; a row is never split.
//! Results beyond the caches are streamed, where a row fills four vectors.
//!
//! Bound: memory (one read, one write); a copy of 577 x 1024 f32 takes 40 us where the layer norm takes 51 and the rms norm 44 (Zen 5,
//! one thread). Tried and lost: three passes, with the mean first, even two rows at a time (55 and 53); testing for weight, bias or
//! streaming inside the loop over a row, or taking sums before results are stored (vectors of sums no longer stay in registers);
//! asking, where three rows fit into L1, for the one that is wanted next (3 to 7 % less in L3, up to 20 % more in L2 and where results are
//! streamed).

use super::{BIAS, Norm, RESIDUAL, SCALE, SHIFT, WEIGHT, X};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd, Wide, fetch_near, load_end, stream_end};
use crate::backend::cpu::{Caps, Cpu, rows_of_part};
use crate::backend::{Backend, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_float;
use crate::simd_fn;

/// What the rows of both ops take.
pub const TAKES: &[Takes] = &[Takes::Rows, Takes::Contiguous, Takes::Contiguous, Takes::Rows, Takes::Rows, Takes::Rows];

/// Elements of a part, at least and at most.
const PART: usize = 8192;
const LONGEST_PART: usize = 131072;
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

    /// Those from a row on.
    fn from(self, i: usize) -> Self {
        Rows { values: &self.values[i * self.stride..], ..self }
    }
}

/// `CENTRED` is the problem's: known to the compiler, no loop asks for it.
pub fn launch<S: Simd, const CENTRED: bool>(n: &Norm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    if n.rows * n.cols > 0 {
        with_float!(n.dtype, T => with_float!(n.out, U => all_rows::<S, T, U, CENTRED>(s, n, l)));
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
    // Parts begin and end slowly; sums of operands, though, should still be in L2 when they are normalised.
    let most = if residual.is_some() { LONGEST_PART / 4 } else { LONGEST_PART };
    let rows = rows_of_part(n.rows, (PART / cols).max(1)..=(most / cols).max(1), caps.threads);
    // Where three rows of operands stay in L1.
    let together = 3 * cols * size_of::<T>() < caps.cache_bytes[0];
    let then = Then { affine: &affine, per_group: n.rows / n.groups, eps: n.eps.0, together, streams };
    let len = rows * cols;
    match (residual, sum) {
        (Some(residual), Some(sum)) => l.pool().chunk_pairs_mut((out, len), (sum, len), |i, out, sum| {
            for (j, sum) in sum.chunks_exact_mut(cols).enumerate() {
                add_row(s, x.row(i * rows + j), residual.row(i * rows + j), sum);
            }
            norm_rows::<_, _, _, CENTRED>(s, Rows { values: sum, stride: cols, cols }, i * rows, then, out);
        }),
        _ => l.pool().chunks_mut(out, len, |i, out| {
            norm_rows::<_, _, _, CENTRED>(s, x.from(i * rows), i * rows, then, out);
        }),
    }
}

/// What follows the normalisation.
struct Affine<'a> {
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    modulation: Option<(Rows<'a, f32>, Rows<'a, f32>)>,
}

/// What is made of the rows of a problem.
#[derive(Clone, Copy)]
struct Then<'a> {
    affine: &'a Affine<'a>,
    per_group: usize,
    eps: f32,
    /// Whether a row is written while sums of another are taken.
    together: bool,
    streams: bool,
}

impl Then<'_> {
    /// Gain and offset of row `i` of the problem.
    fn of_row<'c>(&'c self, i: usize, cols: usize, c: &'c mut Combined) -> (Option<&'c [f32]>, Option<&'c [f32]>) {
        self.affine.of_group(i / self.per_group, cols, c)
    }
}

/// Gain and offset of one group.
struct Combined {
    group: usize,
    gain: Vec<f32>,
    offset: Vec<f32>,
}

impl Combined {
    fn new() -> Self {
        Combined { group: usize::MAX, gain: Vec::new(), offset: Vec::new() }
    }
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
    /// Rows of which the first is `first` of the problem.
    fn norm_rows[S, T: Lane, U: Lane; const CENTRED: bool](
        s, x: Rows<'_, T>, first: usize, then: Then<'_>, out: &mut [U],
    ) {
        match S::IS_ROOMY && x.cols >= WIDTH * S::LANES {
            true if then.streams => x.norm::<_, _, _, CENTRED, true>(Wide::<S, WIDTH>(s), s, first, then, out),
            true => x.norm::<_, _, _, CENTRED, false>(Wide::<S, WIDTH>(s), s, first, then, out),
            false => x.norm::<_, _, _, CENTRED, false>(s, s, first, then, out),
        }
    }
}

/// Sums over a row: of distances from a pivot that lies among its values, and of their squares.
#[derive(Clone, Copy)]
struct Sums<V> {
    pivot: f32,
    distances: V,
    squares: V,
}

impl<V: Copy> Sums<V> {
    #[inline(always)]
    fn new<W: Simd<V = V>>(w: W, pivot: f32) -> Self {
        Sums { pivot, distances: w.zero(), squares: w.zero() }
    }

    #[inline(always)]
    fn add<W: Simd<V = V>, const CENTRED: bool>(&mut self, w: W, v: V, pivot: V) {
        if CENTRED {
            let d = w.sub(v, pivot);
            self.distances = w.add(self.distances, d);
            self.squares = w.fma(d, d, self.squares);
        } else {
            self.squares = w.fma(v, v, self.squares);
        }
    }

    /// What is left of a row after whole vectors.
    #[inline(always)]
    fn add_end<W: Simd<V = V>, S: Simd, T: Lane, const CENTRED: bool>(&mut self, w: W, s: S, end: &[T], pivots: V) {
        if !end.is_empty() {
            let mut kept = [0.0; WIDTH * MAX_LANES];
            // What pads the row adds nothing.
            self.add::<_, CENTRED>(w, load_end(w, s, end, self.pivot, &mut kept), pivots);
        }
    }

    /// Of the row `x`.
    #[inline(always)]
    fn moments<W: Simd<V = V>, S: Simd, T: Lane, const CENTRED: bool>(&self, w: W, s: S, x: &[T], eps: f32) -> Moments {
        let (count, mut squares) = (x.len() as f32, w.sum(self.squares));
        let mut mean = 0.0;
        if CENTRED {
            let sum = w.sum(self.distances);
            let shift = sum / count;
            mean = self.pivot + shift;
            // Where the pivot was far from the mean, digits would be lost.
            let excess = sum * shift;
            squares = if excess <= 0.5 * squares { squares - excess } else { sum_squares(s, x, mean) };
        }
        Moments { mean, inverse: 1.0 / (squares / count + eps).sqrt() }
    }
}

/// The mean of a row's first values, or of all if they are few.
#[inline(always)]
fn pivot<S: Simd, T: Lane, const CENTRED: bool>(s: S, x: &[T]) -> f32 {
    match x.len() {
        _ if !CENTRED => 0.0,
        0 => 0.0,
        n if n < S::LANES => s.sum(T::load_part(s, x)) / n as f32,
        _ => s.sum(T::load(s, x)) / S::LANES as f32,
    }
}

/// What is taken from a row's values, and what the rest is multiplied by.
#[derive(Clone, Copy)]
struct Moments {
    mean: f32,
    inverse: f32,
}

impl<T: Lane> Rows<'_, T> {
    #[inline(always)]
    fn norm<W: Simd, S: Simd, U: Lane, const CENTRED: bool, const STREAMS: bool>(
        self,
        w: W,
        s: S,
        first: usize,
        then: Then<'_>,
        out: &mut [U],
    ) {
        if then.together {
            self.overlapped::<_, _, _, CENTRED, STREAMS>(w, s, first, then, out);
        } else {
            self.in_turn::<_, _, _, CENTRED, STREAMS>(w, s, first, then, out);
        }
        if STREAMS {
            stream_end();
        }
    }

    /// Each row is written while sums of the second after it are taken.
    #[inline(always)]
    fn overlapped<W: Simd, S: Simd, U: Lane, const CENTRED: bool, const STREAMS: bool>(
        self,
        w: W,
        s: S,
        first: usize,
        then: Then<'_>,
        out: &mut [U],
    ) {
        let count = out.len() / self.cols;
        let mut combined = Combined::new();
        let row = |j: usize| if j < count { self.row(j) } else { &[] };
        let mut sums = [Sums::new(w, 0.0); 2];
        for (j, sums) in sums.iter_mut().enumerate() {
            *sums = Next::of::<_, CENTRED>(s, row(j)).sums::<_, _, CENTRED>(w, s);
        }
        let mut moments = sums[0].moments::<_, _, _, CENTRED>(w, s, row(0), then.eps);
        let mut next = Next::of::<_, CENTRED>(s, row(2));
        for (j, out) in out.chunks_exact_mut(self.cols).enumerate() {
            let (gain, offset) = then.of_row(first + j, self.cols, &mut combined);
            let write = Write { x: row(j), after: std::ptr::null(), moments, gain, offset, out };
            // What the next turn needs is begun before this one's work.
            moments = sums[1].moments::<_, _, _, CENTRED>(w, s, row(j + 1), then.eps);
            let later = Next::of::<_, CENTRED>(s, row(j + 3));
            sums = [sums[1], step::<_, _, _, _, CENTRED, STREAMS, false>(w, s, write, next)];
            next = later;
        }
    }

    /// The sums of each row, then the row.
    #[inline(always)]
    fn in_turn<W: Simd, S: Simd, U: Lane, const CENTRED: bool, const STREAMS: bool>(
        self,
        w: W,
        s: S,
        first: usize,
        then: Then<'_>,
        out: &mut [U],
    ) {
        let mut combined = Combined::new();
        for (j, out) in out.chunks_exact_mut(self.cols).enumerate() {
            let x = self.row(j);
            let (gain, offset) = then.of_row(first + j, self.cols, &mut combined);
            let sums = Next::of::<_, CENTRED>(s, x).sums::<_, _, CENTRED>(w, s);
            let moments = sums.moments::<_, _, _, CENTRED>(w, s, x, then.eps);
            let after = x.as_ptr().wrapping_add(self.stride);
            let write = Write { x, after, moments, gain, offset, out };
            step::<_, _, _, _, CENTRED, STREAMS, true>(w, s, write, Next::NONE);
        }
    }
}

/// A row that is written, and where the next one begins, if it is to be asked for.
struct Write<'a, T, U> {
    x: &'a [T],
    after: *const T,
    moments: Moments,
    gain: Option<&'a [f32]>,
    offset: Option<&'a [f32]>,
    out: &'a mut [U],
}

/// A row whose sums are taken.
struct Next<'a, T> {
    x: &'a [T],
    pivot: f32,
}

impl<'a, T: Lane> Next<'a, T> {
    const NONE: Self = Next { x: &[], pivot: 0.0 };

    #[inline(always)]
    fn of<S: Simd, const CENTRED: bool>(s: S, x: &'a [T]) -> Self {
        Next { x, pivot: pivot::<S, T, CENTRED>(s, x) }
    }

    /// The sums of a row while none is written.
    #[inline(always)]
    fn sums<W: Simd, S: Simd, const CENTRED: bool>(self, w: W, s: S) -> Sums<W::V> {
        let mut sums = Sums::new(w, self.pivot);
        let pivots = w.splat(self.pivot);
        let mut vectors = self.x.chunks_exact(W::LANES);
        for v in vectors.by_ref() {
            sums.add::<_, CENTRED>(w, T::load(w, v), pivots);
        }
        sums.add_end::<_, _, _, CENTRED>(w, s, vectors.remainder(), pivots);
        sums
    }
}

/// Writes a row, and takes the sums of another one, as long or empty, on the way. With `ASKS`, the next one to be written is asked for.
#[inline(always)]
fn step<W: Simd, S: Simd, T: Lane, U: Lane, const CENTRED: bool, const STREAMS: bool, const ASKS: bool>(
    w: W,
    s: S,
    write: Write<'_, T, U>,
    Next { x: next, pivot }: Next<'_, T>,
) -> Sums<W::V> {
    let mut sums = Sums::new(w, pivot);
    let pivots = w.splat(pivot);
    let Write { x, after, moments: Moments { mean, inverse }, gain, offset, out } = write;
    let whole = out.len() - out.len() % W::LANES;
    let mut nexts = next.chunks_exact(W::LANES);
    // A macro for wide vectors and single ones, whose types differ.
    macro_rules! scale {
        ($($operand:ident),* => |$v:ident, $y:ident| $e:expr) => {{
            let (m, i) = (w.splat(mean), w.splat(inverse));
            {
                $(let $operand = &$operand[..whole];)*
                let (x, out) = (&x[..whole], &mut out[..whole]);
                for at in (0..whole).step_by(W::LANES) {
                    let end = at + W::LANES;
                    $(let $operand = w.load(&$operand[at..end]);)*
                    let ($v, $y) = (w, w.mul(w.sub(T::load(w, &x[at..end]), m), i));
                    let out = &mut out[at..end];
                    if STREAMS { U::stream(w, $e, out) } else { U::store(w, $e, out) }
                    if let Some(next) = nexts.next() {
                        sums.add::<_, CENTRED>(w, T::load(w, next), pivots);
                    }
                    if ASKS {
                        for line in (at..end).step_by(64 / size_of::<T>()) {
                            fetch_near(after.wrapping_add(line).cast());
                        }
                    }
                }
            }
            for at in (whole..out.len()).step_by(S::LANES) {
                let end = (at + S::LANES).min(out.len());
                $(let $operand = s.load_part(&$operand[at..end]);)*
                let (m, i) = (s.splat(mean), s.splat(inverse));
                let ($v, $y) = (s, s.mul(s.sub(T::load_part(s, &x[at..end]), m), i));
                U::store_part(s, $e, &mut out[at..end]);
            }
        }};
    }
    match (gain, offset) {
        (Some(gain), Some(offset)) => scale!(gain, offset => |v, y| v.fma(y, gain, offset)),
        (Some(gain), None) => scale!(gain => |v, y| v.mul(y, gain)),
        _ => scale!(=> |_v, y| y),
    }
    sums.add_end::<_, _, _, CENTRED>(w, s, nexts.remainder(), pivots);
    sums
}
