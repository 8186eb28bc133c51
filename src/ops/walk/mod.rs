//! Walking up to three operands of one shape together.

mod cuda;
mod wgpu;

pub use self::cuda::{MAX_INDEX, WALKERS, Word};
pub use self::wgpu::launch_view;

use crate::layout::Layout;

/// The most dimensions that are walked: those of a layout, and of patches taken out of one.
pub const MAX_DIMS: usize = 8;

/// How operands are walked: merged dimensions, and for each operand its strides in them. Both are also parameters of shaders
/// with `common/walk.wgsl`, eight words each.
#[derive(Clone, Copy)]
pub struct Walk {
    pub rank: usize,
    pub dims: [usize; MAX_DIMS],
    pub strides: [[usize; MAX_DIMS]; 3],
    /// The extent of the last dimension.
    pub inner: usize,
}

impl Walk {
    /// Whether an operand is one run of elements that begins at a multiple of four.
    pub fn is_run(&self, operand: usize, offset: usize) -> bool {
        self.rank == 1 && self.strides[operand][0] == 1 && offset.is_multiple_of(4)
    }

    /// Whether quads of a result that begins at `offset` lie in one row of the last dimension each: the constant
    /// `walk_quads` of `common/walk.wgsl`.
    pub fn has_quads(&self, offset: usize) -> bool {
        self.inner.is_multiple_of(4) && offset.is_multiple_of(4)
    }

    /// From where the operands lie; those that are absent do not hinder.
    pub fn new(layouts: [Option<Layout>; 3]) -> Walk {
        let Some(shape) = layouts[0].map(|l| l.shape) else { return Walk::of([[0; 4]; 0]) };
        Walk::of((0..shape.len()).map(|d| {
            let step = |i: usize| layouts[i].map_or(0, |l: Layout| l.strides[d]);
            [shape[d], step(0), step(1), step(2)]
        }))
    }

    /// From the dimensions, outermost first: the extent and the operands' strides of each.
    pub fn of(dims: impl IntoIterator<Item = [usize; 4]>) -> Walk {
        let mut w = Walk { rank: 0, dims: [1; MAX_DIMS], strides: [[0; MAX_DIMS]; 3], inner: 1 };
        for [n, steps @ ..] in dims.into_iter().filter(|&[n, ..]| n != 1) {
            let joins = w.rank > 0 && (0..3).all(|i| w.strides[i][w.rank - 1] == steps[i] * n);
            if joins {
                w.dims[w.rank - 1] *= n;
            } else {
                w.dims[w.rank] = n;
                w.rank += 1;
            }
            for (strides, step) in w.strides.iter_mut().zip(steps) {
                strides[w.rank - 1] = step;
            }
        }
        w.rank = w.rank.max(1);
        w.inner = w.dims[w.rank - 1];
        w
    }

    /// Where row `row` (all dimensions but the last) of an operand starts.
    pub fn row(&self, operand: usize, mut row: usize) -> usize {
        let mut at = 0;
        for d in (0..self.rank - 1).rev() {
            at += row % self.dims[d] * self.strides[operand][d];
            row /= self.dims[d];
        }
        at
    }
}
