// A step of AdamW, in place.
//
// Bindings: grad [n], step_params [4] (learning rate, corrections of both means, factor of the gradient); param, m, v [n],
// all f32, updated; weight [n] bf16, written if there is one.
//
// Algorithm: an invocation owns a word of `weight`, so two parameters next to each other. Operations are in PyTorch's
// order.
//
// Budget: about 20 registers, no workgroup memory. Bound: memory, 28 bytes (with `weight` 30) for each parameter.

struct Params { at: array<vec4<u32>, 2>, n: u32, words: u32, rest1: f32, beta2: f32, rest2: f32, eps: f32, weight_decay: f32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> grad: array<f32>;
@group(0) @binding(1) var<storage, read> step_params: array<f32>;
@group(0) @binding(2) var<storage, read_write> param: array<f32>;
@group(0) @binding(3) var<storage, read_write> m: array<f32>;
@group(0) @binding(4) var<storage, read_write> v: array<f32>;
@group(0) @binding(5) var<storage, read_write> weight: array<u32>;
override has_weight: bool = false;

// The new value of parameter i.
fn update(i: u32) -> f32 {
    let at = p.at[0];
    let lr = step_params[at.y];
    let g = step_params[at.y + 3u] * grad[at.x + i];
    let old = param[at.z + i] * (1.0 - lr * p.weight_decay);
    let mean = m[at.w + i] + p.rest1 * (g - m[at.w + i]);
    let square = p.beta2 * v[p.at[1].x + i] + p.rest2 * g * g;
    let divisor = sqrt(square) / sqrt(step_params[at.y + 2u]) + p.eps;
    let next = old - lr / step_params[at.y + 1u] * (mean / divisor);
    m[at.w + i] = mean;
    v[p.at[1].x + i] = square;
    param[at.z + i] = next;
    return next;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let w = flat_workgroup(workgroup, grid) * 256u + lane;
    if w >= p.words { return; }
    let at = p.at[1].y;
    let word = (at >> 1u) + w;
    var values = vec2(0.0);
    var mask = 0u;
    for (var k = 0u; k < 2u; k++) {
        let place = word * 2u + k;
        if place >= at && place - at < p.n {
            values[k] = update(place - at);
            mask |= 0xffffu << (k * 16u);
        }
    }
    if has_weight {
        let bits = to_bf16(vec4(values, 0.0, 0.0));
        weight[word] = ((bits.x | (bits.y << 16u)) & mask) | (weight[word] & ~mask);
    }
}
