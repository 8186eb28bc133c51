// The operands of a product: lhs [batch, m, k] and rhs [batch or 1, n, k], both with any strides, read eight k at a time. A
// dispatch computes columns `first` to `first + n` of the result's `cols`, for batches from `first_batch` on. With
// `gated`, rhs are the rows of the gate and `up` those of the other matrix. A rhs of u8 has rows of quantised blocks,
// `rhs_row` bytes apart.

struct Params {
    // Of lhs, rhs, up, bias; residual, out.
    at: array<vec4<u32>, 2>,
    m: u32, n: u32, k: u32, first: u32,
    cols: u32, batches: u32, first_batch: u32, splits: u32,
    // How many k a split sums, and the numbers of tiles: all, along m, along n.
    split_k: u32, tiles: u32, tiles_m: u32, tiles_n: u32,
    lhs_batch: u32, lhs_row: u32, lhs_k: u32, rhs_batch: u32,
    rhs_row: u32, rhs_k: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> lhs: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> rhs: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> up: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<atomic<u32>>;
override lhs_dtype: u32 = 0u;
override rhs_dtype: u32 = 0u;
override out_dtype: u32 = 0u;
// Whether eight k are whole vectors: k is a multiple of 8 and contiguous, rows and the first element are aligned.
override lhs_vectors: bool = false;
override rhs_vectors: bool = false;
// The format of quantised blocks.
override quant: u32 = 0u;

fn bias_begin() -> u32 { return p.at[0].w; }
fn residual_begin() -> u32 { return p.at[1].x; }

// Eight values as they were loaded: vectors, each by itself decoded, or eight bytes and two factors of quantised ones. The
// rest is done when they are needed, so that loads that run ahead of the arithmetic are not waited for.
struct Octet { lo: vec4<u32>, hi: vec4<u32> }
struct Values { lo: vec4<f32>, hi: vec4<f32> }

fn values_of(octet: Octet, dtype: u32, vectors: bool) -> Values {
    if vectors && dtype != F32 { return Values(decode4(dtype, octet.lo, 0u), decode4(dtype, octet.lo, 4u)); }
    if dtype == U8 {
        let f = bitcast<vec2<f32>>(octet.lo.zw);
        return Values(vec4<f32>(unpack4xI8(octet.lo.x)) * f.x + vec4(f.y),
                      vec4<f32>(unpack4xI8(octet.lo.y)) * f.x + vec4(f.y));
    }
    return Values(bitcast<vec4<f32>>(octet.lo), bitcast<vec4<f32>>(octet.hi));
}

// The place of k = 0 in a row of lhs.
fn lhs_begin(batch: u32, row: u32) -> u32 { return p.at[0].x + batch * p.lhs_batch + row * p.lhs_row; }

fn lhs_element(begin: u32, k: u32, end: u32) -> u32 {
    if k >= end { return 0u; }
    let i = begin + k * p.lhs_k;
    return bitcast<u32>(decode(lhs_dtype, lhs[vector_of(lhs_dtype, i)][word_of(lhs_dtype, i)], i));
}
fn lhs_quad(begin: u32, k: u32, end: u32) -> vec4<u32> {
    return vec4(lhs_element(begin, k, end), lhs_element(begin, k + 1u, end),
                lhs_element(begin, k + 2u, end), lhs_element(begin, k + 3u, end));
}

// k to k + 7 of a row; zeros from `end` on.
fn lhs_octet(begin: u32, k: u32, end: u32) -> Octet {
    if !lhs_vectors { return Octet(lhs_quad(begin, k, end), lhs_quad(begin, k + 4u, end)); }
    if k >= end { return Octet(vec4(0u), vec4(0u)); }
    let v = vector_of(lhs_dtype, begin + k);
    if lhs_dtype == F32 { return Octet(lhs[v], lhs[v + 1u]); }
    return Octet(lhs[v], vec4(0u));
}

// The same of rhs, or of `up`.
fn rhs_begin(other: bool, batch: u32, row: u32) -> u32 {
    return select(p.at[0].y, p.at[0].z, other) + (batch - p.first_batch) * p.rhs_batch + row * p.rhs_row;
}

fn rhs_vector(other: bool, v: u32) -> vec4<u32> {
    if gated && other { return up[v]; }
    return rhs[v];
}
// For quant.wgsl: words of the matrix that is read just now.
var<private> reading_up: bool;
fn weight_word(w: u32) -> u32 { return rhs_vector(reading_up, w >> 2u)[w & 3u]; }

fn rhs_element(other: bool, begin: u32, k: u32, end: u32) -> u32 {
    if k >= end { return 0u; }
    let i = begin + k * p.rhs_k;
    return bitcast<u32>(decode(rhs_dtype, rhs_vector(other, vector_of(rhs_dtype, i))[word_of(rhs_dtype, i)], i));
}
fn rhs_quad(other: bool, begin: u32, k: u32, end: u32) -> vec4<u32> {
    return vec4(rhs_element(other, begin, k, end), rhs_element(other, begin, k + 1u, end),
                rhs_element(other, begin, k + 2u, end), rhs_element(other, begin, k + 3u, end));
}
fn rhs_octet(other: bool, begin: u32, k: u32, end: u32) -> Octet {
    if rhs_dtype == U8 {
        if k >= end { return Octet(vec4(0u), vec4(0u)); }
        reading_up = other;
        let block = begin + k / block_values(quant) * block_bytes(quant);
        let i = k % block_values(quant);
        let factors = bitcast<vec2<u32>>(quant_factors(quant, block, i));
        return Octet(vec4(quant_bytes(quant, block, i), quant_bytes(quant, block, i + 4u), factors), vec4(0u));
    }
    if !rhs_vectors { return Octet(rhs_quad(other, begin, k, end), rhs_quad(other, begin, k + 4u, end)); }
    if k >= end { return Octet(vec4(0u), vec4(0u)); }
    let v = vector_of(rhs_dtype, begin + k);
    if rhs_dtype == F32 { return Octet(rhs_vector(other, v), rhs_vector(other, v + 1u)); }
    return Octet(rhs_vector(other, v), vec4(0u));
}

// Row and column of a tile in the result: groups of up to eight tiles along m, column by column.
fn tile_place(tile: u32) -> vec2<u32> {
    let group = tile / (8u * p.tiles_n);
    let within = tile % (8u * p.tiles_n);
    let rows = min(8u, p.tiles_m - 8u * group);
    return vec2(8u * group + within % rows, within / rows);
}

// c + a·b for four k, in their order; column j of b holds the values of four columns at the j-th of them.
fn add_products(a: vec4<f32>, b: mat4x4<f32>, c: vec4<f32>) -> vec4<f32> {
    return fma(a.wwww, b[3], fma(a.zzzz, b[2], fma(a.yyyy, b[1], fma(a.xxxx, b[0], c))));
}

// Writes what becomes of the sums of `count` columns (from `column` of this dispatch on) of a row.
fn put(batch: u32, row: u32, column: u32, count: u32, sums: vec4<f32>, ups: vec4<f32>) {
    let columns = p.first + min(vec4(column) + vec4(0u, 1u, 2u, 3u), vec4(p.n - 1u));
    let begin = (batch * p.m + row) * p.cols;
    let values = finished(columns, begin + columns, sums, ups);
    store_run(p.at[1].y + begin + p.first + column, count, encode4(out_dtype, values));
}
