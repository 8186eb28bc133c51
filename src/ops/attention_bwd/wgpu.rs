//! The gradients of attention in WGSL: `shaders/attention_bwd_delta.wgsl`, then the functions of `attention_bwd.wgsl`.

use super::AttentionBwd;
use crate::backend::wgpu::{Caps, Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::Op;
use crate::ops::attend::wgpu::{Tiles, in_pieces, strides};

const ROWS: Takes = Takes::Rows;
const TAKES: &[Takes] = &[ROWS, ROWS, ROWS, ROWS, Takes::Contiguous, ROWS, ROWS];

impl Kernels<Wgpu> for AttentionBwd {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("attention_bwd__wgsl", |op, caps| op.attend().fits(12, caps), launch)
            .takes(TAKES)
            .workspace(ends_bytes)];
}

/// Places of the operands.
const OUT: usize = 3;
const LSE: usize = 4;
const DOUT: usize = 5;
const BIAS: usize = 6;
const LENS_K: usize = 10;
const DLSE: usize = 11;

/// The log-sum-exp in base 2 and delta of each query.
fn ends_bytes(op: &AttentionBwd, _: &Caps) -> usize {
    8 * op.batch * op.heads_q * op.len_q
}

fn launch(kernel: &Kernel<Wgpu, AttentionBwd>, op: &AttentionBwd, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let attend = op.attend();
    let rows = op.batch * op.len_q * op.heads_q;
    l.call(kernel.name, shader!("attention_bwd_delta", "dtype", "math", "faults"))
        .dtype("out_dtype", op.out)
        .constant("head_dim", op.head_dim as u32)
        .constant("has_dlse", op.dlse)
        .constant("bounded", op.lens_k)
        .constant("whole", [OUT, DOUT].into_iter().all(|i| in_pieces(l.layout(i), 4)))
        .bind(l.input(OUT))
        .bind(l.input(DOUT))
        .bind(l.input(LSE))
        .bind(l.input(DLSE))
        .bind(l.input(LENS_K))
        .bind(l.scratch())
        .faults(AttentionBwd::NAME)
        .params(&strides(l.layout(OUT)))
        .params(&strides(l.layout(DOUT)))
        .params(&[rows, op.len_q, op.heads_q, op.len_k])
        .dispatch_many(rows.div_ceil(32))?;

    // Result `i` by one of the functions, whose own side has `blocks` blocks.
    let call = |entry: &'static str, i: usize, tiles: Tiles, blocks: usize| {
        let call = l.call(kernel.name, shader!("attention_bwd", "dtype", "math", "attend", "attend_tile")).entry(entry);
        tiles
            .constants(attend.describe(call, l, BIAS))
            .dtype("dtype", op.dtype)
            .constant("whole", [0, 1, 2, DOUT].into_iter().all(|i| in_pieces(l.layout(i), 4)))
            .constant("own_keys", entry == "keys")
            .bind(l.input(0))
            .bind(l.input(1))
            .bind(l.input(2))
            .bind(l.input(DOUT))
            .bind(l.scratch().read())
            .bind(l.output(i))
            .params(&strides(l.layout(0)))
            .params(&strides(l.layout(1)))
            .params(&strides(l.layout(2)))
            .params(&strides(l.layout(DOUT)))
            .params(&[blocks, op.len_k.div_ceil(Tiles::OTHERS), tiles.passes, op.batch, op.bias_batch, op.bias_heads])
    };
    let one_sum = Tiles::new(op.head_dim, 8, 4);
    let blocks = op.len_q.div_ceil(one_sum.rows());
    call("queries", 0, one_sum, blocks).dispatch_many(op.batch * op.heads_q * one_sum.passes * blocks)?;
    let two_sums = Tiles::new(op.head_dim, 16, 2);
    let blocks = op.len_k.div_ceil(two_sums.rows());
    call("keys", 1, two_sums, blocks)
        .bind(l.output(2))
        .dispatch_many(op.batch * op.heads_kv * two_sums.passes * blocks)?;
    if op.dbias {
        let scores = Tiles::new(1, 8, 1);
        let blocks = op.len_q.div_ceil(scores.rows());
        let others = op.len_k.div_ceil(Tiles::OTHERS);
        call("bias_of", 3, scores, blocks).dispatch_many(op.bias_batch * op.bias_heads * blocks * others)?;
    }
    Ok(())
}
