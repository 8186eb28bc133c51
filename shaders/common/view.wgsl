// A view that copies and casts read: x with any strides, and the parameters that tell its merged dimensions (`ops::walk`). A
// view that is one run from an aligned place is read by whole vectors, any other one element by element. Needs walk.wgsl;
// the module goes with flat.wgsl.

struct Params {
    at: vec4<u32>,
    total: u32, rank: u32, pad: vec2<u32>,
    dims: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;
override x_dtype: u32 = 0u;
override out_dtype: u32 = 0u;
// Whether x is one run from an aligned place.
override x_run: bool = true;

fn out_at() -> u32 { return p.at.y; }

fn element(i: u32) -> u32 { return bits_in(x_dtype, x[vector_of(x_dtype, i)][word_of(x_dtype, i)], i); }

// Elements i to i + 3 of the view as bits.
fn view_bits(i: u32) -> vec4<u32> {
    if x_run { let at = p.at.x + i; return bits4(x_dtype, x[vector_of(x_dtype, at)], at); }
    let at = p.at.x + walk(i, p.total, p.rank, p.dims, p.strides);
    return vec4(element(at.x), element(at.y), element(at.z), element(at.w));
}
