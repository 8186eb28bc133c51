// The gradient of cross-entropy: e^(x - lse)·(g + h) for each logit, less g at the label's place, where g is the row's
// weight times the gradient of its loss and h that of its log-sum-exp.
//
// Bindings: logits [rows, classes] with contiguous rows at any distance, of `x_dtype`; labels [rows] u32 or i32; weights, lse,
// grad_loss and grad_lse [rows] f32; out f32, contiguous; faults.
//
// Algorithm: an invocation computes four logits. Where rows begin at multiples of four they share what belongs to the row.
// Short rows so waste nothing, and few long ones keep the whole adapter busy.
//
// Budget: about 35 registers, no workgroup memory. Bound: memory (one read, one write); what belongs to a row comes from
// the cache.

struct Params { at: array<vec4<u32>, 2>, total: u32, classes: u32, x_stride: u32, ignore: u32, fault_op: u32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> lse: array<f32>;
@group(0) @binding(4) var<storage, read> grad_loss: array<f32>;
@group(0) @binding(5) var<storage, read> grad_lse: array<f32>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> faults: Faults;
override x_dtype: u32 = 0u;
override out_dtype: u32 = 0u;
override weighted: bool = false;
override has_grad_lse: bool = false;
// Whether quads of logits begin at multiples of four, within one row.
override quads: bool = true;

fn out_at() -> u32 { return p.at[1].z; }

// Logits `place` of one row, whose values are v.
fn gradient(row: u32, place: vec4<u32>, v: vec4<f32>) -> vec4<f32> {
    let label = labels[p.at[0].y + row];
    if !counts(label, row, place.x == 0u) { return vec4(0.0); }
    var g = grad_loss[p.at[1].x + row];
    if weighted { g *= weights[p.at[0].z + row]; }
    var both = g;
    if has_grad_lse { both += grad_lse[p.at[1].y + row]; }
    let scaled = exp_4(v - vec4(lse[p.at[0].w + row])) * both;
    return scaled - select(vec4(0.0), vec4(g), place == vec4(label));
}

fn quad_bits(i: u32) -> vec4<u32> {
    if quads {
        let row = i / p.classes;
        let place = vec4(i - row * p.classes) + vec4(0u, 1u, 2u, 3u);
        let at = p.at[0].x + row * p.x_stride + place.x;
        return bitcast<vec4<u32>>(gradient(row, place, decode4(x_dtype, x[vector_of(x_dtype, at)], at)));
    }
    var y: vec4<f32>;
    for (var k = 0u; k < 4u; k++) {
        let j = min(i + k, p.total - 1u);
        let row = j / p.classes;
        let at = p.at[0].x + row * p.x_stride + j % p.classes;
        let v = decode(x_dtype, x[vector_of(x_dtype, at)][word_of(x_dtype, at)], at);
        y[k] = gradient(row, vec4(j % p.classes), vec4(v)).x;
    }
    return bitcast<vec4<u32>>(y);
}
