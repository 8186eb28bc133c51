//! What the WGSL kernels of attention share: how a problem is told to `shaders/common/attend.wgsl`, and the shape of the
//! tiles of `shaders/common/attend_tile.wgsl`.

use super::Attend;
use crate::backend::Launch;
use crate::backend::wgpu::{Call, Caps, Wgpu};
use crate::error::{Result, Unsupported};
use crate::layout::Layout;

impl Attend {
    /// Whether places of queries and keys can be computed in 32 bits, and a shader can see `bindings` buffers.
    pub fn fits(&self, bindings: u32, caps: &Caps) -> Result<(), Unsupported> {
        Unsupported::at_most("storage buffers of a shader", bindings, caps.bindings)?;
        Unsupported::at_most("len_q", self.len_q, 1usize << 29)?;
        Unsupported::at_most("len_k", self.len_k, 1usize << 29)
    }

    /// Begins a call: the masks as its first bindings, of which operand number `first` is the bias, and its first parameters.
    pub fn describe<'a>(&self, call: Call<'a>, l: &Launch<'a, Wgpu>, first: usize) -> Call<'a> {
        let bias = if self.bias { strides(l.layout(first)) } else { [0; 4] };
        let one = |of: usize, stride: usize| if of == 1 { 0 } else { stride };
        let call = (first..first + 5).fold(call, |call, i| call.bind(l.input(i)));
        call.constant("causal", self.causal)
            .constant("windowed", self.window > 0)
            .constant("biased", self.bias)
            .constant("segmented", self.segments)
            .constant("padded", self.key_padding)
            .constant("bounded", self.lens_k)
            .constant("head_dim", self.head_dim as u32)
            .params(&[self.len_q, self.len_k, self.heads_q, self.heads_kv])
            // A window of all keys is as good as any larger one.
            .params(&[self.heads_q / self.heads_kv, self.window.min(self.len_k)])
            .param_f32(self.scale())
            .param_f32(self.scale_log2())
            .params(&[one(self.bias_batch, bias[0]), one(self.bias_heads, bias[1]), bias[2], 0])
    }
}

/// The strides of batch, length and heads (of a bias: batch, heads and queries), as a shader takes them.
pub fn strides(layout: &Layout) -> [usize; 4] {
    [layout.strides[0], layout.strides[1], layout.strides[2], 0]
}

/// Whether every row begins at a multiple of `n` elements and consists of such pieces.
pub fn in_pieces(layout: &Layout, n: usize) -> bool {
    let rows = layout.shape.iter().zip(layout.strides()).take(3);
    layout.offset.is_multiple_of(n)
        && layout.shape.last().is_some_and(|d| d.is_multiple_of(n))
        && rows.into_iter().all(|(&len, stride)| len == 1 || stride.is_multiple_of(n))
}

/// The shape of the tiles.
#[derive(Clone, Copy)]
pub struct Tiles {
    across: usize,
    quads: usize,
    /// Workgroups that share the columns of one block.
    pub passes: usize,
}

impl Tiles {
    /// For results of `head_dim` columns, with at least `across` invocations for a row that hold at most `quads` quads each.
    pub fn new(head_dim: usize, across: usize, quads: usize) -> Tiles {
        let all = head_dim.div_ceil(4);
        let across = [8, 16].into_iter().find(|&n| n >= across && n * quads >= all).unwrap_or(32);
        let quads = all.div_ceil(across).min(quads);
        Tiles { across, quads, passes: all.div_ceil(across * quads) }
    }

    /// Rows of the own side.
    pub fn rows(&self) -> usize {
        4 * 128 / self.across
    }

    /// Rows of the other side.
    pub const OTHERS: usize = 32;

    pub fn constants<'a>(&self, call: Call<'a>) -> Call<'a> {
        call.constant("across", self.across as u32).constant("quads", self.quads as u32)
    }
}
