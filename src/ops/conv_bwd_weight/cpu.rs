//! Gradients of convolutions' weights on the CPU. `x` may lie at any distances as long as its last dimension is contiguous;
//! `grad` and `weight` are contiguous.
//!
//! `tiled`, an implicit gemm over places: lhs the columns of im2col [channels · taps, places], rhs the gradient [places,
//! channels_out], result the weight's transpose.
//! 1. The gradient is packed once: for each box of at most `KC` places, panels [place, channel] of nr = 2 vectors.
//! 2. A part has some channels with all their taps, up to `COLUMNS` columns, and a share of the boxes of all samples. For
//!    each box it copies the points of its channels (`convolution/cpu/lines.rs`) into rows of lhs, and each tile of rows
//!    meets each panel in registers (`convolution/cpu/tile.rs`). Sums stay in L2 to the end.
//! 3. Where channels and panels make few parts, places are shared out too; a second pass adds the shares in their order.
//!
//! `direct`, for few channels_out in a group (depthwise): a dot product of lines for each tap, eight taps at a time. Parts
//! are some channels of x with all boxes.
//!
//! Bound: arithmetic; of `direct` loads from L1, one for each multiply-add.

use super::ConvBwdWeight;
use crate::backend::cpu::simd::{MAX_LANES, Simd};
use crate::backend::cpu::{Caps, Cpu, Pool, Scratch, Slots};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::convolution::cpu::{
    Boxes, Floats, KC, LDA, Lines, Run, Runs, Sink, Window, copy_runs, max_rows, multiply,
};
use crate::{isa_rows, simd_fn};

/// Channels of a group of the gradient up to which dot products are the better way.
const SUITS_ROWS: usize = 4;
/// Columns, channels of the gradient, of a part.
const COLUMNS: usize = 256;
/// Rows of lhs that a part has, or the taps of one channel if they are more.
const ROWS: usize = 252;
/// Parts that there should be, for many threads to share.
const PARTS: usize = 16;
/// Taps whose dot products are made at a time.
const TAPS: usize = 8;
/// Multiply-adds of a part of `direct` that make it worth its tables.
const WORK: usize = 1 << 20;
/// Places of a box of `direct`.
const BOX: usize = 2048;

impl Kernels<Cpu> for ConvBwdWeight {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![
        ("conv_bwd_weight_direct", supports, direct).takes(&[Takes::Rows]).suits(few_rows),
        ("conv_bwd_weight_tiled", supports, tiled).takes(&[Takes::Rows]).workspace(workspace),
    ];
}

fn supports<S: Simd>(_: &ConvBwdWeight, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn few_rows(op: &ConvBwdWeight, _: &Caps) -> bool {
    op.channels_out / op.groups <= SUITS_ROWS
}

/// The packed gradient, for panels of any width; each thread's sums and lhs; and, if places are shared out, the shares' sums.
fn workspace(op: &ConvBwdWeight, caps: &Caps) -> usize {
    let cut = Cut::of(op);
    let sums = if cut.shares > 1 { cut.shares * op.weight_shape().iter().product::<usize>() } else { 0 };
    (cut.packed(op, 2 * MAX_LANES) + sums) * size_of::<f32>() + Slots::bytes(caps, cut.slot(op))
}

/// How the work of `tiled` is cut.
struct Cut {
    boxes: Boxes,
    /// Places of a channel of the gradient.
    places: usize,
    /// Channels of x and of the gradient in a group.
    channels: usize,
    rows: usize,
    /// Channels of x of a part.
    together: usize,
    channel_blocks: usize,
    column_blocks: usize,
    /// Into which the boxes of all samples are cut.
    shares: usize,
}

impl Cut {
    fn of(op: &ConvBwdWeight) -> Cut {
        let outputs = op.geometry().outputs();
        let boxes = Boxes::new(outputs, 1, KC);
        let (channels, rows) = (op.channels_in / op.groups, op.channels_out / op.groups);
        let together = (ROWS / op.kernel.iter().product::<usize>()).clamp(1, channels.max(1));
        let (channel_blocks, column_blocks) = (channels.div_ceil(together), rows.div_ceil(COLUMNS));
        let parts = op.groups * channel_blocks * column_blocks;
        let shares = PARTS.div_ceil(parts.max(1)).min(op.batch * boxes.count()).max(1);
        let places = outputs.iter().product();
        Cut { boxes, places, channels, rows, together, channel_blocks, column_blocks, shares }
    }

    /// Columns of a group of the packed gradient.
    fn columns(&self, nr: usize) -> usize {
        self.rows.next_multiple_of(nr)
    }

    /// Elements of memory of a part: sums and lhs.
    fn slot(&self, op: &ConvBwdWeight) -> usize {
        self.together * taps(op) * (self.rows.clamp(1, COLUMNS).next_multiple_of(2 * MAX_LANES) + LDA)
    }

    /// Elements of the packed gradient.
    fn packed(&self, op: &ConvBwdWeight, nr: usize) -> usize {
        op.batch * op.groups * self.places * self.columns(nr)
    }
}

/// Channels of x as they lie.
struct Input<'a> {
    values: Floats<'a>,
    strides: [usize; 4],
    window: Window,
}

