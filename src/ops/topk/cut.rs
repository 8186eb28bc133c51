//! How GPUs find the largest values of long rows: in segments, then among what those leave.

use super::TopK;

/// Ranks that a block of threads finds: RANKS of the kernels.
pub const RANKS: usize = 1024;

/// The cut of a row.
pub struct Cut {
    pub segment: usize,
    pub segments: usize,
    /// What the segments leave of a row: k values each, the last one what it has.
    pub kept: usize,
}

impl Cut {
    /// Into segments of this length, at least four times k, if that makes several.
    pub fn new(op: &TopK, segment: usize) -> Cut {
        if op.k > RANKS || segment >= op.cols {
            return Cut { segment: op.cols, segments: 1, kept: 0 };
        }
        let segments = op.cols.div_ceil(segment);
        let last = op.cols - (segments - 1) * segment;
        Cut { segment, segments, kept: (segments - 1) * op.k + last.min(op.k) }
    }
}
