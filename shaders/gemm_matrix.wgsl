// Matrix products of f16 by f16 on cooperative matrices, with sums in f32.
//
// Bindings: as common/product.wgsl has them, lhs and rhs f16.
//
// Algorithm:
// 1. A workgroup of eight subgroups owns 128 x 128 results (with `gated` 128 x 64, and as many sums for the other matrix);
//    a subgroup owns 64 x 32 sums, 4 x 2 matrices. With `gated` its left matrices are the gate's and the right ones those
//    of the same columns of the other matrix.
// 2. 32 k at a time, both operands are brought into workgroup memory as they lie, k contiguous: lhs is row-major there and
//    rhs, whose rows are columns of the product, column-major. What lies beyond m, n is the last row, beyond k zeros.
// 3. At the end each subgroup puts its matrices, one by one, into 1 KiB of workgroup memory, from where they pass
//    through the epilogue in runs of four.
//
// `lanes`: eight subgroups, of 32 or 64 invocations. Rows in workgroup memory are 80 bytes apart, so that eight of them
// fall into different banks.
// Budget: 64 accumulators (subgroups of 32), 28 KiB of workgroup memory. Bound: the matrix units; 1/64 byte from the cache
// for a flop, 3/64 byte from workgroup memory.

override lanes: u32 = 256u;
const BLOCK = 128u;
const STRIDE = 40u;
var<workgroup> lhs_tile: array<f16, 5120>;
var<workgroup> rhs_tile: array<f16, 5120>;
var<workgroup> stage: array<f32, 2048>;

struct Halves { lo: vec4<f16>, hi: vec4<f16> }

// Eight values as f16 again, which loses nothing: words cannot be taken for f16 in this dialect.
fn halves_of(octet: Octet, vectors: bool) -> Halves {
    let values = values_of(octet, F16, vectors);
    return Halves(vec4<f16>(values.lo), vec4<f16>(values.hi));
}

