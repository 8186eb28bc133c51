// Points added around the last three dimensions, and the reverse: what was added summed into where it came from.
//
// Bindings: x [outer, depth, height, width] at any distances, of `x_dtype`; out contiguous, of `out_dtype`. One of them has the
// padded extents, with `fold` x.
//
// Algorithm: an invocation writes 16 bytes of the result; it finds the place of the first element and counts on from there. To
// pad, an element is one of x or zero. To fold, it is the sum of all places where its point stands, which are few along
// each axis and found by the padding's rule, always in the same order.
//
// Budget: about 30 registers, no workgroup memory. Bound: memory, one read and one write.

struct Params {
    at: vec4<u32>,
    total: u32, x_stride: u32,
    strides: vec3<u32>, size: vec3<u32>, before: vec3<u32>, padded: vec3<u32>,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;
override out_dtype: u32 = 0u;
// The place in `Padding::ALL`.
override padding: u32 = 0u;
override fold: bool = false;

const ZEROS = 0u;
const REFLECT = 1u;
const REPLICATE = 2u;

fn out_at() -> u32 { return p.at.y; }

fn bits_at(at: u32) -> u32 { return bits_in(out_dtype, x[vector_of(out_dtype, at)][word_of(out_dtype, at)], at); }

// The point that stands at a padded place; one beyond the axis for none.
fn source(axis: u32, place: u32) -> u32 {
    let at = i32(place) - i32(p.before[axis]);
    let size = i32(p.size[axis]);
    switch padding {
        case ZEROS: { return u32(at); }
        case REFLECT: { return u32(select(abs(at), 2 * (size - 1) - at, at >= size)); }
        case REPLICATE: { return u32(clamp(at, 0, size - 1)); }
        default: { return u32(select(select(at, at + size, at < 0), at - size, at >= size)); }
    }
}

// How many places a point may stand at, and each of them; one beyond the padded axis for none.
fn standing(axis: u32, point: u32) -> u32 {
    switch padding {
        case ZEROS: { return 1u; }
        case REPLICATE: {
            let last = p.size[axis] - 1u;
            return 1u + select(0u, p.before[axis], point == 0u)
                + select(0u, p.padded[axis] - p.before[axis] - p.size[axis], point == last);
        }
        default: { return 3u; }
    }
}
fn place_of(axis: u32, point: u32, k: u32) -> u32 {
    let here = p.before[axis] + point;
    let size = p.size[axis];
    switch padding {
        case ZEROS: { return here; }
        case REPLICATE: { return k + select(here, 0u, point == 0u); }
        case REFLECT: {
            if k == 0u { return here; }
            if k == 1u { return select(0xffffffffu, p.before[axis] - point, point > 0u); }
            return select(0xffffffffu, p.before[axis] + 2u * (size - 1u) - point, point < size - 1u);
        }
        default: {
            if k == 0u { return here - size; }
            return here + (k - 1u) * size;
        }
    }
}

fn padded_bits(outer: u32, place: vec3<u32>) -> u32 {
    let point = vec3(source(0u, place.x), source(1u, place.y), source(2u, place.z));
    if any(point >= p.size) { return 0u; }
    return bits_at(p.at.x + outer * p.x_stride + dot(point, p.strides));
}

fn folded(outer: u32, point: vec3<u32>) -> u32 {
    let base = p.at.x + outer * p.x_stride;
    let count = vec3(standing(0u, point.x), standing(1u, point.y), standing(2u, point.z));
    var sum = 0.0;
    for (var i = 0u; i < count.x; i++) {
        let z = place_of(0u, point.x, i);
        if z >= p.padded.x { continue; }
        for (var j = 0u; j < count.y; j++) {
            let y = place_of(1u, point.y, j);
            if y >= p.padded.y { continue; }
            for (var k = 0u; k < count.z; k++) {
                let at = place_of(2u, point.z, k);
                if at < p.padded.z { sum += bitcast<f32>(bits_at(base + dot(vec3(z, y, at), p.strides))); }
            }
        }
    }
    return bitcast<u32>(sum);
}

fn quad_bits(i: u32) -> vec4<u32> {
    // Of an element before the result the next that belongs to it.
    var e = select(0u, i, i < p.total);
    var extent = p.padded;
    if fold { extent = p.size; }
    var left = e;
    var place: vec3<u32>;
    place.z = left % extent.z;
    left /= extent.z;
    place.y = left % extent.y;
    left /= extent.y;
    place.x = left % extent.x;
    var outer = left / extent.x;
    var bits = vec4(0u);
    for (var k = select(0u - i, 0u, i < p.total); k < 4u; k++) {
        if e >= p.total { break; }
        if fold { bits[k] = folded(outer, place); } else { bits[k] = padded_bits(outer, place); }
        e++;
        place.z++;
        if place.z == extent.z { place = vec3(place.x, place.y + 1u, 0u); }
        if place.y == extent.y { place = vec3(place.x + 1u, 0u, place.z); }
        if place.x == extent.x {
            place.x = 0u;
            outer++;
        }
    }
    return bits;
}
