// The results of group norm from the groups' statistics: (x - mean) / deviation · weight[c] + bias[c], with SiLU if asked.
//
// Bindings: x [batch, channels, inner] contiguous, of `x_dtype`; weight and bias [channels] f32; statistics, f32: mean and
// 1/deviation of each group; out contiguous, of `out_dtype`.
//
// Algorithm: an invocation computes the elements of 16 bytes of the result, four at a time. Where channels end at
// multiples of four, four elements share a channel.
//
// Budget: about 30 registers, no workgroup memory. Bound: memory (one read, one write), SiLU included.

struct Params { at: array<vec4<u32>, 2>, total: u32, inner: u32, channels: u32, group_len: u32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> statistics: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<u32>>;
override x_dtype: u32 = 0u;
override out_dtype: u32 = 0u;
override affine: bool = false;
override silu: bool = false;
// Whether quads begin at multiples of four in x, and whether besides no quad spans channels.
override quads: bool = true;
override one_channel: bool = true;

fn out_at() -> u32 { return p.at[1].x; }

fn x_at(i: u32) -> f32 { return decode(x_dtype, x[vector_of(x_dtype, i)][word_of(x_dtype, i)], i); }

// What element i is multiplied by, its group's mean, and what is added.
fn map_of(i: u32) -> vec3<f32> {
    let at = p.at[0].w + i / p.group_len * 2u;
    let mean = statistics[at];
    let inverse = statistics[at + 1u];
    if affine {
        let c = i / p.inner % p.channels;
        return vec3(inverse * weight[p.at[0].y + c], mean, bias[p.at[0].z + c]);
    }
    return vec3(inverse, mean, 0.0);
}

fn quad_bits(first: u32) -> vec4<u32> {
    let i = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(p.total - 1u));
    var v: vec4<f32>;
    if quads {
        let at = p.at[0].x + first;
        v = decode4(x_dtype, x[vector_of(x_dtype, at)], at);
    } else {
        let at = vec4(p.at[0].x) + i;
        v = vec4(x_at(at.x), x_at(at.y), x_at(at.z), x_at(at.w));
    }
    var y: vec4<f32>;
    if one_channel {
        let m = map_of(i.x);
        y = fma(v - m.y, vec4(m.x), vec4(m.z));
    } else {
        for (var k = 0u; k < 4u; k++) {
            let m = map_of(i[k]);
            y[k] = fma(v[k] - m.y, m.x, m.z);
        }
    }
    if silu { y = silu_4(y); }
    return encode4(out_dtype, y);
}