@compute @workgroup_size(lanes)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) within: u32,
) {
    // Nobody returns early: matrices want all invocations. A workgroup beyond the last tile has no rows to write.
    let tile = min(flat_workgroup(workgroup, grid), p.tiles - 1u);
    let live = flat_workgroup(workgroup, grid) < p.tiles;
    let batch = p.first_batch + tile / (p.tiles_m * p.tiles_n);
    let place = tile_place(tile % (p.tiles_m * p.tiles_n));
    let first_row = select(p.m, place.x * BLOCK, live);
    let first_column = place.y * select(BLOCK, BLOCK / 2u, gated);

    let sub_row = 64u * (subgroup / 4u);
    let sub_slot = 32u * (subgroup % 4u);
    var c0 = coop_mat16x16<f32, C>();
    var c1 = coop_mat16x16<f32, C>();
    var c2 = coop_mat16x16<f32, C>();
    var c3 = coop_mat16x16<f32, C>();
    var d0 = coop_mat16x16<f32, C>();
    var d1 = coop_mat16x16<f32, C>();
    var d2 = coop_mat16x16<f32, C>();
    var d3 = coop_mat16x16<f32, C>();
    for (var k = 0u; k < p.k; k += 32u) {
        for (var i = lane; i < 512u; i += lanes) {
            let slot = i / 4u;
            let from_k = k + 8u * (i % 4u);
            let at = slot * STRIDE + 8u * (i % 4u);
            let begin = lhs_begin(batch, min(first_row + slot, p.m - 1u));
            let a = halves_of(lhs_octet(begin, from_k, p.k), lhs_vectors);
            lhs_tile[at] = a.lo.x;
            lhs_tile[at + 1u] = a.lo.y;
            lhs_tile[at + 2u] = a.lo.z;
            lhs_tile[at + 3u] = a.lo.w;
            lhs_tile[at + 4u] = a.hi.x;
            lhs_tile[at + 5u] = a.hi.y;
            lhs_tile[at + 6u] = a.hi.z;
            lhs_tile[at + 7u] = a.hi.w;
            let other = gated && (slot & 16u) != 0u;
            let column = first_column + select(slot, 16u * (slot / 32u) + slot % 16u, gated);
            let rhs_row = rhs_begin(other, batch, min(column, p.n - 1u));
            let b = halves_of(rhs_octet(other, rhs_row, from_k, p.k), rhs_vectors);
            rhs_tile[at] = b.lo.x;
            rhs_tile[at + 1u] = b.lo.y;
            rhs_tile[at + 2u] = b.lo.z;
            rhs_tile[at + 3u] = b.lo.w;
            rhs_tile[at + 4u] = b.hi.x;
            rhs_tile[at + 5u] = b.hi.y;
            rhs_tile[at + 6u] = b.hi.z;
            rhs_tile[at + 7u] = b.hi.w;
        }
        workgroupBarrier();
        for (var kk = 0u; kk < 32u; kk += 16u) {
            let from_rhs = sub_slot * STRIDE + kk;
            let left = coopLoad<coop_mat16x16<f16, B>>(&rhs_tile[from_rhs], STRIDE);
            let right = coopLoad<coop_mat16x16<f16, B>>(&rhs_tile[from_rhs + 16u * STRIDE], STRIDE);
            let from_lhs = sub_row * STRIDE + kk;
            let a0 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[from_lhs], STRIDE);
            c0 = coopMultiplyAdd(a0, left, c0);
            d0 = coopMultiplyAdd(a0, right, d0);
            let a1 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[from_lhs + 16u * STRIDE], STRIDE);
            c1 = coopMultiplyAdd(a1, left, c1);
            d1 = coopMultiplyAdd(a1, right, d1);
            let a2 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[from_lhs + 32u * STRIDE], STRIDE);
            c2 = coopMultiplyAdd(a2, left, c2);
            d2 = coopMultiplyAdd(a2, right, d2);
            let a3 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[from_lhs + 48u * STRIDE], STRIDE);
            c3 = coopMultiplyAdd(a3, left, c3);
            d3 = coopMultiplyAdd(a3, right, d3);
        }
        workgroupBarrier();
    }

    let width = lanes / 8u;
    let own = 256u * subgroup;
    let row = first_row + sub_row;
    let column = first_column + select(sub_slot, sub_slot / 2u, gated);
    coopStoreT(c0, &stage[own], 16u);
    let left_0 = staged(own, within, width);
    coopStoreT(d0, &stage[own], 16u);
    put_matrices(batch, row, column, left_0, staged(own, within, width), within, width);
    coopStoreT(c1, &stage[own], 16u);
    let left_1 = staged(own, within, width);
    coopStoreT(d1, &stage[own], 16u);
    put_matrices(batch, row + 16u, column, left_1, staged(own, within, width), within, width);
    coopStoreT(c2, &stage[own], 16u);
    let left_2 = staged(own, within, width);
    coopStoreT(d2, &stage[own], 16u);
    put_matrices(batch, row + 32u, column, left_2, staged(own, within, width), within, width);
    coopStoreT(c3, &stage[own], 16u);
    let left_3 = staged(own, within, width);
    coopStoreT(d3, &stage[own], 16u);
    put_matrices(batch, row + 48u, column, left_3, staged(own, within, width), within, width);
}

// Runs `within` and `within + width` of the 64 that a matrix has. The workgroup waits before and after.
fn staged(own: u32, within: u32, width: u32) -> array<vec4<f32>, 2> {
    workgroupBarrier();
    let runs = array(run(own, within), run(own, (within + width) & 63u));
    workgroupBarrier();
    return runs;
}
fn run(own: u32, i: u32) -> vec4<f32> {
    let at = own + 4u * i;
    return vec4(stage[at], stage[at + 1u], stage[at + 2u], stage[at + 3u]);
}

// Results of two matrices side by side, or of a gate and another matrix.
fn put_matrices(
    batch: u32, row: u32, column: u32,
    left: array<vec4<f32>, 2>, right: array<vec4<f32>, 2>,
    within: u32, width: u32,
) {
    put_runs(batch, row, column, left[0], right[0], within);
    if width < 64u { put_runs(batch, row, column, left[1], right[1], within + width); }
}
fn put_runs(batch: u32, row: u32, column: u32, left: vec4<f32>, right: vec4<f32>, i: u32) {
    let r = row + i / 4u;
    let c = column + 4u * (i % 4u);
    if r >= p.m { return; }
    if c < p.n { put(batch, r, c, min(4u, p.n - c), left, right); }
    if !gated && c + 16u < p.n { put(batch, r, c + 16u, min(4u, p.n - c - 16u), right, right); }
}
