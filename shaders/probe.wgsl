// What an adapter can do at most: chains of multiply-adds, eight of them in each invocation to cover their latency, and
// reads of a buffer, spread over all invocations.

struct Params { at: vec4<u32>, steps: u32, vectors: u32 }
@group(1) @binding(0) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read_write> chains: array<f32>;

@compute @workgroup_size(256)
fn fma_chains(@builtin(global_invocation_id) id: vec3<u32>) {
    let x = vec4(0.999);
    let y = vec4(f32(id.x) * 1e-9);
    var a = array<vec4<f32>, 8>(y, y, y, y, y, y, y, y);
    for (var i = 0u; i < p.steps; i++) {
        for (var round = 0u; round < 16u; round++) {
            a[0] = fma(a[0], x, y);
            a[1] = fma(a[1], x, y);
            a[2] = fma(a[2], x, y);
            a[3] = fma(a[3], x, y);
            a[4] = fma(a[4], x, y);
            a[5] = fma(a[5], x, y);
            a[6] = fma(a[6], x, y);
            a[7] = fma(a[7], x, y);
        }
    }
    chains[id.x] = dot(a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7], vec4(1.0));
}

@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;

@compute @workgroup_size(256)
fn stream(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let stride = grid.x * 256u;
    var sum = vec4(0u);
    for (var i = 0u; i < p.steps; i++) {
        for (var v = id.x; v < p.vectors; v += stride) { sum ^= source[v] + vec4(i); }
    }
    sums[id.x] = sum.x ^ sum.y ^ sum.z ^ sum.w;
}
