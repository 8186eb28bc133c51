// Rows of a table by their numbers.
//
// Bindings: table [rows, width] at any distances, of `x_dtype`, or of quantised blocks; ids [n]; out
// contiguous, of `out_dtype`. The table may be a part of the whole one, some of its rows or of its columns: elements that
// are not in it keep what `out` holds, and other dispatches fill them.
//
// Algorithm: an invocation writes 16 bytes of the result. Where rows are of whole quads of the table's vectors four elements
// are one load of a vector; else they are read one by one, and may be of several rows. A quad of a block comes from two
// words of integers and its group's factors, which neighbours find in the cache.
//
// Budget: about 30 registers, no workgroup memory. Bound: memory, reading the rows that are wanted.

struct Params {
    at: vec4<u32>,
    total: u32, width: u32, stride: u32, count: u32,
    // The rows and columns of this part.
    first: u32, rows: u32, first_column: u32, columns: u32,
    step: u32, fault_op: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> faults: Faults;
override x_dtype: u32 = 0u;
override out_dtype: u32 = 0u;
// The kind of blocks; any number beyond them for a plain table.
override quant: u32 = 0xffu;
// Whether quads of the result are quads of the table's vectors.
override quads: bool = true;

fn out_at() -> u32 { return p.at.z; }

fn weight_word(w: u32) -> u32 { return x[w >> 2u][w & 3u]; }

// The row of this part of the table that holds row `i` of the result, or one beyond it.
fn row_of(i: u32) -> u32 {
    let id = ids[p.at.y + i];
    if id >= p.count { fault(id, i, p.count); return p.rows; }
    return id - p.first;
}

fn old(i: u32) -> u32 {
    let at = p.at.z + i;
    return bits_in(out_dtype, out[vector_of(out_dtype, at)][word_of(out_dtype, at)], at);
}

// Elements j to j + 3 of a row of the table, j a multiple of 4.
fn block_quad(row: u32, j: u32) -> vec4<f32> {
    let values = block_values(quant);
    return quant4(quant, p.at.x + row * p.stride + j / values * block_bytes(quant), j % values);
}

fn element(row: u32, j: u32) -> u32 {
    if quant <= Q6_K { return bitcast<u32>(block_quad(row, j & ~3u)[j & 3u]); }
    let at = p.at.x + row * p.stride + j * p.step;
    let word = x[vector_of(x_dtype, at)][word_of(x_dtype, at)];
    if x_dtype == out_dtype { return bits_in(x_dtype, word, at); }
    return encode(out_dtype, decode(x_dtype, word, at));
}

fn row_quad(row: u32, j: u32) -> vec4<u32> {
    if quant <= Q6_K { return bitcast<vec4<u32>>(block_quad(row, j)); }
    let at = p.at.x + row * p.stride + j;
    let v = x[vector_of(x_dtype, at)];
    if x_dtype == out_dtype { return bits4(x_dtype, v, at); }
    return encode4(out_dtype, decode4(x_dtype, v, at));
}

fn quad_bits(first: u32) -> vec4<u32> {
    if quads {
        let i = first / p.width;
        let row = row_of(i);
        if row < p.rows { return row_quad(row, first - i * p.width); }
        return vec4(old(first), old(first + 1u), old(first + 2u), old(first + 3u));
    }
    var bits = vec4(0u);
    for (var k = 0u; k < 4u; k++) {
        let e = min(first + k, p.total - 1u);
        let i = e / p.width;
        let row = row_of(i);
        let j = e - i * p.width - p.first_column;
        if row < p.rows && j < p.columns { bits[k] = element(row, j); } else { bits[k] = old(e); }
    }
    return bits;
}
