// One of the tensors that are put one behind the other, written to its place in the result.
//
// Bindings: x [outer, part, inner] with contiguous rows at any distances; out [outer, all parts, inner] contiguous, both of
// `out_dtype`.
//
// Algorithm: what an operand contributes to one outer index is one run of the result.
//
// Budget: about 20 registers, no workgroup memory. Bound: memory.

struct Params {
    at: vec4<u32>,
    runs: u32, run_len: u32, inner: u32, outer_stride: u32,
    row_stride: u32, start: u32, distance: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<atomic<u32>>;
override out_dtype: u32 = 0u;
// Whether the rows of one outer index lie one behind the other.
override x_run: bool = true;

fn run_begin(run: u32) -> u32 { return p.at.y + run * p.distance + p.start; }

fn run_bits(run: u32, i: u32) -> u32 {
    var at = p.at.x + run * p.outer_stride + i;
    if !x_run { at += i / p.inner * (p.row_stride - p.inner); }
    return bits_in(out_dtype, x[vector_of(out_dtype, at)][word_of(out_dtype, at)], at);
}
