// Resampling of planes, one axis after the other: a sum of weighted points.
//
// Bindings: x [planes, from_h, from_w, inner] f32; out [planes, to_h, to_w, inner] f32; scratch, 4-byte words: for each of
// the two axes a table (the ends of the lists of taps [outputs + 1], then points, then weights) that the host has made
// in f64, and the planes after the first pass [planes, to_h, from_w, inner].
//
// Algorithm: the pass `down` sums over rows into scratch, the other over columns into out, an invocation for each value; values
// next to each other read values next to each other. Two passes cost taps_h + taps_w products instead of their product.
//
// Budget: about 16 registers, no workgroup memory. Bound: memory, most of it from the cache: a value is read once for each
// output that it takes part in.

struct Params {
    at: vec4<u32>,
    // Values to compute; of the axis: points, outputs, values behind one point.
    total: u32, points: u32, outputs: u32, inner: u32,
    // Places in scratch: the table's ends, points, weights; the values between the passes.
    starts: u32, taps: u32, weights: u32, between: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<storage, read_write> scratch: array<u32>;

override down: bool = true;

// The first value of the line along the axis that value i of a result is computed from, and the output's number.
fn line(i: u32) -> vec2<u32> {
    let outer = i / (p.outputs * p.inner);
    return vec2(outer * p.points * p.inner + i % p.inner, (i / p.inner) % p.outputs);
}

fn value(i: u32) -> f32 {
    if down { return x[p.at.x + i]; }
    return bitcast<f32>(scratch[p.between + i]);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat_workgroup(workgroup, grid) * 256u + lane;
    if i >= p.total { return; }
    let place = line(i);
    var sum = 0.0;
    for (var t = scratch[p.starts + place.y]; t < scratch[p.starts + place.y + 1u]; t++) {
        sum = fma(bitcast<f32>(scratch[p.weights + t]), value(place.x + scratch[p.taps + t] * p.inner), sum);
    }
    if down { scratch[p.between + i] = bitcast<u32>(sum); } else { out[p.at.y + i] = sum; }
}
