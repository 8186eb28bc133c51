// The last step of convolutions whose products were split: sums of the splits, in their order, with bias and activation.
//
// Bindings: partial [splits, total] of f32; bias; out contiguous, of `out_dtype`. A channel of the result has `points` elements.
//
// Algorithm: an invocation computes 16 bytes of the result. Budget: about 20 registers, no workgroup memory. Bound: memory,
// mostly the cache's: partial sums were written just before.

struct Params { at: vec4<u32>, total: u32, splits: u32, points: u32, channels: u32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<u32>>;
override out_dtype: u32 = 0u;
override has_bias: bool = false;
override activation: u32 = 0u;

fn out_at() -> u32 { return p.at.z; }

fn quad_bits(i: u32) -> vec4<u32> {
    let e = min(vec4(i) + vec4(0u, 1u, 2u, 3u), vec4(p.total - 1u));
    var sum = vec4(0.0);
    for (var s = 0u; s < p.splits; s++) {
        let at = vec4(p.at.x + s * p.total) + e;
        sum += vec4(partial[at.x], partial[at.y], partial[at.z], partial[at.w]);
    }
    if has_bias {
        let at = vec4(p.at.y) + e / vec4(p.points) % vec4(p.channels);
        sum += vec4(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
    }
    return encode4(out_dtype, activate_4(activation, sum));
}
