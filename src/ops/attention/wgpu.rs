//! Attention in WGSL: `shaders/attention.wgsl` for blocks of queries; `attention_split.wgsl` and `attention_join.wgsl` for a
//! few, over parts of the keys.

use super::Attention;
use crate::backend::wgpu::{Caps, Wgpu, row_lanes, shader::shader};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::Op;
use crate::ops::attend::wgpu::{Tiles, in_pieces, strides};

const TAKES: &[Takes] = &[Takes::Rows; 4];

impl Kernels<Wgpu> for Attention {
    const KERNELS: &'static [Kernel<Wgpu, Self>] = &[
        Kernel::new("attention_split__wgsl", split_supports, split)
            .takes(TAKES)
            .suits(split_suits)
            .workspace(parts_bytes),
        Kernel::new("attention__wgsl", |op, caps| op.attend().fits(11, caps), launch).takes(TAKES),
    ];
}

/// The place of the bias among the operands.
const BIAS: usize = 3;

fn launch(kernel: &Kernel<Wgpu, Attention>, op: &Attention, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let attend = op.attend();
    let tiles = Tiles::new(op.head_dim, 8, 4);
    let (rows, heads) = (attend.rows_per_head(), op.batch * op.heads_kv);
    let blocks = rows.div_ceil(tiles.rows());
    let shader = shader!("attention", "dtype", "math", "faults", "attend", "attend_tile", "row_out");
    let call = attend.describe(l.call(kernel.name, shader), l, BIAS);
    tiles
        .constants(call)
        .dtype("dtype", op.dtype)
        .dtype("out_dtype", op.out)
        .constant("has_lse", op.lse)
        .constant("whole", (0..3).all(|i| in_pieces(l.layout(i), 4)))
        .bind(l.input(0))
        .bind(l.input(1))
        .bind(l.input(2))
        .bind(l.output(0))
        .bind(l.output(1))
        .faults(Attention::NAME)
        .params(&strides(l.layout(0)))
        .params(&strides(l.layout(1)))
        .params(&strides(l.layout(2)))
        .params(&[rows, blocks, tiles.passes, heads])
        .dispatch_many(heads * tiles.passes * blocks)
}

/// Rows (queries of all heads of a group) for each head of keys up to which parts of the keys are better than blocks of
/// queries, which hold at least so many.
const SPLIT_ROWS: usize = 16;
/// Where fewer heads than this would be all that the blocks' grid has, parts are better for some more rows.
const FEW_HEADS: usize = 64;

fn split_supports(op: &Attention, caps: &Caps) -> Result<(), Unsupported> {
    op.attend().fits(10, caps)?;
    Unsupported::at_most("queries for each head of keys", op.attend().rows_per_head(), 4 * SPLIT_ROWS)?;
    Unsupported::at_most("head_dim", op.head_dim, 256u32)
}

fn split_suits(op: &Attention, _: &Caps) -> bool {
    // `supports` bounds the rows.
    op.attend().rows_per_head() <= SPLIT_ROWS || op.batch * op.heads_kv < FEW_HEADS
}

/// How the work is divided.
struct Split {
    /// Rows of a workgroup, and the blocks that they make.
    rows_each: usize,
    blocks: usize,
    /// Keys of a part, and the parts that they make.
    keys: usize,
    parts: usize,
}

impl Split {
    fn new(op: &Attention) -> Split {
        let rows = op.attend().rows_per_head();
        let blocks = rows.div_ceil(if op.head_dim <= 128 { 8 } else { 4 });
        let workgroups = |keys: usize| op.batch * op.heads_kv * blocks * op.len_k.div_ceil(keys);
        // Half as many keys where workgroups are too few for a large adapter.
        let keys = if workgroups(256) < 512 { 128 } else { 256 };
        Split { rows_each: rows.div_ceil(blocks.max(1)), blocks, keys, parts: op.len_k.div_ceil(keys) }
    }
}

fn parts_bytes(op: &Attention, _: &Caps) -> usize {
    4 * op.batch * op.heads_kv * Split::new(op).parts * op.attend().rows_per_head() * (op.head_dim + 2)
}

fn split(kernel: &Kernel<Wgpu, Attention>, op: &Attention, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let (attend, split) = (op.attend(), Split::new(op));
    let (rows, heads) = (attend.rows_per_head(), op.batch * op.heads_kv);
    let per_vector = 16 / op.dtype.bytes();
    attend
        .describe(l.call(kernel.name, shader!("attention_split", "dtype", "math", "faults", "attend")), l, BIAS)
        .dtype("dtype", op.dtype)
        .constant("split_keys", split.keys as u32)
        .constant("rows_each", split.rows_each as u32)
        .constant("value_lanes", op.head_dim.div_ceil(per_vector).next_power_of_two() as u32)
        .constant("whole", [1, 2].into_iter().all(|i| in_pieces(l.layout(i), per_vector)))
        .bind(l.input(0))
        .bind(l.input(1))
        .bind(l.input(2))
        .bind(l.scratch())
        .faults(Attention::NAME)
        .params(&strides(l.layout(0)))
        .params(&strides(l.layout(1)))
        .params(&strides(l.layout(2)))
        .params(&[rows, split.blocks, split.parts, heads])
        .dispatch_many(heads * split.blocks * split.parts)?;
    let results = op.batch * op.len_q * op.heads_q;
    l.call(kernel.name, shader!("attention_join", "dtype", "math", "rows", "row_out"))
        .constant("lanes", row_lanes(op.head_dim))
        .dtype("out_dtype", op.out)
        .constant("has_lse", op.lse)
        .bind(l.scratch().read())
        .bind(l.output(0))
        .bind(l.output(1))
        .params(&[results, op.head_dim, op.len_q, op.heads_q, op.heads_kv, split.parts])
        .dispatch_many(results)
}
