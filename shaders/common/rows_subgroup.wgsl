// As rows.wgsl, by subgroup operations and one round through the workgroup's memory, whatever the subgroups' size.

override lanes: u32 = 256u;
var<workgroup> partial: array<f32, lanes>;
// The subgroup's number, how many the workgroup has, and the invocation's place in its own.
var<private> subgroup: vec3<u32>;

@compute @workgroup_size(lanes)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup_id: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) place: u32,
) {
    subgroup = vec3(subgroup_id, subgroups, place);
    row(flat_workgroup(id, grid), lane);
}

fn sum_all(v: f32, lane: u32) -> f32 {
    let mine = subgroupAdd(v);
    if subgroup.z == 0u { partial[subgroup.x] = mine; }
    workgroupBarrier();
    var all = 0.0;
    for (var i = 0u; i < subgroup.y; i++) { all += partial[i]; }
    workgroupBarrier();
    return all;
}

fn max_all(v: f32, lane: u32) -> f32 {
    let mine = subgroupMax(v);
    if subgroup.z == 0u { partial[subgroup.x] = mine; }
    workgroupBarrier();
    var all = partial[0];
    for (var i = 1u; i < subgroup.y; i++) { all = max(all, partial[i]); }
    workgroupBarrier();
    return all;
}

var<workgroup> partial_4: array<vec4<f32>, lanes>;
fn sum_all_4(v: vec4<f32>, lane: u32) -> vec4<f32> {
    let mine = subgroupAdd(v);
    if subgroup.z == 0u { partial_4[subgroup.x] = mine; }
    workgroupBarrier();
    var all = vec4(0.0);
    for (var i = 0u; i < subgroup.y; i++) { all += partial_4[i]; }
    workgroupBarrier();
    return all;
}
