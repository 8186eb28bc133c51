// The statistics of group norm; `group_norm_apply.wgsl` uses them.
//
// Bindings: x, of `x_dtype`: [groups, len], contiguous, where groups are those of all samples; scratch, f32: mean and
// 1/deviation of each group, then mean and Σ(x - mean)² of each of its segments.
//
// Algorithm: a workgroup takes a segment of a group and goes over it twice, the second time from the cache: its mean; the
// squares. So a large group is read once, no digits are lost where the mean is large, and few groups keep the whole
// adapter busy. Where there are several segments, a second dispatch with a workgroup for each group merges them:
// mean = Σ n·mean / Σ n, squares = Σ (squares + n·(mean of the segment - mean)²).
//
// Budget: 4 bytes of workgroup memory per invocation, about 25 registers: full occupancy. Bound: memory, one read.

struct Params { at: vec4<u32>, groups: u32, len: u32, segment: u32, segments: u32, eps: f32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> scratch: array<f32>;
override x_dtype: u32 = 0u;
// Whether groups begin at multiples of four elements.
override quads: bool = true;
// Whether segments are merged.
override merging: bool = false;

fn x_at(i: u32) -> f32 { return decode(x_dtype, x[vector_of(x_dtype, i)][word_of(x_dtype, i)], i); }

fn x_quad(first: u32, j: u32, end: u32) -> vec4<f32> {
    if quads { return decode4(x_dtype, x[vector_of(x_dtype, first + j)], first + j); }
    let i = vec4(first) + min(vec4(j) + vec4(0u, 1u, 2u, 3u), vec4(end - 1u));
    return vec4(x_at(i.x), x_at(i.y), x_at(i.z), x_at(i.w));
}

// Place of the mean and of what stands beside it.
fn statistics_at(group: u32) -> u32 { return p.at.y + 2u * group; }
fn moments_at(group: u32, segment: u32) -> u32 { return p.at.y + 2u * (p.groups + group * p.segments + segment); }

fn finish(group: u32, mean: f32, squares: f32) {
    scratch[statistics_at(group)] = mean;
    scratch[statistics_at(group) + 1u] = 1.0 / sqrt(squares / f32(p.len) + p.eps);
}

fn merge(group: u32, lane: u32) {
    var all = 0.0;
    for (var s = lane; s < p.segments; s += lanes) {
        let count = f32(min(p.segment, p.len - s * p.segment));
        all = fma(count, scratch[moments_at(group, s)], all);
    }
    let mean = sum_all(all, lane) / f32(p.len);
    var squares = 0.0;
    for (var s = lane; s < p.segments; s += lanes) {
        let count = f32(min(p.segment, p.len - s * p.segment));
        let away = scratch[moments_at(group, s)] - mean;
        squares += fma(count * away, away, scratch[moments_at(group, s) + 1u]);
    }
    let total = sum_all(squares, lane);
    if lane == 0u { finish(group, mean, total); }
}

fn row(index: u32, lane: u32) {
    if merging {
        if index < p.groups { merge(index, lane); }
        return;
    }
    let group = index / p.segments;
    if group >= p.groups { return; }
    let segment = index % p.segments;
    let begin = segment * p.segment;
    let end = min(p.len, begin + p.segment);
    let first = p.at.x + group * p.len;
    var all = vec4(0.0);
    for (var j = begin + 4u * lane; j < end; j += 4u * lanes) {
        let inside = vec4(j) + vec4(0u, 1u, 2u, 3u) < vec4(end);
        all += select(vec4(0.0), x_quad(first, j, end), inside);
    }
    let mean = sum_all(all.x + all.y + all.z + all.w, lane) / f32(end - begin);
    var squares = vec4(0.0);
    for (var j = begin + 4u * lane; j < end; j += 4u * lanes) {
        let inside = vec4(j) + vec4(0u, 1u, 2u, 3u) < vec4(end);
        let away = select(vec4(0.0), x_quad(first, j, end) - mean, inside);
        squares = fma(away, away, squares);
    }
    let total = sum_all(squares.x + squares.y + squares.z + squares.w, lane);
    if lane != 0u { return; }
    if p.segments == 1u {
        finish(group, mean, total);
    } else {
        scratch[moments_at(group, segment)] = mean;
        scratch[moments_at(group, segment) + 1u] = total;
    }
}
