// Rotary embeddings: pairs of values of each head turned by angles that grow with the position.
//
// Bindings: x [batch, len, heads, head_dim] with contiguous rows at any distances, of `x_dtype`; positions [axes, batch or 1,
// len], of `positions_dtype`; inv_freq [rotary_dim / 2] f32; out contiguous, of `out_dtype`.
//
// Algorithm: an invocation writes 16 bytes of the result. Value d of a head meets its partner, half a rotary_dim away or its
// neighbour: out = x·c ± partner·s, where c and s are computed anew for both values and for every head. That costs some
// 50 operations for each value, which stay below the 8 bytes that it moves on adapters with 8 operations per byte, and
// needs no table and no barrier. Where rows and halves are of whole quads, four values are one load each.
//
// Budget: about 40 registers, no workgroup memory. Bound: memory, one read (the partner comes from the cache) and one write.

struct Params {
    at: vec4<u32>,
    total: u32, len: u32, heads: u32, head_dim: u32,
    x_strides: vec3<u32>, positions_batch: u32,
    // Where the pairs of the second and of the third axis begin.
    axis_1: u32, axis_2: u32, rotary_dim: u32, factor: f32,
    sine_factor: f32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> positions: array<u32>;
@group(0) @binding(2) var<storage, read> inv_freq: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<u32>>;
override x_dtype: u32 = 0u;
override positions_dtype: u32 = 5u;
override out_dtype: u32 = 0u;
// Whether pairs are neighbours instead of halves.
override interleaved: bool = false;
// Whether there are several axes.
override several: bool = false;
// Whether quads of the result are of one head and one half, and quads of vectors of x.
override quads: bool = true;

fn out_at() -> u32 { return p.at.w; }

fn element(at: u32) -> f32 { return decode(x_dtype, x[vector_of(x_dtype, at)][word_of(x_dtype, at)], at); }
fn elements(at: vec4<u32>) -> vec4<f32> {
    if quads { return decode4(x_dtype, x[vector_of(x_dtype, at.x)], at.x); }
    return vec4(element(at.x), element(at.y), element(at.z), element(at.w));
}

fn position(axis: u32, place: u32) -> f32 {
    let b = select(place / p.len, 0u, p.positions_batch == 1u);
    return decode(positions_dtype, positions[p.at.y + (axis * p.positions_batch + b) * p.len + place % p.len], 0u);
}
fn axis_of(pair: u32) -> u32 { return select(0u, 1u, pair >= p.axis_1) + select(0u, 1u, pair >= p.axis_2); }

// Where the head of a row, which is number `head` of its place, begins in x.
fn head_at(place: u32, head: u32) -> u32 {
    return p.at.x + place / p.len * p.x_strides.x + place % p.len * p.x_strides.y + head * p.x_strides.z;
}

fn quad_bits(i: u32) -> vec4<u32> {
    var d: vec4<u32>;
    var place: vec4<u32>;
    var base: vec4<u32>;
    if quads {
        let row = i / p.head_dim;
        d = vec4(i - row * p.head_dim) + vec4(0u, 1u, 2u, 3u);
        place = vec4(row / p.heads);
        base = vec4(head_at(place.x, row % p.heads));
    } else {
        let e = min(vec4(i) + vec4(0u, 1u, 2u, 3u), vec4(p.total - 1u));
        let row = e / vec4(p.head_dim);
        d = e - row * p.head_dim;
        place = row / vec4(p.heads);
        for (var k = 0u; k < 4u; k++) { base[k] = head_at(place[k], row[k] % p.heads); }
    }
    let half = p.rotary_dim >> 1u;
    let turned = d < vec4(p.rotary_dim);
    let value = elements(base + d);
    if quads && !turned.x { return encode4(out_dtype, value); }

    var pair = select(d, d - half, d >= vec4(half));
    var partner = select(d + half, d - half, d >= vec4(half));
    var second = d >= vec4(half);
    if interleaved {
        pair = d >> vec4(1u);
        partner = d ^ vec4(1u);
        second = (d & vec4(1u)) == vec4(1u);
    }
    // Values that are not turned read what exists, and are put back.
    pair = select(vec4(0u), pair, turned);
    partner = select(d, partner, turned);
    var other: vec4<f32>;
    if quads && interleaved { other = value.yxwz; } else { other = elements(base + partner); }

    var angle = vec4(0.0);
    if quads && !several { angle = vec4(position(0u, place.x)); } else {
        for (var k = 0u; k < 4u; k++) { angle[k] = position(axis_of(pair[k]), place[k]); }
    }
    let first = p.at.z;
    angle *= vec4(inv_freq[first + pair.x], inv_freq[first + pair.y], inv_freq[first + pair.z], inv_freq[first + pair.w]);
    let s = sin_4(angle) * p.sine_factor;
    let y = fma(other, select(-s, s, second), value * (cos_4(angle) * p.factor));
    return encode4(out_dtype, select(value, y, turned));
}
