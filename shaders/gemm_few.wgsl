// Matrix products with up to eight rows of lhs: rhs is read once.
//
// Bindings: as common/product.wgsl has them, with k contiguous in lhs and rhs; rhs plain or in quantised blocks.
//
// Algorithm: a workgroup owns four rows of rhs (with `gated` two of the gate and the same two of the other matrix) and
// all rows of lhs. An invocation takes every `lanes`-th eight k: 16 or 32 bytes of each row of rhs at once, neighbours side
// by side; each eight k of lhs, which the first caches hold, meet four rows. Then sums over the invocations.
//
// `lanes`: 32 to 256, fewer where there are many columns.
// Budget: 32 accumulators, 32 for rhs, 8 for lhs; 16 bytes of workgroup memory for an invocation. Bound: memory (rhs, read
// once); a byte of 16-bit weights costs 2·rows bytes of f32 lhs from the first cache.

// Rows of lhs.
override rows: u32 = 1u;

fn row(index: u32, lane: u32) {
    if index >= p.tiles { return; }
    let batch = p.first_batch + index / p.tiles_n;
    let wide = select(4u, 2u, gated);
    let column = (index % p.tiles_n) * wide;
    let last = p.n - 1u;
    let b0 = rhs_begin(false, batch, min(column, last));
    let b1 = rhs_begin(false, batch, min(column + 1u, last));
    let b2 = rhs_begin(gated, batch, min(column + 2u - select(0u, 2u, gated), last));
    let b3 = rhs_begin(gated, batch, min(column + 3u - select(0u, 2u, gated), last));
    let begin = lhs_begin(batch, 0u);
    var c: array<vec4<f32>, 8>;
    for (var k = 8u * lane; k < p.k; k += 8u * lanes) {
        let w0 = values_of(rhs_octet(false, b0, k, p.k), rhs_dtype, rhs_vectors);
        let w1 = values_of(rhs_octet(false, b1, k, p.k), rhs_dtype, rhs_vectors);
        let w2 = values_of(rhs_octet(true, b2, k, p.k), rhs_dtype, rhs_vectors);
        let w3 = values_of(rhs_octet(true, b3, k, p.k), rhs_dtype, rhs_vectors);
        let lo = transpose(mat4x4(w0.lo, w1.lo, w2.lo, w3.lo));
        let hi = transpose(mat4x4(w0.hi, w1.hi, w2.hi, w3.hi));
        // Unrolled by hand: accumulators at places that are known stay in registers with every compiler.
        c[0] = add_row(begin, k, lo, hi, c[0]);
        if rows > 1u { c[1] = add_row(begin + p.lhs_row, k, lo, hi, c[1]); }
        if rows > 2u { c[2] = add_row(begin + 2u * p.lhs_row, k, lo, hi, c[2]); }
        if rows > 3u { c[3] = add_row(begin + 3u * p.lhs_row, k, lo, hi, c[3]); }
        if rows > 4u { c[4] = add_row(begin + 4u * p.lhs_row, k, lo, hi, c[4]); }
        if rows > 5u { c[5] = add_row(begin + 5u * p.lhs_row, k, lo, hi, c[5]); }
        if rows > 6u { c[6] = add_row(begin + 6u * p.lhs_row, k, lo, hi, c[6]); }
        if rows > 7u { c[7] = add_row(begin + 7u * p.lhs_row, k, lo, hi, c[7]); }
    }
    put_row(batch, 0u, column, c[0], lane);
    if rows > 1u { put_row(batch, 1u, column, c[1], lane); }
    if rows > 2u { put_row(batch, 2u, column, c[2], lane); }
    if rows > 3u { put_row(batch, 3u, column, c[3], lane); }
    if rows > 4u { put_row(batch, 4u, column, c[4], lane); }
    if rows > 5u { put_row(batch, 5u, column, c[5], lane); }
    if rows > 6u { put_row(batch, 6u, column, c[6], lane); }
    if rows > 7u { put_row(batch, 7u, column, c[7], lane); }
}

fn add_row(begin: u32, k: u32, lo: mat4x4<f32>, hi: mat4x4<f32>, c: vec4<f32>) -> vec4<f32> {
    let a = values_of(lhs_octet(begin, k, p.k), lhs_dtype, lhs_vectors);
    return add_products(a.hi, hi, add_products(a.lo, lo, c));
}

fn put_row(batch: u32, row: u32, column: u32, c: vec4<f32>, lane: u32) {
    let sums = sum_all_4(c, lane);
    if lane == row { put(batch, row, column, min(select(4u, 2u, gated), p.n - column), sums, sums.zwzw); }
}
