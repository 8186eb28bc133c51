// New rows written behind those that a cache holds.
//
// Bindings: x [batch, len, width] with contiguous rows at any distances, of `x_dtype`; index [batch] u32; out, the cache
// [batch, capacity, width], of `out_dtype`.
//
// Algorithm: the rows of a sequence are one run of the cache. An index that is too far leaves its sequence as it is.
//
// Budget: about 20 registers, no workgroup memory. Bound: memory.

struct Params {
    at: vec4<u32>,
    runs: u32, run_len: u32, width: u32, capacity: u32,
    batch_stride: u32, row_stride: u32, limit: u32, fault_op: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> faults: Faults;
override x_dtype: u32 = 0u;
override out_dtype: u32 = 0u;

fn run_begin(run: u32) -> u32 {
    let row = index[p.at.y + run];
    if row >= p.limit { fault(row, run, p.limit); return NOWHERE; }
    return p.at.z + (run * p.capacity + row) * p.width;
}

fn run_bits(run: u32, i: u32) -> u32 {
    let row = i / p.width;
    let at = p.at.x + run * p.batch_stride + row * p.row_stride + i - row * p.width;
    let word = x[vector_of(x_dtype, at)][word_of(x_dtype, at)];
    if x_dtype == out_dtype { return bits_in(x_dtype, word, at); }
    return encode(out_dtype, decode(x_dtype, word, at));
}
