// The entry point of convolutions as products of matrices that are gathered while they are multiplied. The module defines
//   fn lhs_line(group: u32, row: u32) -> vec4<i32>, fn lhs_step(k: u32) -> vec4<i32>    whose sum is the place of lhs[row, k]
//   fn rhs_line(group: u32, col: u32) -> vec4<i32>, fn rhs_step(k: u32) -> vec4<i32>    the same of rhs[k, col]
//   fn lhs_value(place: vec4<i32>) -> f32, fn rhs_value(place: vec4<i32>) -> f32
//   fn out_line(group: u32, row: u32) -> vec4<i32>, fn out_column(col: u32) -> vec4<i32>
//   fn out_place(place: vec4<i32>) -> u32    the element of the result at the sum of the two, NOWHERE where there is none
//   fn channel(group: u32, row: u32) -> u32    whose bias is added
//
// Algorithm: a workgroup owns a tile of rows x 64 columns of a group, and the steps of a split. The places of its rows and
// columns are computed once, those of the next 16 steps while the present ones are multiplied, so that gathering an element
// is an addition and the checks of its point. Factors lie in workgroup memory step by step; an invocation multiplies 8
// rows by 4 columns. Lines beyond the last are the last one's, computed and left out; steps beyond the last are zeros.
//
// Tunables: lanes_rows = 4, 8, 16: tiles of 32, 64, 128 rows by 64, 128, 256 invocations; which way lanes lie when they
// gather, so that neighbours read neighbours.
//
// Budget: workgroup memory 8.5, 11, 16 KiB; 32 sums and about 50 more registers: 6 workgroups of 128 share a multiprocessor.
// Bound: arithmetic; 3 vectors from workgroup memory for 32 multiply-adds, and from the cache 8 KiB for the 128 Ki flops of
// 16 steps of a tile of 64 rows: 1/16 byte per flop, 3/64 in tiles of 128 rows.

const tile_cols = 64u;
const tile_depth = 16u;
override lanes_rows: u32 = 8u;
override lhs_along_depth: bool = true;
override rhs_along_depth: bool = false;

override lanes: u32 = 16u * lanes_rows;
override tile_rows: u32 = 8u * lanes_rows;
// Vectors from one step to the next: an odd number, so that lanes that write neighbouring steps meet different banks.
override lhs_pitch: u32 = 2u * lanes_rows + 1u;
const rhs_pitch = tile_cols / 4u + 1u;
override lhs_vectors: u32 = tile_depth * lhs_pitch;

var<workgroup> lhs_tile: array<vec4<f32>, lhs_vectors>;
var<workgroup> rhs_tile: array<vec4<f32>, tile_depth * rhs_pitch>;
var<workgroup> lhs_lines: array<vec4<i32>, tile_rows>;
var<workgroup> rhs_lines: array<vec4<i32>, tile_cols>;
var<workgroup> lhs_steps: array<vec4<i32>, tile_depth>;
var<workgroup> rhs_steps: array<vec4<i32>, tile_depth>;

fn place_steps(lane: u32, begin: u32) {
    if lane < tile_depth {
        lhs_steps[lane] = lhs_step(begin + lane);
        rhs_steps[lane] = rhs_step(begin + lane);
    }
}

// Vector and step of a unit of gathering.
fn unit(i: u32, vectors: u32, along_depth: bool) -> vec2<u32> {
    if along_depth { return vec2(i / tile_depth, i % tile_depth); }
    return vec2(i % vectors, i / vectors);
}

fn gather(lane: u32, steps: u32) {
    for (var i = lane; i < tile_depth * lanes_rows * 2u; i += lanes) {
        let u = unit(i, lanes_rows * 2u, lhs_along_depth);
        var v = vec4(0.0);
        if u.y < steps {
            let step = lhs_steps[u.y];
            for (var j = 0u; j < 4u; j++) { v[j] = lhs_value(lhs_lines[u.x * 4u + j] + step); }
        }
        lhs_tile[u.y * lhs_pitch + u.x] = v;
    }
    for (var i = lane; i < tile_depth * tile_cols / 4u; i += lanes) {
        let u = unit(i, tile_cols / 4u, rhs_along_depth);
        var v = vec4(0.0);
        if u.y < steps {
            let step = rhs_steps[u.y];
            for (var j = 0u; j < 4u; j++) { v[j] = rhs_value(rhs_lines[u.x * 4u + j] + step); }
        }
        rhs_tile[u.y * rhs_pitch + u.x] = v;
    }
}

@compute @workgroup_size(lanes)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // Workgroups that follow one another share columns, of which x is gathered from the cache.
    var index = flat_workgroup(id, grid);
    let first_row = (index % p.row_blocks) * tile_rows;
    index /= p.row_blocks;
    let group = index % p.groups;
    index /= p.groups;
    let first_col = (index % p.col_blocks) * tile_cols;
    let part = index / p.col_blocks;
    if part >= p.splits { return; }
    let begin = part * p.split_depth;
    let end = min(begin + p.split_depth, p.depth);

    for (var i = lane; i < tile_rows; i += lanes) {
        lhs_lines[i] = lhs_line(group, min(first_row + i, p.rows - 1u));
    }
    for (var i = lane; i < tile_cols; i += lanes) {
        rhs_lines[i] = rhs_line(group, min(first_col + i, p.cols - 1u));
    }
    place_steps(lane, begin);
    workgroupBarrier();

    let col = lane % 16u;
    let row = lane / 16u;
    var acc: array<vec4<f32>, 8>;
    for (var k = begin; k < end; k += tile_depth) {
        gather(lane, end - k);
        workgroupBarrier();
        place_steps(lane, k + tile_depth);
        for (var s = 0u; s < tile_depth; s++) {
            let a = lhs_tile[s * lhs_pitch + row * 2u];
            let b = lhs_tile[s * lhs_pitch + row * 2u + 1u];
            let v = rhs_tile[s * rhs_pitch + col];
            acc[0] = fma(vec4(a.x), v, acc[0]);
            acc[1] = fma(vec4(a.y), v, acc[1]);
            acc[2] = fma(vec4(a.z), v, acc[2]);
            acc[3] = fma(vec4(a.w), v, acc[3]);
            acc[4] = fma(vec4(b.x), v, acc[4]);
            acc[5] = fma(vec4(b.y), v, acc[5]);
            acc[6] = fma(vec4(b.z), v, acc[6]);
            acc[7] = fma(vec4(b.w), v, acc[7]);
        }
        workgroupBarrier();
    }

    var columns: array<vec4<i32>, 4>;
    for (var j = 0u; j < 4u; j++) { columns[j] = out_column(min(first_col + col * 4u + j, p.cols - 1u)); }
    for (var i = 0u; i < 8u; i++) {
        let r = first_row + row * 8u + i;
        if r >= p.rows { return; }
        let line = out_line(group, r);
        var places = vec4(NOWHERE);
        for (var j = 0u; j < 4u; j++) {
            if first_col + col * 4u + j < p.cols { places[j] = out_place(line + columns[j]); }
        }
        leave(part, channel(group, r), places, acc[i]);
    }
}
