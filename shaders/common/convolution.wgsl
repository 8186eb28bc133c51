// What convolutions share: operands, parameters, index arithmetic and the results' way out. Needs dtype, math, activation.
//
// A convolution is a product of matrices that are nowhere stored: of the weight, and of x as its window sees it, with
// columns (positions of all samples) and steps (channels of x with all taps of the window). Where an element of x stands is
// the sum of two places, the column's and the step's, each a vector: points along depth, height and width, and a distance
// in elements for the sample and the channel. So is the place of an element of the other factor and of the result; what the
// components mean there is the module's. They are i32 because points before the first are negative; distances may wrap.

struct Params {
    // The places of x, factor, bias, out and partial.
    at: vec4<u32>, at_partial: vec4<u32>,
    // Points of x, positions of the window, its taps; positions and taps in all.
    size: vec3<u32>, groups: u32,
    positions: vec3<u32>, all_positions: u32,
    taps: vec3<u32>, all_taps: u32,
    // Position o reads the points o · stride + tap · dilation - before. Channels of x and rows of the product are those
    // of a group, columns those of all samples.
    stride: vec3<i32>, channels: u32,
    dilation: vec3<i32>, rows: u32,
    before: vec3<i32>, cols: u32,
    // From a sample, a channel, a plane and a line of x to the next one.
    x_strides: vec4<u32>,
    // Steps of the product; into how many blocks the entry point cuts rows and columns; steps (or channels) of a split.
    depth: u32, row_blocks: u32, col_blocks: u32, split_depth: u32,
    // Numbers of splits and of results. The vectors beside them are conv_transpose's.
    tap_step: vec3<u32>, splits: u32,
    every: vec3<u32>, total: u32,
    phases: vec3<u32>, all_phases: u32,
    kernel: vec3<u32>, all_kernel: u32,
    out_size: vec3<u32>, all_out: u32,
    lead: vec3<i32>,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> factor: array<u32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<atomic<u32>>;
// Sums of each split, one result behind the other.
@group(0) @binding(4) var<storage, read_write> partial: array<f32>;
override x_dtype: u32 = 0u;
override factor_dtype: u32 = 0u;
override out_dtype: u32 = 0u;
// Axes that have more than one point or tap, counted from the innermost.
override axes: u32 = 3u;
// The place in `Padding`.
override padding: u32 = 0u;
override has_bias: bool = false;
override activation: u32 = 0u;
// Whether results are sums of several splits, added by `conv_splits.wgsl`.
override split: bool = false;

const NOWHERE = 0xffffffffu;

// The place of column n, and that of tap t of channel c.
fn position(n: u32) -> vec4<i32> {
    let o = vec3<i32>(unravel(n % p.all_positions, p.positions));
    return vec4(o * p.stride - p.before, i32(n / p.all_positions * p.x_strides.x));
}
fn tap(c: u32, t: vec3<u32>) -> vec4<i32> { return vec4(vec3<i32>(t) * p.dilation, i32(c * p.x_strides.y)); }
fn group_start(group: u32) -> vec4<i32> { return vec4(0, 0, 0, i32(p.at.x + group * p.channels * p.x_strides.y)); }

// Where point i of a box stands along its axes.
fn unravel(i: u32, box: vec3<u32>) -> vec3<u32> {
    if axes == 1u { return vec3(0u, 0u, i); }
    if axes == 2u { return vec3(0u, i / box.z, i % box.z); }
    let line = i / box.z;
    return vec3(line / box.y, line % box.y, i % box.z);
}

// The point of an axis whose value stands at a place; one that is not below `size` where that is zero.
fn source(at: i32, size: u32) -> u32 {
    let last = i32(size) - 1;
    switch padding {
        case 1u: { return u32(select(select(at, 2 * last - at, at > last), -at, at < 0)); }
        case 2u: { return u32(clamp(at, 0, last)); }
        case 3u: {
            let rest = at % i32(size);
            return u32(select(rest, rest + i32(size), rest < 0));
        }
        default: { return u32(at); }
    }
}

fn element_of_x(i: u32) -> f32 { return decode(x_dtype, x[i >> (2u - log_bytes(x_dtype))], i); }
fn element_of_factor(i: u32) -> f32 { return decode(factor_dtype, factor[i >> (2u - log_bytes(factor_dtype))], i); }

fn x_value(place: vec4<i32>) -> f32 {
    var at = u32(place.w);
    if axes > 2u {
        let d = source(place.x, p.size.x);
        if d >= p.size.x { return 0.0; }
        at += d * p.x_strides.z;
    }
    if axes > 1u {
        let h = source(place.y, p.size.y);
        if h >= p.size.y { return 0.0; }
        at += h * p.x_strides.w;
    }
    let w = source(place.z, p.size.z);
    if w >= p.size.z { return 0.0; }
    return element_of_x(at + w);
}

// Sums of row `channel` of the result, at four places (NOWHERE: none), on their way out.
fn leave(part: u32, channel: u32, places: vec4<u32>, sums: vec4<f32>) {
    if split {
        for (var j = 0u; j < 4u; j++) {
            if places[j] != NOWHERE { partial[p.at_partial.x + part * p.total + places[j]] = sums[j]; }
        }
        return;
    }
    var v = sums;
    if has_bias { v += vec4(bias[p.at.z + channel]); }
    let bits = encode4(out_dtype, activate_4(activation, v));
    let at = vec4(p.at.w) + places;
    if log_bytes(out_dtype) == 2u {
        for (var j = 0u; j < 4u; j++) {
            if places[j] != NOWHERE { atomicStore(&out[at[j]], bits[j]); }
        }
        return;
    }
    // Two elements of a word at once; one alone leaves the other half, which another invocation may write, as it is.
    for (var j = 0u; j < 4u; j++) {
        if places[j] == NOWHERE { continue; }
        let word = at[j] >> 1u;
        let k = min(j + 1u, 3u);
        if j < 3u && (at[j] & 1u) == 0u && places[k] == places[j] + 1u {
            atomicStore(&out[word], bits[j] | (bits[k] << 16u));
            j++;
        } else {
            let shift = (at[j] & 1u) * 16u;
            atomicAnd(&out[word], ~(0xffffu << shift));
            atomicOr(&out[word], bits[j] << shift);
        }
    }
}
