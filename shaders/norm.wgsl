// Row normalisation: layer norm and rms norm, with residual, weight and bias, and adaptive modulation.
//
// Bindings: x [rows, cols] of `x_dtype`, residual [rows, cols], scale and shift [groups, cols] f32 with contiguous rows at
// any distance; weight and bias [cols] f32; out of `out_dtype` and sum f32, both contiguous.
//
// Algorithm: a workgroup owns a row and goes over it three times (rms norm: two): the mean; the sum of (x - mean)², so
// that no digits are lost where the mean is large; the results. Statistics read four elements at a time. The later times a
// row comes from the cache. x + residual is computed each time anew and stored with the results. Words of the result are
// written by one invocation each, neighbours by neighbours.
//
// Budget: 4 bytes of workgroup memory per invocation, about 30 registers: full occupancy. Bound: memory (one read from
// DRAM, one write; about 10 operations for each element). A workgroup has an invocation for four elements, 32 to 256: a
// short row is the work of one subgroup.

struct Params {
    at: array<vec4<u32>, 2>,
    rows: u32, cols: u32, group_rows: u32, eps: f32,
    x_stride: u32, residual_stride: u32, scale_stride: u32, shift_stride: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> scale: array<f32>;
@group(0) @binding(5) var<storage, read> shift: array<f32>;
@group(0) @binding(6) var<storage, read_write> out: array<atomic<u32>>;
@group(0) @binding(7) var<storage, read_write> sum: array<f32>;
override x_dtype: u32 = 0u;
override out_dtype: u32 = 0u;
override centred: bool = false;
override has_weight: bool = false;
override has_bias: bool = false;
override has_residual: bool = false;
override modulated: bool = false;
// Whether rows of x and residual begin at multiples of four elements.
override quads: bool = true;

// An element of x at i, with the residual's at r.
fn value(i: u32, r: u32) -> f32 {
    var v = decode(x_dtype, x[vector_of(x_dtype, i)][word_of(x_dtype, i)], i);
    if has_residual { v += residual[r >> 2u][r & 3u]; }
    return v;
}

// Elements j to j + 3 of the row that begins at i and r. Those beyond its end may be anything.
fn quad(i: u32, r: u32, j: u32) -> vec4<f32> {
    if quads {
        var v = decode4(x_dtype, x[vector_of(x_dtype, i + j)], i + j);
        if has_residual { v += residual[(r + j) >> 2u]; }
        return v;
    }
    let k = min(vec4(j) + vec4(0u, 1u, 2u, 3u), vec4(p.cols - 1u));
    return vec4(value(i + k.x, r + k.x), value(i + k.y, r + k.y), value(i + k.z, r + k.z), value(i + k.w, r + k.w));
}
fn inside(j: u32) -> vec4<bool> { return vec4(j) + vec4(0u, 1u, 2u, 3u) < vec4(p.cols); }

fn row(index: u32, lane: u32) {
    if index >= p.rows { return; }
    let i = p.at[0].x + index * p.x_stride;
    let r = p.at[0].w + index * p.residual_stride;
    let count = f32(p.cols);
    var mean = 0.0;
    if centred {
        var all = vec4(0.0);
        for (var j = 4u * lane; j < p.cols; j += 4u * lanes) { all += select(vec4(0.0), quad(i, r, j), inside(j)); }
        mean = sum_all(all.x + all.y + all.z + all.w, lane) / count;
    }
    var squares = vec4(0.0);
    for (var j = 4u * lane; j < p.cols; j += 4u * lanes) {
        let d = select(vec4(0.0), quad(i, r, j) - mean, inside(j));
        squares = fma(d, d, squares);
    }
    let variance = sum_all(squares.x + squares.y + squares.z + squares.w, lane) / count;
    let inverse = 1.0 / sqrt(variance + p.eps);

    let group = index / p.group_rows;
    let at = p.at[1].z + index * p.cols;
    for (var w = first_word(at) + lane; w < end_word(at + p.cols); w += lanes) {
        let start = word_start(w);
        var y = vec4(0.0);
        for (var k = 0u; k < per_word(out_dtype); k++) {
            if start + k < at || start + k >= at + p.cols { continue; }
            let j = start + k - at;
            let v = value(i + j, r + j);
            if has_residual { sum[p.at[1].w + index * p.cols + j] = v; }
            var normed = (v - mean) * inverse;
            if has_weight { normed *= weight[p.at[0].y + j]; }
            if has_bias { normed += bias[p.at[0].z + j]; }
            if modulated {
                let gain = 1.0 + scale[p.at[1].x + group * p.scale_stride + j];
                normed = fma(normed, gain, shift[p.at[1].y + group * p.shift_stride + j]);
            }
            y[k] = normed;
        }
        store_word(w, at, at + p.cols, encode4(out_dtype, y));
    }
}
