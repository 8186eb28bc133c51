//! Walking up to three operands of one shape together.

use crate::layout::{Layout, MAX_RANK};

/// How operands are walked: merged dimensions, and for each operand its strides in them.
pub struct Walk {
    pub rank: usize,
    pub dims: [usize; MAX_RANK],
    pub strides: [[usize; MAX_RANK]; 3],
    /// The extent of the last dimension.
    pub inner: usize,
}

impl Walk {
    /// As parameters of a shader with `common/walk.wgsl`: the merged extents or one operand's strides, eight words.
    pub fn words(of: &[usize; MAX_RANK]) -> [usize; 8] {
        std::array::from_fn(|d| of.get(d).copied().unwrap_or(0))
    }

    /// Whether an operand is one run of elements that begins at a multiple of four.
    pub fn is_run(&self, operand: usize, offset: usize) -> bool {
        self.rank == 1 && self.strides[operand][0] == 1 && offset.is_multiple_of(4)
    }

    /// From where the operands lie; those that are absent do not hinder.
    pub fn new(layouts: [Option<Layout>; 3]) -> Walk {
        let mut w = Walk { rank: 0, dims: [1; MAX_RANK], strides: [[0; MAX_RANK]; 3], inner: 1 };
        let Some(shape) = layouts[0].map(|l| l.shape) else { return w };
        for (d, &n) in shape.iter().enumerate().filter(|&(_, &n)| n != 1) {
            let step = |i: usize| layouts[i].map_or(0, |l: Layout| l.strides[d]);
            let joins = w.rank > 0 && (0..3).all(|i| w.strides[i][w.rank - 1] == step(i) * n);
            if joins {
                w.dims[w.rank - 1] *= n;
            } else {
                w.dims[w.rank] = n;
                w.rank += 1;
            }
            for i in 0..3 {
                w.strides[i][w.rank - 1] = step(i);
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
