//! Convolutions on the CPU: out[b, r, o] = Σ_c Σ_t weight[r, c, t] · x[b, c, at(o, t)], for the row r of each group.
//!
//! A transposed convolution with stride s is s convolutions of stride 1 per axis: outputs with the same remainder by s meet
//! the same taps. So both ops are a list of [`Window`]s, one for a convolution, and share two kernels, for which the weight
//! of each window is [groups, rows, channels, taps] without gaps:
//! - `tiled.rs`: implicit gemm for many rows;
//! - `direct.rs`: few rows (depthwise, last layers of decoders) straight from the input.
//!
//! Work is cut into boxes of outputs. For one channel at a time, the points that a box reads are copied into `lines.rs`,
//! where padding is resolved, 16-bit values are widened, and neighbouring outputs read neighbouring places whatever the
//! stride.

mod direct;
mod lines;
mod store;
mod tile;
mod tiled;

pub use direct::direct;
pub use lines::{Lines, Run, Runs, copy_runs};
pub use store::Sink;
pub use tile::{KC, LDA, max_rows, multiply};
pub use tiled::{SLOT, tiled};

use super::{Geometry, Padding};
use crate::backend::Launch;
use crate::backend::cpu::Cpu;
use crate::backend::cpu::simd::{Lane, Simd, fetch};
use crate::dtype::DType;
use crate::ops::activation::Activation;
use half::{bf16, f16};

/// Floats of any dtype, read as f32.
#[derive(Clone, Copy)]
pub enum Floats<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl<'a> Floats<'a> {
    /// An operand.
    pub fn of(l: &Launch<'a, Cpu>, i: usize, dtype: DType) -> Floats<'a> {
        match dtype {
            DType::F16 => Floats::F16(l.input(i)),
            DType::BF16 => Floats::Bf16(l.input(i)),
            // A problem's checks admit no other dtype.
            _ => Floats::F32(l.input(i)),
        }
    }

    /// Asks for values to be brought into L2, as far as they exist.
    #[inline(always)]
    pub fn fetch(self, from: usize, count: usize) {
        fn part<T>(x: &[T], from: usize, count: usize) -> &[T] {
            &x[from.min(x.len())..(from + count).min(x.len())]
        }
        match self {
            Floats::F32(x) => fetch(part(x, from, count)),
            Floats::F16(x) => fetch(part(x, from, count)),
            Floats::Bf16(x) => fetch(part(x, from, count)),
        }
    }

    /// Every `step`th value from `from` on.
    #[inline(always)]
    pub fn copy<S: Simd>(self, s: S, from: usize, step: usize, out: &mut [f32]) {
        match self {
            Floats::F32(x) => copy(s, x, from, step, out),
            Floats::F16(x) => copy(s, x, from, step, out),
            Floats::Bf16(x) => copy(s, x, from, step, out),
        }
    }
}

#[inline(always)]
fn copy<S: Simd, T: Lane>(s: S, x: &[T], from: usize, step: usize, out: &mut [f32]) {
    if step != 1 {
        let values = x[from..].iter().step_by(step);
        return out.iter_mut().zip(values).for_each(|(out, x)| *out = x.to_f64() as f32);
    }
    let x = &x[from..from + out.len()];
    let body = x.len() - x.len() % S::LANES;
    for (x, out) in x[..body].chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
        s.store(T::load(s, x), out);
    }
    if body < x.len() {
        s.store_part(T::load_part(s, &x[body..]), &mut out[body..]);
    }
}

/// One axis of a window.
#[derive(Clone)]
pub struct Axis {
    /// Points of the input.
    pub size: usize,
    pub padding: Padding,
    pub outputs: usize,
    /// Points from one output's to the next one's.
    pub step: usize,
    /// The point that output 0 reads for each tap; negative and beyond the end it is padding's.
    pub taps: Vec<isize>,
    /// Output j is number `first + j · every` of the result.
    pub first: usize,
    pub every: usize,
}

/// Outputs that meet the same taps.
pub struct Window {
    /// Depth, height and width.
    pub axes: [Axis; 3],
    /// Where its weight begins.
    pub weight: usize,
}

impl Window {
    /// The one window of a convolution.
    pub fn of(g: &Geometry) -> Window {
        let axis = |i: usize| Axis {
            size: g.size[i],
            padding: g.padding,
            outputs: g.outputs()[i],
            step: g.stride[i],
            taps: (0..g.kernel[i]).map(|k| (k * g.dilation[i]) as isize - g.before[i] as isize).collect(),
            first: 0,
            every: 1,
        };
        Window { axes: [0, 1, 2].map(axis), weight: 0 }
    }

    pub fn outputs(&self) -> [usize; 3] {
        std::array::from_fn(|i| self.axes[i].outputs)
    }

    pub fn taps(&self) -> usize {
        self.axes.iter().map(|axis| axis.taps.len()).product()
    }
}

