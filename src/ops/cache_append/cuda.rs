//! Appending to a cache in CUDA: `kernels/cache_append.cu`.

use super::CacheAppend;
use crate::backend::cuda::{Call, Caps, Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::Op;
use crate::ops::walk::{WALKERS, Walk};

impl Kernels<Cuda> for CacheAppend {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        Kernel::new("cache_append_any__sm80", as_they_are, launch_as_they_are).takes(&[Takes::Rows]),
        Kernel::new("cache_append_f32__sm80", rounded, launch_rounded).takes(&[Takes::Rows]),
    ];
}

fn as_they_are(op: &CacheAppend, _: &Caps) -> Result<(), Unsupported> {
    Unsupported::require("rows of the cache's dtype", op.dtype == op.cache)
}

fn rounded(op: &CacheAppend, _: &Caps) -> Result<(), Unsupported> {
    Unsupported::require("rows of f32 to a cache of 16 bits", op.dtype != op.cache)
}

/// Elements of a unit, and units of a thread, of rows that are rounded.
const QUAD: usize = 4;
const UNITS: usize = 4;

/// Operands, result, and `Sequences` of so many blocks each.
fn begin<'a>(k: &Kernel<Cuda, CacheAppend>, op: &CacheAppend, l: &Launch<'a, Cuda>, blocks: usize) -> Call<'a> {
    let row_bytes = op.width * op.cache.bytes();
    l.call(k.name, ptx!("cache_append"))
        .block(WALKERS)
        .pointer(l.input(0))
        .pointer(l.input(1))
        .pointer(l.output(0))
        .param_u64(l.layout(0).strides[0] * op.dtype.bytes())
        .param_u64(op.capacity * row_bytes)
        .param_u64(row_bytes)
        .divisor(blocks)
        .param(op.capacity - op.len + 1)
}

/// The rows of a sequence, and its run of the cache.
fn sequence(op: &CacheAppend, l: &Launch<'_, Cuda>) -> Walk {
    Walk::of([[op.len, l.layout(0).strides[1], op.width, 0], [op.width, 1, 1, 0]])
}

fn launch_as_they_are(k: &Kernel<Cuda, CacheAppend>, op: &CacheAppend, l: &mut Launch<'_, Cuda>) -> Result<()> {
    // Words must fit wherever a sequence begins: an address with the lowest bits of all.
    let bytes = op.dtype.bytes();
    let x = l.input(0) | (l.layout(0).strides[0] * bytes) as u64;
    let out = l.output(0) | (op.width * bytes) as u64;
    let (walk, word) = sequence(op, l).in_words([x, out], bytes);
    let blocks = word.blocks(walk.count());
    walk.of_words(begin(k, op, l, blocks)).param(word.0).faults(CacheAppend::NAME).launch(op.batch * blocks)
}

fn launch_rounded(k: &Kernel<Cuda, CacheAppend>, op: &CacheAppend, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let (walk, bytes) = (sequence(op, l), op.dtype.bytes());
    let x = l.input(0) | (l.layout(0).strides[0] * bytes) as u64;
    let out = l.output(0) | (op.width * op.cache.bytes()) as u64;
    let units = out.is_multiple_of((QUAD * op.cache.bytes()) as u64);
    let blocks = walk.count().div_ceil(WALKERS * QUAD * UNITS);
    walk.of_units(begin(k, op, l, blocks), &[x], bytes, QUAD, units)
        .dtype(op.cache)
        .faults(CacheAppend::NAME)
        .launch(op.batch * blocks)
}
