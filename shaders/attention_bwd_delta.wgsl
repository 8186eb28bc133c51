// What the gradients of attention need of each query besides its row: (lse · log2 e, delta), delta = dout · out - dlse.
//
// Bindings: out of `out_dtype` and dout f32 [batch, len_q, heads_q, head_dim] with contiguous rows at any distance; lse and
// dlse f32 [batch, heads_q, len_q]; lens u32 [batch], only to be checked; ends f32 [batch, heads_q, len_q, 2].
//
// Algorithm: eight invocations share a row and go over it by quads; their sums are added up in order. A query that saw
// nothing, whose lse is -inf, gives (inf, 0), so that its weights become 2^-inf = 0.
//
// Budget: 1 KiB of workgroup memory, about 30 registers. Bound: memory.

struct Params {
    at: array<vec4<u32>, 2>,
    out_strides: vec4<u32>, dout_strides: vec4<u32>,
    rows: u32, len_q: u32, heads_q: u32, len_k: u32,
    fault_op: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> out: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> dout: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> lse: array<f32>;
@group(0) @binding(3) var<storage, read> dlse: array<f32>;
@group(0) @binding(4) var<storage, read> lens: array<u32>;
@group(0) @binding(5) var<storage, read_write> ends: array<f32>;
@group(0) @binding(6) var<storage, read_write> faults: Faults;
override out_dtype: u32 = 0u;
override head_dim: u32 = 64u;
override has_dlse: bool = false;
override bounded: bool = false;
// Whether rows of both begin at multiples of four elements, and are a multiple of four long.
override whole: bool = true;

var<workgroup> partial: array<f32, 256>;

fn product(out_at: u32, dout_at: u32, t: u32) -> f32 {
    let i = out_at + t;
    let j = dout_at + t;
    if whole { return dot(decode4(out_dtype, out[vector_of(out_dtype, i)], i), decode4(F32, dout[vector_of(F32, j)], j)); }
    var sum = 0.0;
    for (var e = 0u; e < min(4u, head_dim - t); e++) {
        let x = decode(out_dtype, out[vector_of(out_dtype, i + e)][word_of(out_dtype, i + e)], i + e);
        sum = fma(x, decode(F32, dout[vector_of(F32, j + e)][word_of(F32, j + e)], j + e), sum);
    }
    return sum;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // Rows in the order in which they lie.
    let row = flat_workgroup(id, grid) * 32u + (lane >> 3u);
    let h = row % p.heads_q;
    let i = row / p.heads_q % p.len_q;
    let b = row / p.heads_q / p.len_q;
    var sum = 0.0;
    if row < p.rows {
        let out_at = p.at[0].x + b * p.out_strides.x + i * p.out_strides.y + h * p.out_strides.z;
        let dout_at = p.at[0].y + b * p.dout_strides.x + i * p.dout_strides.y + h * p.dout_strides.z;
        for (var t = 4u * (lane & 7u); t < head_dim; t += 32u) { sum += product(out_at, dout_at, t); }
    }
    partial[lane] = sum;
    workgroupBarrier();
    if row < p.rows && (lane & 7u) == 0u {
        var delta = 0.0;
        for (var x = 0u; x < 8u; x++) { delta += partial[lane + x]; }
        let n = (b * p.heads_q + h) * p.len_q + i;
        if has_dlse { delta -= dlse[p.at[0].w + n]; }
        let log_sum = lse[p.at[0].z + n];
        let nothing = log_sum == -infinity();
        ends[p.at[1].y + 2u * n] = select(log_sum * 1.44269504, infinity(), nothing);
        ends[p.at[1].y + 2u * n + 1u] = select(delta, 0.0, nothing);
        if bounded && h == 0u && i == 0u {
            let keys = lens[p.at[1].x + b];
            if keys > p.len_k { fault(keys, b, p.len_k + 1u); }
        }
    }
}
