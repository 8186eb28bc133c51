// Adding up rows by the numbers of those that they go to, without float atomics: the same bits every time.
//
// Bindings: x [n, width] with contiguous rows at any distance, of `x_dtype`; ids [n]; out [count, width] f32; scratch,
// 4-byte words: for each row of out the first row of x that goes there [count], for each row of x the next one that goes
// where it goes [n]; faults.
//
// Algorithm: `clear` empties the lists; in `link` row i of x puts itself first where none before it goes there (the least
// number wins, whatever the order), and looks for the next one behind it; in `add` an invocation for each value of out
// walks the list of its row, so in the order of i.
//
// Budget: about 16 registers, no workgroup memory. Bound: memory, one read of x and one write of out. `link` reads up to
// n·n/2 ids from the cache, fewer where ids repeat.

struct Params { at: vec4<u32>, count: u32, width: u32, n: u32, x_stride: u32, limit: u32, fault_op: u32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<storage, read_write> scratch: array<atomic<u32>>;
@group(0) @binding(4) var<storage, read_write> faults: Faults;
override x_dtype: u32 = 0u;

const NONE = 0xffffffffu;

@compute @workgroup_size(256)
fn clear(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let r = flat_workgroup(workgroup, grid) * 256u + lane;
    if r < p.count { atomicStore(&scratch[r], NONE); }
}

@compute @workgroup_size(256)
fn link(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat_workgroup(workgroup, grid) * 256u + lane;
    if i >= p.n { return; }
    let id = ids[p.at.y + i];
    // A negative id reads as one above 2^31.
    if id >= p.limit {
        fault(id, i, p.limit);
        return;
    }
    atomicMin(&scratch[id], i);
    var next = i + 1u;
    while next < p.n && ids[p.at.y + next] != id { next++; }
    atomicStore(&scratch[p.count + i], select(NONE, next, next < p.n));
}

@compute @workgroup_size(256)
fn add(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat_workgroup(workgroup, grid) * 256u + lane;
    if i >= p.count * p.width { return; }
    let column = p.at.x + i % p.width;
    var sum = 0.0;
    var row = atomicLoad(&scratch[i / p.width]);
    while row != NONE {
        let place = column + row * p.x_stride;
        sum += decode(x_dtype, x[vector_of(x_dtype, place)][word_of(x_dtype, place)], place);
        row = atomicLoad(&scratch[p.count + row]);
    }
    out[p.at.z + i] = sum;
}