impl<'a> Input<'a> {
    fn of(op: &ConvBwdWeight, l: &Launch<'a, Cpu>) -> Input<'a> {
        let x = l.layout(0).strides;
        Input { values: Floats::F32(l.input(0)), strides: [x[0], x[1], x[2], x[3]], window: Window::of(&op.geometry()) }
    }

    /// Reads the points of a channel.
    fn read<S: Simd>(&self, s: S, batch: usize, channel: usize, lines: &mut Lines) {
        let base = batch * self.strides[0] + channel * self.strides[1];
        lines.fill(s, self.values, base, [self.strides[2], self.strides[3]]);
    }
}

/// Taps of the kernel.
fn taps(op: &ConvBwdWeight) -> usize {
    op.kernel.iter().product()
}

fn tiled<S: Simd>(_: &Kernel<Cpu, ConvBwdWeight>, op: &ConvBwdWeight, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let (cut, x, grad, pool) = (Cut::of(op), Input::of(op, l), l.input::<f32>(1), l.pool());
    let (packed, rest) = l.scratch::<f32>().split_at_mut(cut.packed(op, 2 * S::LANES));
    let Some(weight) = l.output::<f32>(0) else { return Ok(()) };
    if weight.is_empty() {
        return Ok(());
    }
    pack::<S>(pool, op, &cut, grad, packed);
    if cut.shares == 1 {
        shares(s, pool, op, &cut, &x, packed, rest, weight);
        return Ok(());
    }
    let (sums, rest) = rest.split_at_mut(cut.shares * weight.len());
    shares(s, pool, op, &cut, &x, packed, rest, sums);
    const CHUNK: usize = 4096;
    let len = weight.len();
    pool.chunks_mut(weight, CHUNK, |i, out| {
        for (j, out) in out.iter_mut().enumerate() {
            *out = sums[i * CHUNK + j..].iter().step_by(len).sum();
        }
    });
    Ok(())
}

/// The gradient in panels: for each group, sample, box and panel, [place, channel].
#[allow(unsafe_code)]
fn pack<S: Simd>(pool: &Pool, op: &ConvBwdWeight, cut: &Cut, grad: &[f32], packed: &mut [f32]) {
    let nr = 2 * S::LANES;
    let (boxes, columns) = (cut.boxes.count(), cut.columns(nr));
    let packed = Sink::new(packed);
    pool.run(op.groups * op.batch * boxes, |part| {
        let (b, place) = (part % boxes, part / boxes);
        let (batch, group) = (place % op.batch, place / op.batch);
        let (start, count) = (cut.boxes.start(b), cut.boxes.region(b, op.geometry().outputs()).1.iter().product());
        // SAFETY: boxes share no places.
        let out = unsafe { packed.part::<f32>((place * cut.places + start) * columns, count * columns) };
        for (panel, out) in out.chunks_exact_mut(count * nr).enumerate() {
            for column in 0..nr {
                let out = out[column..].iter_mut().step_by(nr);
                let row = panel * nr + column;
                if row < cut.rows {
                    let channel = (batch * op.groups + group) * cut.rows + row;
                    let grad = &grad[channel * cut.places + start..][..count];
                    out.zip(grad).for_each(|(out, &grad)| *out = grad);
                } else {
                    out.for_each(|out| *out = 0.0);
                }
            }
        }
    });
}

/// The sums of each share, weights one behind the other; `rest` is memory for parts.
#[allow(unsafe_code, clippy::too_many_arguments)]
fn shares<S: Simd>(
    s: S,
    pool: &Pool,
    op: &ConvBwdWeight,
    cut: &Cut,
    x: &Input<'_>,
    packed: &[f32],
    rest: &mut [f32],
    out: &mut [f32],
) {
    let (taps, nr) = (taps(op), 2 * S::LANES);
    let slots = Slots::new(rest, cut.slot(op));
    let share_len = out.len() / cut.shares;
    let out = Sink::new(out);
    let blocks = cut.channel_blocks * cut.column_blocks;
    pool.run(cut.shares * op.groups * blocks, |part| {
        let (block, place) = (part % blocks, part / blocks);
        let (group, share) = (place % op.groups, place / op.groups);
        let (channel, column) = (block % cut.channel_blocks * cut.together, block / cut.channel_blocks * COLUMNS);
        let channels = channel..(channel + cut.together).min(cut.channels);
        let columns = column..(column + COLUMNS).min(cut.rows);
        let (rows, width) = (channels.len() * taps, columns.len().next_multiple_of(nr));
        let tiles = rows.div_ceil(max_rows::<S>());
        let all = op.batch * cut.boxes.count();
        let mine = all * share / cut.shares..all * (share + 1) / cut.shares;
        slots.with(|slot| {
            let (acc, slot) = slot.split_at_mut(rows * width);
            let lhs = &mut slot[..rows * LDA];
            acc.fill(0.0);
            for b in 0..cut.boxes.count() {
                // Of all pairs of a box and a sample, boxes outermost: the samples of this box that are in the share.
                let sample = |pair: usize| pair.saturating_sub(b * op.batch).min(op.batch);
                let samples = sample(mine.start)..sample(mine.end);
                if samples.is_empty() {
                    continue;
                }
                let (first, extent) = cut.boxes.region(b, op.geometry().outputs());
                let count = extent.iter().product::<usize>();
                let mut lines = Lines::new(&x.window, first, extent);
                let runs = Runs::new(lines.pitch, extent, count);
                for batch in samples {
                    for (channel, lhs) in channels.clone().zip(lhs.chunks_exact_mut(taps * LDA)) {
                        x.read(s, batch, group * cut.channels + channel, &mut lines);
                        copy_columns(s, &lines, runs.group(0), lhs);
                    }
                    let at = ((group * op.batch + batch) * cut.places + cut.boxes.start(b)) * cut.columns(nr);
                    for (i, panel) in columns.clone().step_by(nr).enumerate() {
                        let rhs = &packed[at + panel * count..][..count * nr];
                        for tile in 0..tiles {
                            let (top, bottom) = (rows * tile / tiles, rows * (tile + 1) / tiles);
                            let acc = &mut acc[top * width + i * nr..];
                            multiply(s, bottom - top, &lhs[top * LDA..], rhs, count, acc, width);
                        }
                    }
                }
            }
            for (i, column) in columns.enumerate() {
                let at = ((group * cut.rows + column) * cut.channels + channels.start) * taps;
                // SAFETY: parts share no elements: each has its own channels of both sides, or another share.
                let out = unsafe { out.part::<f32>(share * share_len + at, rows) };
                out.iter_mut().zip(acc[i..].iter().step_by(width)).for_each(|(out, &sum)| *out = sum);
            }
        });
    });
}

simd_fn! {
    /// What the places of a box read of a channel, for each tap a row of lhs. (A row has room for whole vectors.)
    fn copy_columns[S](s, lines: &Lines, runs: &[Run], lhs: &mut [f32]) {
        copy_runs(s, &lines.data, &lines.taps, runs, LDA, lhs);
    }
}

#[allow(unsafe_code)]
fn direct<S: Simd>(_: &Kernel<Cpu, ConvBwdWeight>, op: &ConvBwdWeight, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let (cut, x, grad, pool) = (Cut::of(op), Input::of(op, l), l.input::<f32>(1), l.pool());
    let Some(weight) = l.output::<f32>(0) else { return Ok(()) };
    let weight = Sink::new(weight);
    let (taps, rows, boxes) = (taps(op), cut.rows, Boxes::new(op.geometry().outputs(), 1, BOX));
    let work = (op.batch * cut.places).saturating_mul(taps * rows).max(1);
    let together = WORK.div_ceil(work);
    pool.run(op.channels_in.div_ceil(together), |part| {
        let channels = part * together..((part + 1) * together).min(op.channels_in);
        // The last tap again where eight do not divide them; what comes of it is not stored.
        let padded = taps.next_multiple_of(TAPS);
        let len = padded * S::LANES;
        let mut sums = Scratch::new(channels.len() * rows * len);
        for b in 0..boxes.count() {
            let (first, extent) = boxes.region(b, op.geometry().outputs());
            let count = extent.iter().product::<usize>();
            let mut lines = Lines::new(&x.window, first, extent);
            let runs = Runs::new(lines.pitch, extent, count);
            let mut places = lines.taps.clone();
            places.resize(padded, lines.taps[taps - 1]);
            for batch in 0..op.batch {
                for (channel, sums) in channels.clone().zip(sums.chunks_exact_mut((rows * len).max(1))) {
                    x.read(s, batch, channel, &mut lines);
                    for (row, sums) in sums.chunks_exact_mut(len).enumerate() {
                        let row = batch * op.channels_out + channel / cut.channels * rows + row;
                        let grad = &grad[row * cut.places + boxes.start(b)..][..count];
                        dot(s, &lines.data, &places, runs.group(0), grad, sums);
                    }
                }
            }
        }
        for (channel, sums) in channels.zip(sums.chunks_exact((rows * len).max(1))) {
            let (group, channel) = (channel / cut.channels, channel % cut.channels);
            for (row, sums) in sums.chunks_exact(len).enumerate() {
                let at = ((group * rows + row) * cut.channels + channel) * taps;
                // SAFETY: parts share no channels.
                let out = unsafe { weight.part::<f32>(at, taps) };
                for (out, sums) in out.iter_mut().zip(sums.chunks_exact(S::LANES)) {
                    *out = s.sum(s.load(sums));
                }
            }
        }
    });
    Ok(())
}

simd_fn! {
    /// Adds the products of a box's gradient with what its places read, for each tap a vector of sums.
    fn dot[S](s, data: &[f32], taps: &[usize], runs: &[Run], grad: &[f32], sums: &mut [f32]) {
        for (taps, sums) in taps.as_chunks::<TAPS>().0.iter().zip(sums.chunks_exact_mut(TAPS * S::LANES)) {
            let mut acc = [s.zero(); TAPS];
            for t in 0..TAPS {
                acc[t] = s.load(&sums[t * S::LANES..]);
            }
            for run in runs {
                let (grad, body) = (&grad[run.to..][..run.count], run.count - run.count % S::LANES);
                let lines: [&[f32]; TAPS] = std::array::from_fn(|t| &data[taps[t] + run.from..][..run.count]);
                for j in (0..body).step_by(S::LANES) {
                    let grad = s.load(&grad[j..]);
                    for t in 0..TAPS {
                        acc[t] = s.fma(grad, s.load(&lines[t][j..]), acc[t]);
                    }
                }
                if body < run.count {
                    let grad = s.load_part(&grad[body..]);
                    for t in 0..TAPS {
                        acc[t] = s.fma(grad, s.load_part(&lines[t][body..]), acc[t]);
                    }
                }
            }
            for t in 0..TAPS {
                s.store(acc[t], &mut sums[t * S::LANES..]);
            }
        }
    }
}
