// The place of the largest value of each row: the lowest of several, and NaN counts as the largest.
//
// Bindings: x [rows, cols] with contiguous rows at any distance, of `x_dtype`; found, u32 [rows, cols, 2]; out, u32.
//
// Algorithm: values become whole numbers of the same order (`common/order.wgsl`). A workgroup takes a segment of a row, four
// elements at a time; the largest number is found, and then the lowest place among the invocations that have it. Where
// a row has several segments, each leaves its number and place in the workspace, from which (`found`) a second dispatch
// takes them in the place of x: so one long row of logits keeps the whole adapter busy.
//
// Budget: 4 bytes of workgroup memory per invocation, about 25 registers: full occupancy. Bound: memory, one read; about
// 8 operations for each element.

struct Params { at: vec4<u32>, rows: u32, cols: u32, segment: u32, segments: u32, x_stride: u32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> found: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;
override x_dtype: u32 = 0u;
// Whether rows of x begin at multiples of four elements.
override quads: bool = true;
// Whether values come from `found` instead of x, and whether out takes numbers and places instead of places.
override from_found: bool = false;
override to_found: bool = false;

fn x_at(i: u32) -> f32 { return decode(x_dtype, x[vector_of(x_dtype, i)][word_of(x_dtype, i)], i); }

fn row(index: u32, lane: u32) {
    let r = index / p.segments;
    if r >= p.rows { return; }
    let begin = index % p.segments * p.segment;
    let end = min(p.cols, begin + p.segment);
    var best = 0u;
    var place = 0u;
    if from_found {
        for (var j = begin + lane; j < end; j += lanes) {
            let at = p.at.y + 2u * (r * p.cols + j);
            if found[at] > best { best = found[at]; place = found[at + 1u]; }
        }
    } else {
        let first = p.at.x + r * p.x_stride;
        for (var j = begin + 4u * lane; j < end; j += 4u * lanes) {
            var v: vec4<f32>;
            if quads {
                let i = first + j;
                v = decode4(x_dtype, x[vector_of(x_dtype, i)], i);
            } else {
                let i = vec4(first) + min(vec4(j) + vec4(0u, 1u, 2u, 3u), vec4(end - 1u));
                v = vec4(x_at(i.x), x_at(i.y), x_at(i.z), x_at(i.w));
            }
            let keys = key_4(v);
            for (var k = 0u; k < 4u; k++) {
                if j + k < end && keys[k] > best { best = keys[k]; place = j + k; }
            }
        }
    }
    let largest = largest_all(best, lane);
    // Numbers are never 0, so that an invocation without any has no say.
    let chosen = ~largest_all(select(0u, ~place, best == largest), lane);
    if lane == 0u {
        if to_found {
            out[p.at.z + 2u * index] = largest;
            out[p.at.z + 2u * index + 1u] = chosen;
        } else {
            out[p.at.z + r] = chosen;
        }
    }
}
