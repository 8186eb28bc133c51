// The sums over rows of the gradient of row normalisations: Σ dout·x̂ and Σ dout for each group and column.
//
// Bindings: x [rows, cols] of `x_dtype` and dout [rows, cols] f32 with contiguous rows at any distance; products and sums f32
// [groups, cols]; scratch, f32: mean and 1/deviation of each row from `norm_bwd.wgsl`, then [groups, segments, cols] of
// partial products, then as many partial sums.
//
// Algorithm: `common/columns.wgsl` with the groups as `outer`, both sums in one pass. Where a group has several segments, a
// second dispatch adds up what they gave.
//
// Budget: 8 KiB of workgroup memory, about 35 registers: full occupancy. Bound: memory (two reads in runs of up to 512
// bytes, from the second-level cache where it holds them; 5 operations for each element).

struct Params {
    at: array<vec4<u32>, 2>,
    outer: u32, len: u32, inner: u32, segment: u32,
    segments: u32, products_at: u32, sums_at: u32, x_stride: u32, dout_stride: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> products: array<f32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;
@group(0) @binding(4) var<storage, read_write> scratch: array<f32>;
override x_dtype: u32 = 0u;
override has_products: bool = true;
override has_sums: bool = true;
// Whether partial sums are added up, and whether they are what is written.
override from_partials: bool = false;
override to_partials: bool = false;
// Whether rows of x and dout begin at multiples of four elements.
override quads: bool = true;

fn x_at(i: u32) -> f32 { return decode(x_dtype, x[vector_of(x_dtype, i)][word_of(x_dtype, i)], i); }
fn dout_at(i: u32) -> f32 { return dout[i >> 2u][i & 3u]; }
fn scratch_quad(i: vec4<u32>) -> vec4<f32> { return vec4(scratch[i.x], scratch[i.y], scratch[i.z], scratch[i.w]); }

fn start() -> Pair { return Pair(vec4(0.0), vec4(0.0)); }

fn take(all: Pair, o: u32, j: u32, column: u32) -> Pair {
    let row = o * p.len + j;
    let c = min(vec4(column) + vec4(0u, 1u, 2u, 3u), vec4(p.inner - 1u));
    if from_partials {
        let i = vec4(p.at[1].x + row * p.inner) + c;
        return Pair(all.a + scratch_quad(i + p.products_at), all.b + scratch_quad(i + p.sums_at));
    }
    let i = vec4(p.at[0].x + row * p.x_stride) + c;
    let d = vec4(p.at[0].y + row * p.dout_stride) + c;
    var v: vec4<f32>;
    var g: vec4<f32>;
    if quads {
        v = decode4(x_dtype, x[vector_of(x_dtype, i.x)], i.x);
        g = dout[d.x >> 2u];
    } else {
        v = vec4(x_at(i.x), x_at(i.y), x_at(i.z), x_at(i.w));
        g = vec4(dout_at(d.x), dout_at(d.y), dout_at(d.z), dout_at(d.w));
    }
    let at = p.at[1].x + 2u * row;
    return Pair(fma(g, (v - scratch[at]) * scratch[at + 1u], all.a), all.b + g);
}

fn join(a: Pair, b: Pair) -> Pair { return Pair(a.a + b.a, a.b + b.b); }

fn give(o: u32, segment: u32, column: u32, all: Pair) {
    let at = (o * p.segments + segment) * p.inner + column;
    for (var k = 0u; k < 4u; k++) {
        if column + k >= p.inner { break; }
        if to_partials {
            scratch[p.at[1].x + p.products_at + at + k] = all.a[k];
            scratch[p.at[1].x + p.sums_at + at + k] = all.b[k];
        } else {
            if has_products { products[p.at[0].z + at + k] = all.a[k]; }
            if has_sums { sums[p.at[0].w + at + k] = all.b[k]; }
        }
    }
}
