//! How rows are given to teams of threads and columns to blocks: the host's side of `kernels/common/{rows,columns}.cuh`.

use super::{Call, Caps, Cuda};
use crate::backend::Launch;
use crate::error::Result;

/// Threads of a warp: larger teams are whole blocks.
const WARP: usize = 32;
/// Threads of a block whose teams are parts of warps.
const BLOCK: usize = 128;

/// A team of threads that works on a row.
#[derive(Clone, Copy, Debug)]
pub struct Team {
    /// Its threads, a power of two.
    pub lanes: usize,
    /// Values that each of them holds.
    held: usize,
}

impl Team {
    /// For that many rows of `cols` values, in parts of `part` neighbours, which is 1 where they cannot be read in vectors
    /// of 16 bytes.
    pub fn new(caps: &Caps, rows: usize, cols: usize, part: usize, most: usize) -> Team {
        // HELD and HELD_SINGLE of the kernels.
        Team::holding(if part > 1 { 16 } else { 8 }, caps, rows, cols, part, most)
    }

    /// The same where threads hold nothing beside the row.
    pub fn alone(caps: &Caps, rows: usize, cols: usize, part: usize, most: usize) -> Team {
        // HELD_ALONE and HELD_SINGLE of the kernels.
        Team::holding(if part > 1 { 4 * part } else { 8 }, caps, rows, cols, part, most)
    }

    /// A row is held by as few threads as can, unless there are so few rows that multiprocessors would idle; by `most`
    /// threads if it is longer than one tile.
    fn holding(held: usize, caps: &Caps, rows: usize, cols: usize, part: usize, most: usize) -> Team {
        // Four parts side by side fill the sectors that a load touches.
        let dense = cols.div_ceil(part).next_power_of_two().min(most);
        let mut lanes = cols.div_ceil(held).next_power_of_two().max(4).min(dense);
        let enough = caps.multiprocessors as usize * 1024;
        while lanes < dense && 2 * rows * lanes <= enough {
            lanes *= 2;
        }
        Team { lanes, held }
    }

    /// Values that a team holds at once.
    pub fn tile(self) -> usize {
        self.lanes * self.held
    }
}

/// The length of the segments that each of `rows` runs of `len` elements is cut into, so that there are `each` of them for
/// every multiprocessor: a multiple of `least`.
pub fn segment(caps: &Caps, len: usize, least: usize, rows: usize, each: usize) -> usize {
    let wanted = (caps.multiprocessors as usize * each / rows.max(1)).max(1);
    len.div_ceil(wanted).next_multiple_of(least).max(least)
}

/// How [outer, len, inner] is reduced over `len`.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    outer: usize,
    len: usize,
    inner: usize,
    /// Columns of a thread.
    part: usize,
    /// Threads of a block side by side.
    across: usize,
    segment: usize,
    /// Segments, at least one.
    pub segments: usize,
}

impl Columns {
    /// Threads of a block.
    const BLOCK: usize = 256;

    /// In segments, so that all multiprocessors are busy; `part` columns to a thread.
    pub fn new(caps: &Caps, outer: usize, len: usize, inner: usize, part: usize) -> Columns {
        let across = inner.div_ceil(part).next_power_of_two().min(32);
        let tiles = outer * inner.div_ceil(part * across);
        let segment = segment(caps, len, 16 * Columns::BLOCK / across, tiles, 8);
        Columns { outer, len, inner, part, across, segment, segments: len.div_ceil(segment).max(1) }
    }

    /// The same columns of `len` rows in one segment: the second pass, over what segments gave.
    pub fn whole(self, len: usize) -> Columns {
        Columns { len, segment: len.max(1), segments: 1, ..self }
    }
}

impl Call<'_> {
    /// Launches that many teams.
    ///
    /// # Errors
    /// As [`Call::launch_grid`].
    pub fn launch_teams(self, team: Team, count: usize) -> Result<()> {
        let block = if team.lanes > WARP { team.lanes } else { BLOCK };
        self.block(block).launch(count.div_ceil(block / team.lanes))
    }

    /// The next parameter: the struct `Columns`.
    pub fn columns(self, c: &Columns) -> Self {
        self.params(&[c.outer, c.len, c.inner, c.across, c.segment, c.segments])
    }

    /// Launches the blocks of columns.
    ///
    /// # Errors
    /// As [`Call::launch_grid`].
    pub fn launch_columns(self, c: &Columns) -> Result<()> {
        self.block(Columns::BLOCK).launch(c.outer * c.segments * c.inner.div_ceil(c.part * c.across))
    }
}

impl Launch<'_, Cuda> {
    /// The elements of 16 bytes of an operand, if all of these operands and results have rows of `cols` elements that begin
    /// at multiples of 16 bytes and consist of whole such parts; else 1. The first operand is the one that counts.
    pub fn part(&self, cols: usize, inputs: &[usize], outputs: &[usize]) -> usize {
        let part = inputs.first().and_then(|&i| self.inputs[i].as_ref()).map_or(4, |arg| 16 / arg.dtype.bytes());
        let aligned = inputs.iter().all(|&i| self.in_vectors(i)) && outputs.iter().all(|&i| self.out_in_vectors(i));
        if aligned && cols.is_multiple_of(part) { part } else { 1 }
    }
}

/// The table of an op with a kernel for each float dtype of what it streams, its field `dtype`:
/// `float_rows![("softmax", launch).takes(&[Takes::Rows])]`.
macro_rules! float_rows {
    (($op:literal, $launch:expr) $(.$with:ident($($arg:expr),*))*) => {
        &[
            $crate::backend::cuda::float_rows!(@ $op, "bf16", BF16, $launch)$(.$with($($arg),*))*,
            $crate::backend::cuda::float_rows!(@ $op, "f16", F16, $launch)$(.$with($($arg),*))*,
            $crate::backend::cuda::float_rows!(@ $op, "f32", F32, $launch)$(.$with($($arg),*))*,
        ]
    };
    (@ $op:literal, $name:literal, $dtype:ident, $launch:expr) => {
        $crate::backend::Kernel::new(
            concat!($op, "_", $name, "__sm80"),
            |op, _| $crate::error::Unsupported::require($name, op.dtype == $crate::DType::$dtype),
            $launch,
        )
    };
}
pub(crate) use float_rows;
