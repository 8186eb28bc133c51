//! Convolutions as products of matrices that are nowhere stored, for backends that gather them while they multiply.
//! `shaders/common/convolution.wgsl` and `kernels/common/convolution.cuh` say what they are.

use super::{Geometry, Padding};
use crate::dtype::DType;
use crate::ops::activation::Activation;

/// Rows of a product up to which it is computed straight from the input.
const SUITS_ROWS: usize = 8;

/// A product of each group, of a factor and of what a window sees of x.
pub(in crate::ops) struct Product {
    pub window: Window,
    pub padding: Padding,
    /// Channels of x in a group.
    pub channels: usize,
    pub groups: usize,
    pub batch: usize,
    pub rows: usize,
    pub cols: usize,
    /// Steps.
    pub depth: usize,
    /// Elements of the result.
    pub total: usize,
    /// Its channels.
    pub channels_out: usize,
    pub x: DType,
    pub factor: DType,
    pub out: DType,
    pub bias: bool,
    pub activation: Activation,
    pub spread: Spread,
    /// Which way lanes lie when they gather: along the steps, or across.
    pub lhs_along_depth: bool,
    pub rhs_along_depth: bool,
    /// Columns that lie side by side in the result.
    pub out_run: usize,
}

/// Position o sees the points `o · stride + tap · dilation - before`.
pub(in crate::ops) struct Window {
    pub size: [usize; 3],
    pub positions: [usize; 3],
    pub taps: [usize; 3],
    pub stride: [usize; 3],
    pub dilation: [usize; 3],
    pub before: [isize; 3],
}

impl Window {
    pub fn of(g: &Geometry) -> Window {
        Window {
            size: g.size,
            positions: g.outputs(),
            taps: g.kernel,
            stride: g.stride,
            dilation: g.dilation,
            before: g.before.map(|n| n as isize),
        }
    }
}

/// How positions of a window become those of a transposed convolution's result; the shader has the formulas.
#[derive(Default)]
pub(in crate::ops) struct Spread {
    pub tap_step: [usize; 3],
    pub every: [usize; 3],
    pub phases: [usize; 3],
    pub kernel: [usize; 3],
    pub out_size: [usize; 3],
    pub lead: [usize; 3],
}

impl Product {
    /// Whether the direct way is the better one.
    pub fn is_narrow(&self) -> bool {
        self.rows <= SUITS_ROWS
    }

    /// Whether positions are as far from each other as taps along a line.
    pub fn slides(&self) -> bool {
        self.window.stride[2] == self.window.dilation[2]
    }

    /// Blocks of threads that compute results as dot products of two runs of positions.
    pub(super) fn dot_blocks(&self, cut: &Cut) -> usize {
        let [d, h, _] = self.window.taps;
        cut.col_blocks * d * h * self.channels * self.rows * self.groups * cut.splits
    }
}

/// How a product is cut.
pub(super) struct Cut {
    /// Of threads along the rows of a tile, or rows of a thread of the direct way.
    pub rows_each: usize,
    pub row_blocks: usize,
    pub col_blocks: usize,
    pub splits: usize,
    pub split_depth: usize,
}

impl Cut {
    /// Into parts of the steps, each a multiple of `unit`, so that there are enough of them.
    pub fn split(self, present: usize, enough: usize, depth: usize, unit: usize, least: usize) -> Cut {
        let wanted = enough.div_ceil(present.max(1)).min(depth / least).max(1);
        let split_depth = depth.div_ceil(wanted).next_multiple_of(unit).max(unit);
        Cut { splits: depth.div_ceil(split_depth).max(1), split_depth, ..self }
    }
}
