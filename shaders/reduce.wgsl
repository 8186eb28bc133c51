// Reductions of rows: sum, sum of squares, largest, smallest.
//
// Bindings: x [rows, cols] contiguous, of `x_dtype`; out [rows, segments] f32.
//
// Algorithm: a workgroup takes a segment of a row, four elements at a time. Where a row has several segments, their
// results are the rows of a second dispatch (squares are then only added), so that even one row keeps the whole adapter
// busy; the last dispatch divides by the number or takes the root. Extremes are joined as whole numbers of the same
// order, NaN the largest.
//
// Budget: 8 bytes of workgroup memory per invocation, about 25 registers: full occupancy. Bound: memory, one read, one or
// two operations for each element.

struct Params { at: vec4<u32>, rows: u32, cols: u32, segment: u32, segments: u32, count: f32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
override x_dtype: u32 = 0u;
// Whether rows of x begin at multiples of four elements.
override quads: bool = true;

fn x_at(i: u32) -> f32 { return decode(x_dtype, x[vector_of(x_dtype, i)][word_of(x_dtype, i)], i); }

fn row(index: u32, lane: u32) {
    let r = index / p.segments;
    if r >= p.rows { return; }
    let begin = index % p.segments * p.segment;
    let end = min(p.cols, begin + p.segment);
    let first = p.at.x + r * p.cols;
    var all = nothing();
    for (var j = begin + 4u * lane; j < end; j += 4u * lanes) {
        let place = vec4(j) + vec4(0u, 1u, 2u, 3u);
        var v: vec4<f32>;
        if quads {
            v = decode4(x_dtype, x[vector_of(x_dtype, first + j)], first + j);
        } else {
            let i = vec4(first) + min(place, vec4(end - 1u));
            v = vec4(x_at(i.x), x_at(i.y), x_at(i.z), x_at(i.w));
        }
        all = taken(all, select(nothing(), v, place < vec4(end)));
    }
    var result: f32;
    if kind <= SQUARES {
        result = sum_all(all.x + all.y + all.z + all.w, lane);
    } else {
        let sign = select(1.0, -1.0, kind == SMALLEST);
        let keys = key_4(all * sign);
        result = value_of(largest_all(max(max(keys.x, keys.y), max(keys.z, keys.w)), lane)) * sign;
    }
    if lane == 0u { out[p.at.y + index] = finished(vec4(result), p.count).x; }
}
