// What an adapter's matrix units can do at most: four chains of 16x16x16 products of f16 into f32 in a subgroup. (The 32
// invocations of a workgroup are one subgroup on adapters that have them.)

struct Params { at: vec4<u32>, steps: u32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read_write> out: array<f32>;

var<workgroup> ones: array<f16, 256>;

@compute @workgroup_size(32)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) id: vec3<u32>) {
    for (var i = lane; i < 256u; i += 32u) { ones[i] = f16(0.0625); }
    workgroupBarrier();
    let a = coopLoad<coop_mat16x16<f16, A>>(&ones[0], 16u);
    let b = coopLoad<coop_mat16x16<f16, B>>(&ones[0], 16u);
    var c0 = coop_mat16x16<f32, C>();
    var c1 = coop_mat16x16<f32, C>();
    var c2 = coop_mat16x16<f32, C>();
    var c3 = coop_mat16x16<f32, C>();
    for (var i = 0u; i < p.steps; i++) {
        c0 = coopMultiplyAdd(a, b, c0);
        c1 = coopMultiplyAdd(a, b, c1);
        c2 = coopMultiplyAdd(a, b, c2);
        c3 = coopMultiplyAdd(a, b, c3);
    }
    coopStore(c0 + c1 + c2 + c3, &out[p.at.x + (id.x % 32u) * 256u], 16u);
}
