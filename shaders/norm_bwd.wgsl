// The gradient of row normalisations with respect to their rows.
//
// Bindings: x [rows, cols] of `x_dtype`, dout and dsum [rows, cols] and scale [groups, cols] f32 with contiguous rows at any
// distance; weight [cols] f32; dx f32, contiguous; statistics, the mean and 1/deviation of each row, for
// `norm_bwd_columns.wgsl`.
//
// Algorithm: a workgroup owns a row and goes over it three times (not centred: two): the mean; Σ(x - mean)², Σ h and
// Σ h·(x - mean) with h = dout·gain, reduced together; dx. The first times four elements at a time, and the results
// neighbours by neighbours; the later times the row comes from the cache.
//
// Budget: 20 bytes of workgroup memory per invocation, about 35 registers: full occupancy. Bound: memory (two reads, one
// write; about 15 operations for each element). A workgroup has an invocation for four elements, 32 to 256.

struct Params {
    at: array<vec4<u32>, 2>,
    rows: u32, cols: u32, group_rows: u32, eps: f32,
    x_stride: u32, dout_stride: u32, scale_stride: u32, dsum_stride: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> scale: array<f32>;
@group(0) @binding(4) var<storage, read> dsum: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;
@group(0) @binding(6) var<storage, read_write> statistics: array<f32>;
override x_dtype: u32 = 0u;
override centred: bool = false;
override has_weight: bool = false;
override modulated: bool = false;
override has_dsum: bool = false;
// Whether statistics are wanted.
override kept: bool = false;
// Whether rows of x and dout begin at multiples of four elements.
override quads: bool = true;

fn x_at(i: u32) -> f32 { return decode(x_dtype, x[vector_of(x_dtype, i)][word_of(x_dtype, i)], i); }
fn dout_at(i: u32) -> f32 { return dout[i >> 2u][i & 3u]; }

fn x_quad(i: vec4<u32>) -> vec4<f32> {
    if quads { return decode4(x_dtype, x[vector_of(x_dtype, i.x)], i.x); }
    return vec4(x_at(i.x), x_at(i.y), x_at(i.z), x_at(i.w));
}
fn dout_quad(i: vec4<u32>) -> vec4<f32> {
    if quads { return dout[i.x >> 2u]; }
    return vec4(dout_at(i.x), dout_at(i.y), dout_at(i.z), dout_at(i.w));
}
fn gain(group: u32, j: u32) -> f32 {
    var g = 1.0;
    if has_weight { g = weight[p.at[0].z + j]; }
    if modulated { g *= 1.0 + scale[p.at[0].w + group * p.scale_stride + j]; }
    return g;
}

fn row(index: u32, lane: u32) {
    if index >= p.rows { return; }
    let i = p.at[0].x + index * p.x_stride;
    let d = p.at[0].y + index * p.dout_stride;
    let group = index / p.group_rows;
    let count = f32(p.cols);
    var mean = 0.0;
    if centred {
        var all = vec4(0.0);
        for (var first = 4u * lane; first < p.cols; first += 4u * lanes) {
            let j = vec4(first) + vec4(0u, 1u, 2u, 3u);
            all += select(vec4(0.0), x_quad(vec4(i) + min(j, vec4(p.cols - 1u))), j < vec4(p.cols));
        }
        mean = sum_all(all.x + all.y + all.z + all.w, lane) / count;
    }
    var squares = vec4(0.0);
    var h_sum = vec4(0.0);
    var along = vec4(0.0);
    for (var first = 4u * lane; first < p.cols; first += 4u * lanes) {
        let all = vec4(first) + vec4(0u, 1u, 2u, 3u);
        let j = min(all, vec4(p.cols - 1u));
        let inside = all < vec4(p.cols);
        let away = select(vec4(0.0), x_quad(vec4(i) + j) - mean, inside);
        let gains = vec4(gain(group, j.x), gain(group, j.y), gain(group, j.z), gain(group, j.w));
        let h = select(vec4(0.0), dout_quad(vec4(d) + j) * gains, inside);
        squares = fma(away, away, squares);
        along = fma(h, away, along);
        h_sum += h;
    }
    let ones = vec4(1.0);
    let sums = sum_all_4(vec4(dot(squares, ones), dot(along, ones), dot(h_sum, ones), 0.0), lane) / count;
    let inverse = 1.0 / sqrt(sums.x + p.eps);
    let h_along = sums.y * inverse;
    let h_mean = select(0.0, sums.z, centred);

    for (var j = lane; j < p.cols; j += lanes) {
        let normed = (x_at(i + j) - mean) * inverse;
        var v = fma(-normed, h_along, fma(dout_at(d + j), gain(group, j), -h_mean)) * inverse;
        if has_dsum { v += dsum[p.at[1].x + index * p.dsum_stride + j]; }
        dx[p.at[1].y + index * p.cols + j] = v;
    }
    if kept && lane == 0u {
        statistics[p.at[1].z + 2u * index] = mean;
        statistics[p.at[1].z + 2u * index + 1u] = inverse;
    }
}
