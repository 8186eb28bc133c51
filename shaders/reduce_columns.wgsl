// Reductions of columns: sum, sum of squares, largest, smallest.
//
// Bindings: x [outer, len, inner] contiguous, of `x_dtype`; out [outer, segments, inner] f32.
//
// Algorithm: `common/columns.wgsl`. Where there are several segments, their results are the rows of a second dispatch
// (squares are then only added); the last dispatch divides by the number or takes the root.
//
// Budget: 8 KiB of workgroup memory, about 30 registers: full occupancy. Bound: memory, one read in runs of up to 512
// bytes.

struct Params { at: vec4<u32>, outer: u32, len: u32, inner: u32, segment: u32, segments: u32, count: f32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
override x_dtype: u32 = 0u;
// Whether rows of x begin at multiples of four elements.
override quads: bool = true;

fn x_at(i: u32) -> f32 { return decode(x_dtype, x[vector_of(x_dtype, i)][word_of(x_dtype, i)], i); }

fn start() -> Pair { return Pair(nothing(), vec4(0.0)); }

fn take(all: Pair, o: u32, j: u32, column: u32) -> Pair {
    let first = p.at.x + (o * p.len + j) * p.inner;
    if quads {
        let i = first + column;
        return Pair(taken(all.a, decode4(x_dtype, x[vector_of(x_dtype, i)], i)), all.b);
    }
    let i = vec4(first) + min(vec4(column) + vec4(0u, 1u, 2u, 3u), vec4(p.inner - 1u));
    return Pair(taken(all.a, vec4(x_at(i.x), x_at(i.y), x_at(i.z), x_at(i.w))), all.b);
}

fn join(a: Pair, b: Pair) -> Pair { return Pair(joined(a.a, b.a), a.b); }

fn give(o: u32, segment: u32, column: u32, all: Pair) {
    let v = finished(all.a, p.count);
    let at = p.at.y + (o * p.segments + segment) * p.inner;
    for (var k = 0u; k < 4u; k++) {
        if column + k < p.inner { out[at + column + k] = v[k]; }
    }
}
