//! Attention on the CPU: two algorithms, each for three instruction sets.
//!
//! - `flash` ([`flash`]): blocks of queries against blocks of keys, for anything but a few queries. Bound: FMA.
//! - `split` ([`split`]): up to sixteen queries per key head, keys and values streamed once, split over threads by
//!   keys; for decoding. Bound: memory.
//!
//! This file holds what both share: operands by row, and what a query may see.

mod block;
mod flash;
mod split;
mod tile;

use super::Attention;
use crate::backend::cpu::Cpu;
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::Elem;
use crate::error::{Error, Result};
use crate::isa_rows;
use crate::layout::Takes;
use crate::ops::with_float;
use std::ops::Range;

const TAKES: &[Takes] = &[Takes::Rows, Takes::Rows, Takes::Rows, Takes::Rows];

impl Kernels<Cpu> for Attention {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![
        ("attention_split", split_supports, split_launch).takes(TAKES).suits(split::suits).workspace(split::workspace),
        ("attention_flash", flash_supports, flash_launch).takes(TAKES).workspace(flash::workspace),
    ];
}

use flash::{launch as flash_launch, supports as flash_supports};
use split::{launch as split_launch, supports as split_supports};

/// An operand [batch, len, heads, head_dim] with contiguous rows.
#[derive(Clone, Copy)]
struct Rows<'a, T> {
    data: &'a [T],
    /// Of batch, len and heads.
    strides: [usize; 3],
    head_dim: usize,
}

impl<'a, T: Elem> Rows<'a, T> {
    fn new(op: &Attention, l: &Launch<'a, Cpu>, i: usize) -> Rows<'a, T> {
        let s = l.layout(i).strides;
        Rows { data: l.input(i), strides: [s[0], s[1], s[2]], head_dim: op.head_dim }
    }

    /// Row `i` of head `h`.
    #[inline(always)]
    fn row(&self, b: usize, i: usize, h: usize) -> &'a [T] {
        &self.from(b, i, h)[..self.head_dim]
    }

    /// Everything from row `i` of head `h` on.
    #[inline(always)]
    fn from(&self, b: usize, i: usize, h: usize) -> &'a [T] {
        &self.data[b * self.strides[0] + i * self.strides[1] + h * self.strides[2]..]
    }
}

/// What decides which keys a query sees and what is added to its scores.
#[derive(Clone, Copy)]
struct Masks<'a> {
    op: &'a Attention,
    bias: Option<(&'a [f32], [usize; 3])>,
    ids: Option<(&'a [u32], &'a [u32])>,
    padding: Option<&'a [u8]>,
    lens: Option<&'a [u32]>,
}

impl<'a> Masks<'a> {
    /// # Errors
    /// An entry of `lens_k` is larger than `len_k`.
    fn new(op: &'a Attention, l: &Launch<'a, Cpu>) -> Result<Masks<'a>> {
        let lens = l.optional::<u32>(7);
        if let Some(index) = lens.and_then(|lens| lens.iter().position(|&n| n as usize > op.len_k)) {
            let value = u64::from(lens.map_or(0, |lens| lens[index]));
            return Err(Error::Index { op: "attention", value, index, limit: op.len_k as u64 + 1 });
        }
        Ok(Masks {
            op,
            bias: l.optional::<f32>(3).map(|bias| {
                let s = l.layout(3).strides;
                (bias, [if op.bias_batch == 1 { 0 } else { s[0] }, if op.bias_heads == 1 { 0 } else { s[1] }, s[2]])
            }),
            ids: l.optional(4).zip(l.optional(5)),
            padding: l.optional(6),
            lens,
        })
    }

    /// The keys of a sequence that exist.
    fn keys(&self, b: usize) -> usize {
        self.lens.map_or(self.op.len_k, |lens| lens[b] as usize)
    }

    /// The keys that query `i` sees by its place.
    fn visible(&self, b: usize, i: usize) -> Range<usize> {
        self.op.visible(i, self.keys(b))
    }

    /// The bias of the scores of query `i`, one for each key.
    fn bias(&self, b: usize, h: usize, i: usize) -> Option<&'a [f32]> {
        self.bias.map(|(bias, s)| &bias[b * s[0] + h * s[1] + i * s[2]..][..self.op.len_k])
    }

    /// The segment of query `i`, and those of the keys.
    fn ids(&self, b: usize, i: usize) -> Option<(u32, &'a [u32])> {
        self.ids.map(|(q, k)| (q[b * self.op.len_q + i], &k[b * self.op.len_k..][..self.op.len_k]))
    }

    /// For each key whether it is there.
    fn padding(&self, b: usize) -> Option<&'a [u8]> {
        self.padding.map(|p| &p[b * self.op.len_k..][..self.op.len_k])
    }
}

/// Queries that share a head of keys: those of all heads of a group.
fn rows_per_head(op: &Attention) -> usize {
    op.heads_q / op.heads_kv * op.len_q
}

/// The natural logarithm of `l · 2^m`; `-inf` for nothing, where `m` is `-inf` and `l` is 0.
fn log_sum_exp(m: f32, l: f32) -> f32 {
    (f64::from(m) * std::f64::consts::LN_2 + f64::from(l).ln()) as f32
}
