// The merge of two attentions of the same queries over different keys: their results, or their log-sum-exps.
//
// Bindings, all f32 and contiguous: out_a and out_b [batch, len_q, heads, head_dim], lse_a and lse_b [batch, heads, len_q], out
// as one of them.
//
// Algorithm: with m the larger log-sum-exp and x = e^(lse_a - m), y = e^(lse_b - m), lse = m + ln(x + y) and a value is
// x/(x + y)·a + y/(x + y)·b. A weight of 0 hides what it would multiply, whatever that is. An invocation computes 16
// bytes of the result; where heads are whole vectors they share the weights. One dispatch for each result, which do not
// wait for each other.
//
// Budget: about 25 registers, no workgroup memory. Bound: memory (two reads, one write; about 15 operations for each
// value).

struct Params { at: array<vec4<u32>, 2>, total: u32, len_q: u32, heads: u32, head_dim: u32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> out_a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> lse_a: array<f32>;
@group(0) @binding(2) var<storage, read> out_b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> lse_b: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<u32>>;
override out_dtype: u32 = 0u;
// Whether log-sum-exps are merged.
override sums: bool = false;
// Whether quads of values begin at multiples of four, within one head.
override quads: bool = true;

fn out_at() -> u32 { return p.at[1].x; }

// The weights of both parts and the merged log-sum-exp, of the query and head at this place of the log-sum-exps.
fn weights(at: u32) -> vec3<f32> {
    let a = lse_a[p.at[0].y + at];
    let b = lse_b[p.at[0].w + at];
    let nothing = -infinity();
    if b == nothing { return vec3(select(1.0, 0.0, a == nothing), 0.0, a); }
    if a == nothing { return vec3(0.0, 1.0, b); }
    let largest = max(a, b);
    let e = exp_4(vec4(a - largest, b - largest, 0.0, 0.0));
    let sum = e.x + e.y;
    return vec3(e.x / sum, e.y / sum, largest + ln_1(sum));
}

// The same of a row of the results.
fn weights_of(row: u32) -> vec3<f32> {
    let query = row / p.heads;
    let sequence = query / p.len_q;
    return weights((sequence * p.heads + row % p.heads) * p.len_q + query % p.len_q);
}

fn mixed(w: vec3<f32>, a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let kept = select(a * w.x, vec4(0.0), w.x == 0.0);
    return select(fma(vec4(w.y), b, kept), kept, w.y == 0.0);
}

fn quad_bits(i: u32) -> vec4<u32> {
    if quads {
        let a = out_a[(p.at[0].x + i) >> 2u];
        return bitcast<vec4<u32>>(mixed(weights_of(i / p.head_dim), a, out_b[(p.at[0].z + i) >> 2u]));
    }
    var y: vec4<f32>;
    for (var k = 0u; k < 4u; k++) {
        let j = min(i + k, p.total - 1u);
        if sums {
            y[k] = weights(j).z;
        } else {
            let a = out_a[(p.at[0].x + j) >> 2u][(p.at[0].x + j) & 3u];
            let b = out_b[(p.at[0].z + j) >> 2u][(p.at[0].z + j) & 3u];
            y[k] = mixed(weights_of(j / p.head_dim), vec4(a), vec4(b)).x;
        }
    }
    return bitcast<vec4<u32>>(y);
}
