// Matrix products in register tiles.
//
// Bindings: as common/product.wgsl has them; rhs plain or in quantised blocks. Results are contiguous, or partial sums
// [splits, batch, m, cols or 2·cols] in f32 that gemm_split.wgsl adds up.
//
// Algorithm:
// 1. A workgroup owns `block` x `block` results (with `gated` half as many columns: the tile's left half are sums of the
//    gate, its right half those of the other matrix), an invocation 8 x 8 of them. Workgroups go down eight tiles of m
//    before the next of n, so that both operands are found in the cache.
// 2. `block`/8 k at a time, each invocation brings eight k of a row of each operand into workgroup memory, four k to a
//    vector: neither loads nor stores need a transposed order. Two buffers: the next k are loaded while these are used.
// 3. An invocation reads 16 vectors for 256 fused multiply-adds, neighbours from neighbouring places. Its columns are
//    two runs of four, so that narrow results are whole words.
//
// `block`: 128 (256 invocations, 32 KiB of workgroup memory) or 64 (64 invocations, 8 KiB).
// Budget: 64 accumulators, 36 for operands, 16 for what is being loaded: two workgroups of 128 x 128 on a multiprocessor.
// Bound: arithmetic; 1/32 byte (f32, 128) from the cache for a flop, 1/2 byte from workgroup memory, half of that broadcast.

override block: u32 = 128u;
override lanes: u32 = 256u;
// Vectors of one operand's two buffers.
override tile_vectors: u32 = 1024u;
// Whether results are partial sums.
override partial_sums: bool = false;
var<workgroup> lhs_tile: array<vec4<f32>, tile_vectors>;
var<workgroup> rhs_tile: array<vec4<f32>, tile_vectors>;

@compute @workgroup_size(lanes)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat_workgroup(workgroup, grid);
    if tile >= p.tiles { return; }
    let per_product = p.tiles_m * p.tiles_n;
    let product = tile / per_product;
    let batch = p.first_batch + product / p.splits;
    let split = product % p.splits;
    let place = tile_place(tile % per_product);
    let first_row = place.x * block;
    let first_column = place.y * select(block, block / 2u, gated);
    let begin = split * p.split_k;
    let end = min(p.k, begin + p.split_k);

    // What this invocation loads: a row of each tile, and which eight k. Slots of rhs are in the order in which
    // invocations read them. Rows beyond the last are taken for the last one.
    let step = block / 8u;
    let slot = lane % block;
    let octet = lane / block;
    let other = slot / step >= 4u;
    let column = first_column + 4u * (slot % step) + (slot / step) % 4u + select(0u, block / 2u, other && !gated);
    let lhs_row = lhs_begin(batch, min(first_row + slot, p.m - 1u));
    let rhs_row = rhs_begin(gated && other, batch, min(column, p.n - 1u));

    // What it computes: rows ty + i·step, columns 4·tx to 4·tx + 3 of both halves.
    let tx = lane % step;
    let ty = lane / step;
    var c: array<vec4<f32>, 16>;
    var a = lhs_octet(lhs_row, begin + 8u * octet, end);
    var b = rhs_octet(other, rhs_row, begin + 8u * octet, end);
    var buffer = 0u;
    for (var k = begin; k < end; k += step) {
        let at = buffer + 2u * octet * block + slot;
        let a_values = values_of(a, lhs_dtype, lhs_vectors);
        let b_values = values_of(b, rhs_dtype, rhs_vectors);
        lhs_tile[at] = a_values.lo;
        lhs_tile[at + block] = a_values.hi;
        rhs_tile[at] = b_values.lo;
        rhs_tile[at + block] = b_values.hi;
        workgroupBarrier();
        a = lhs_octet(lhs_row, k + step + 8u * octet, end);
        b = rhs_octet(other, rhs_row, k + step + 8u * octet, end);
        for (var q = 0u; q < step / 4u; q++) {
            let from_rhs = buffer + q * block + tx;
            let left = transpose(mat4x4(rhs_tile[from_rhs], rhs_tile[from_rhs + step],
                                        rhs_tile[from_rhs + 2u * step], rhs_tile[from_rhs + 3u * step]));
            let right = transpose(mat4x4(rhs_tile[from_rhs + 4u * step], rhs_tile[from_rhs + 5u * step],
                                         rhs_tile[from_rhs + 6u * step], rhs_tile[from_rhs + 7u * step]));
            let from_lhs = buffer + q * block + ty;
            // Unrolled by hand: accumulators at places that are known stay in registers with every compiler.
            let a0 = lhs_tile[from_lhs];
            c[0] = add_products(a0, left, c[0]);
            c[1] = add_products(a0, right, c[1]);
            let a1 = lhs_tile[from_lhs + step];
            c[2] = add_products(a1, left, c[2]);
            c[3] = add_products(a1, right, c[3]);
            let a2 = lhs_tile[from_lhs + 2u * step];
            c[4] = add_products(a2, left, c[4]);
            c[5] = add_products(a2, right, c[5]);
            let a3 = lhs_tile[from_lhs + 3u * step];
            c[6] = add_products(a3, left, c[6]);
            c[7] = add_products(a3, right, c[7]);
            let a4 = lhs_tile[from_lhs + 4u * step];
            c[8] = add_products(a4, left, c[8]);
            c[9] = add_products(a4, right, c[9]);
            let a5 = lhs_tile[from_lhs + 5u * step];
            c[10] = add_products(a5, left, c[10]);
            c[11] = add_products(a5, right, c[11]);
            let a6 = lhs_tile[from_lhs + 6u * step];
            c[12] = add_products(a6, left, c[12]);
            c[13] = add_products(a6, right, c[13]);
            let a7 = lhs_tile[from_lhs + 7u * step];
            c[14] = add_products(a7, left, c[14]);
            c[15] = add_products(a7, right, c[15]);
        }
        buffer = tile_vectors / 2u - buffer;
    }

    let at = vec4(batch, split, first_row + ty, first_column + 4u * tx);
    put_row(at, c[0], c[1]);
    put_row(at + vec4(0u, 0u, step, 0u), c[2], c[3]);
    put_row(at + vec4(0u, 0u, 2u * step, 0u), c[4], c[5]);
    put_row(at + vec4(0u, 0u, 3u * step, 0u), c[6], c[7]);
    put_row(at + vec4(0u, 0u, 4u * step, 0u), c[8], c[9]);
    put_row(at + vec4(0u, 0u, 5u * step, 0u), c[10], c[11]);
    put_row(at + vec4(0u, 0u, 6u * step, 0u), c[12], c[13]);
    put_row(at + vec4(0u, 0u, 7u * step, 0u), c[14], c[15]);
}

// Writes an invocation's part of a row; `at` are batch, split, row and first column.
fn put_row(at: vec4<u32>, left: vec4<f32>, right: vec4<f32>) {
    if at.z >= p.m { return; }
    let column = at.w;
    let count = min(4u, max(column, p.n) - column);
    // Where the right half of the tile goes on.
    let next = column + block / 2u;
    let next_count = select(min(4u, max(next, p.n) - next), count, gated);
    if partial_sums {
        let width = select(p.cols, 2u * p.cols, gated);
        let begin = p.at[1].y + ((at.y * p.batches + at.x) * p.m + at.z) * width + p.first;
        store_run(begin + column, count, bitcast<vec4<u32>>(left));
        store_run(begin + select(next, p.cols + column, gated), next_count, bitcast<vec4<u32>>(right));
        return;
    }
    if count > 0u { put(at.x, at.z, column, count, left, right); }
    if !gated && next_count > 0u { put(at.x, at.z, next, next_count, right, right); }
}