/// What is computed. Per group: `rows` channels of the result from `channels` of `x`.
pub struct Product<'a> {
    pub batch: usize,
    pub groups: usize,
    pub channels: usize,
    pub rows: usize,
    pub windows: Vec<Window>,
    pub x: Floats<'a>,
    /// From one to the next of batch, channels, depth and height; points along the width are neighbours.
    pub x_strides: [usize; 4],
    pub weight: Floats<'a>,
    /// Extents of a channel of the result.
    pub size_out: [usize; 3],
    /// One value per channel of the result.
    pub bias: Option<&'a [f32]>,
    pub activation: Activation,
}

impl Product<'_> {
    /// Reads the points of channel `channel` of a group.
    fn read<S: Simd>(&self, s: S, batch: usize, group: usize, channel: usize, lines: &mut Lines) {
        let [batches, channels, depths, heights] = self.x_strides;
        let base = batch * batches + (group * self.channels + channel) * channels;
        lines.fill(s, self.x, base, [depths, heights]);
    }

    /// Where the weight of a row of a group begins.
    fn weight_at(&self, window: &Window, group: usize, row: usize) -> usize {
        window.weight + (group * self.rows + row) * self.channels * window.taps()
    }

    /// Where channel `row` of a group of the result begins.
    fn out_at(&self, batch: usize, group: usize, row: usize) -> usize {
        ((batch * self.groups + group) * self.rows + row) * self.size_out.iter().product::<usize>()
    }

    /// The most outputs of a window along each axis.
    fn outputs(&self) -> [usize; 3] {
        std::array::from_fn(|i| self.windows.iter().map(|w| w.axes[i].outputs).max().unwrap_or(0))
    }
}

/// How outputs are cut into boxes of neighbours in the result.
#[derive(Clone, Copy)]
pub struct Boxes {
    outputs: [usize; 3],
    /// Of a box that does not end at an end.
    extent: [usize; 3],
    grid: [usize; 3],
}

impl Boxes {
    /// Boxes of at most `most` outputs, which are worked on `lanes` at a time: parts of a line, else whole lines, else whole
    /// planes.
    pub fn new(outputs: [usize; 3], lanes: usize, most: usize) -> Boxes {
        let [d, h, w] = outputs;
        let extent = if w > most {
            [1, 1, w.div_ceil(w.div_ceil(most)).next_multiple_of(lanes)]
        } else if h * w > most {
            [1, lines_of_box(h, w, lanes, most), w]
        } else {
            [lines_of_box(d, h * w, lanes, most), h, w]
        };
        Boxes { outputs, extent, grid: std::array::from_fn(|i| outputs[i].div_ceil(extent[i].max(1))) }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.grid.iter().product()
    }

    /// First output and extent of a box, of which `outputs`, at most as many as all, exist.
    pub fn region(&self, i: usize, outputs: [usize; 3]) -> ([usize; 3], [usize; 3]) {
        let place = [i / (self.grid[1] * self.grid[2]), i / self.grid[2] % self.grid[1], i % self.grid[2]];
        let first: [usize; 3] = std::array::from_fn(|a| (place[a] * self.extent[a]).min(outputs[a]));
        (first, std::array::from_fn(|a| self.extent[a].min(outputs[a] - first[a])))
    }

    /// Where a box's outputs begin among all, which are contiguous there.
    pub fn start(&self, i: usize) -> usize {
        let [d, h, w] = self.region(i, self.outputs).0;
        (d * self.outputs[1] + h) * self.outputs[2] + w
    }
}

/// How many of `len` lines of `unit` outputs make a box, so that the fewest lanes are idle.
fn lines_of_box(len: usize, unit: usize, lanes: usize, most: usize) -> usize {
    let cost = |lines: usize| {
        let vectors = |lines: usize| (lines * unit).div_ceil(lanes);
        // A box costs something by itself.
        2 * (len / lines * vectors(lines) + vectors(len % lines)) + len.div_ceil(lines)
    };
    (1..=(most / unit.max(1)).clamp(1, len.max(1))).rev().min_by_key(|&lines| cost(lines)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::Boxes;

    #[test]
    fn boxes_cover_every_output_once_and_lie_in_order() {
        for outputs in [[1, 1, 1], [1, 1, 1000], [1, 57, 57], [5, 7, 6], [3, 64, 64], [2, 1, 300], [9, 1, 1]] {
            let boxes = Boxes::new(outputs, 32, 256);
            let mut next = 0;
            for i in 0..boxes.count() {
                let (_, extent) = boxes.region(i, outputs);
                let count = extent.iter().product::<usize>();
                assert!((1..=256).contains(&count), "{outputs:?}: a box of {extent:?}");
                assert_eq!(boxes.start(i), next);
                next += count;
            }
            assert_eq!(next, outputs.iter().product::<usize>());
        }
    }
}
