// Adds up the partial sums of a product whose k was split, and does what follows them.
//
// Bindings: sums [splits, rows, cols] f32, with `gated` [splits, rows, 2·cols]: those of the gate and of the other matrix;
// bias, residual; out [rows, cols], contiguous, of `out_dtype`.
//
// Algorithm: an invocation computes the elements of 16 bytes of the result, splits in their order.
//
// Budget: about 30 registers, no workgroup memory. Bound: memory (the cache, where sums come from just written).

struct Params { at: vec4<u32>, total: u32, cols: u32, splits: u32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read> residual: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<u32>>;
override out_dtype: u32 = 0u;

fn bias_begin() -> u32 { return p.at.y; }
fn residual_begin() -> u32 { return p.at.z; }
fn out_at() -> u32 { return p.at.w; }

fn sum(begin: vec4<u32>, step: u32) -> vec4<f32> {
    var x = vec4(0.0);
    for (var s = 0u; s < p.splits; s++) {
        let at = begin + p.at.x + s * step;
        x += vec4(sums[at.x], sums[at.y], sums[at.z], sums[at.w]);
    }
    return x;
}

fn quad_bits(i: u32) -> vec4<u32> {
    let places = min(vec4(i) + vec4(0u, 1u, 2u, 3u), vec4(p.total - 1u));
    let columns = places % vec4(p.cols);
    if !gated { return encode4(out_dtype, finished(columns, places, sum(places, p.total), vec4(0.0))); }
    let begin = 2u * (places - columns) + columns;
    let ups = sum(begin + p.cols, 2u * p.total);
    return encode4(out_dtype, finished(columns, places, sum(begin, 2u * p.total), ups));
}
