//! What the CUDA kernels of attention share: how a problem is told to `kernels/common/attend.cuh`.

use super::Attend;
use crate::backend::Launch;
use crate::backend::cuda::{Call, Cuda};
use crate::error::{Result, Unsupported};

/// Whether places of queries and keys can be computed in 32 bits.
pub fn fits(attend: &Attend) -> Result<(), Unsupported> {
    Unsupported::at_most("len_q", attend.len_q, 1usize << 29)?;
    Unsupported::at_most("len_k", attend.len_k, 1usize << 29)?;
    Unsupported::at_most("queries for each head of keys", attend.rows_per_head(), 1usize << 31)
}

/// The next parameter: the struct `Attend`. Operand number `first` is the bias, and the other masks follow it.
pub fn attend<'a>(call: Call<'a>, attend: &Attend, l: &Launch<'a, Cuda>, first: usize) -> Call<'a> {
    let strides = if attend.bias { l.layout(first).strides } else { Default::default() };
    let one = |of: usize, stride: usize| if of == 1 { 0 } else { stride };
    (first..first + 5)
        .fold(call, |call, i| call.pointer(l.input(i)))
        .param_u64(one(attend.bias_batch, strides[0]))
        .param_u64(one(attend.bias_heads, strides[1]))
        .param_u64(strides[2])
        .params(&[attend.len_q, attend.len_k, attend.heads_q, attend.heads_kv])
        .params(&[attend.heads_q / attend.heads_kv, attend.head_dim, usize::from(attend.causal)])
        // A window of all keys is as good as any larger one.
        .param(attend.window.min(attend.len_k))
        .param_f32(attend.scale())
        .param_f32(attend.scale_log2())
}

/// The next parameters: a struct `Strides` for each of these operands [batch, len, heads, head_dim].
pub fn strides<'a>(call: Call<'a>, l: &Launch<'a, Cuda>, operands: &[usize]) -> Call<'a> {
    operands.iter().flat_map(|&i| l.layout(i).strides[..3].to_vec()).fold(call, Call::param_u64)
}

/// Whether all rows of these operands begin at multiples of 16 bytes and consist of such pieces.
pub fn whole(attend: &Attend, l: &Launch<'_, Cuda>, operands: &[usize]) -> bool {
    operands.iter().all(|&i| {
        let bytes = l.inputs[i].as_ref().map_or(16, |arg| arg.dtype.bytes());
        l.in_vectors(i) && (attend.head_dim * bytes).is_multiple_of(16)
    })
}
