// The entry point of kernels that give each workgroup one row, and sums and maxima over its invocations, through its
// memory, always in the same order. The module defines
//   fn row(index: u32, lane: u32)    what invocation `lane` of the workgroup does for row `index`
// and calls the reductions where all invocations do; each gets the result. `lanes`, their number, is a power of two.

override lanes: u32 = 256u;
var<workgroup> partial: array<f32, lanes>;

@compute @workgroup_size(lanes)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    row(flat_workgroup(id, grid), lane);
}

fn sum_all(v: f32, lane: u32) -> f32 {
    partial[lane] = v;
    for (var step = lanes / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step { partial[lane] += partial[lane + step]; }
    }
    workgroupBarrier();
    let all = partial[0];
    workgroupBarrier();
    return all;
}

fn max_all(v: f32, lane: u32) -> f32 {
    partial[lane] = v;
    for (var step = lanes / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step { partial[lane] = max(partial[lane], partial[lane + step]); }
    }
    workgroupBarrier();
    let all = partial[0];
    workgroupBarrier();
    return all;
}

var<workgroup> partial_4: array<vec4<f32>, lanes>;
fn sum_all_4(v: vec4<f32>, lane: u32) -> vec4<f32> {
    partial_4[lane] = v;
    for (var step = lanes / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step { partial_4[lane] += partial_4[lane + step]; }
    }
    workgroupBarrier();
    let all = partial_4[0];
    workgroupBarrier();
    return all;
}
