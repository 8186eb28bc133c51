// One step of the recurrence of an LSTM.
//
// Bindings: gates [batch, len, 4·hidden] f32 and w_hh [4·hidden, hidden] of `w_dtype` with contiguous rows at any distance; h0
// and c0 [batch, hidden] f32; out [batch, len, hidden] f32, whose row of the step before is h; h and c [batch, hidden] f32, of
// which c is the state between steps. All but the first two are contiguous.
//
// Algorithm: a dispatch for each step, because a step needs all of the last one. A workgroup owns a unit: for each sequence
// its four rows of w_hh meet h, four elements at a time, and the four sums are reduced together; the rows come from the
// cache for all sequences but the first. One invocation then computes the gates.
//
// Budget: 16 bytes of workgroup memory per invocation, about 40 registers: full occupancy. Bound: reading w_hh once a step,
// 4 or 2 bytes for 2·batch operations, from the second-level cache that holds it; with few units the time between two
// dispatches. A workgroup has an invocation for four elements of a row, 32 to 256.

struct Params {
    at: array<vec4<u32>, 2>,
    batch: u32, len: u32, hidden: u32, t: u32, before: u32, gates_stride: u32, step_stride: u32, w_stride: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> gates: array<f32>;
@group(0) @binding(1) var<storage, read> w_hh: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> h0: array<f32>;
@group(0) @binding(3) var<storage, read> c0: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read_write> h: array<f32>;
@group(0) @binding(6) var<storage, read_write> c: array<f32>;
override w_dtype: u32 = 0u;
// Whether the sequences begin with a state, whether this is the first step, the last one, or none at all.
override state: bool = false;
override first: bool = false;
override last: bool = false;
override idle: bool = false;
// Whether rows of w_hh begin at multiples of four elements.
override quads: bool = true;

fn w_at(i: u32) -> f32 { return decode(w_dtype, w_hh[vector_of(w_dtype, i)][word_of(w_dtype, i)], i); }

fn w_quad(gate: u32, unit: u32, k: vec4<u32>) -> vec4<f32> {
    let i = vec4(p.at[0].y + (gate * p.hidden + unit) * p.w_stride) + k;
    if quads { return decode4(w_dtype, w_hh[vector_of(w_dtype, i.x)], i.x); }
    return vec4(w_at(i.x), w_at(i.y), w_at(i.z), w_at(i.w));
}

// h and c of a sequence before this step.
fn h_at(b: u32, k: u32) -> f32 {
    if first {
        if state { return h0[p.at[0].z + b * p.hidden + k]; }
        return 0.0;
    }
    return out[p.at[1].x + (b * p.len + p.before) * p.hidden + k];
}
fn c_at(b: u32, k: u32) -> f32 {
    if first {
        if state { return c0[p.at[0].w + b * p.hidden + k]; }
        return 0.0;
    }
    return c[p.at[1].z + b * p.hidden + k];
}

fn row(unit: u32, lane: u32) {
    if unit >= p.hidden { return; }
    for (var b = 0u; b < p.batch; b++) {
        let state_at = b * p.hidden + unit;
        if idle {
            if lane == 0u {
                h[p.at[1].y + state_at] = h_at(b, unit);
                c[p.at[1].z + state_at] = c_at(b, unit);
            }
            continue;
        }
        var sums = vec4(0.0);
        if state || !first {
            for (var k = 4u * lane; k < p.hidden; k += 4u * lanes) {
                let all = vec4(k) + vec4(0u, 1u, 2u, 3u);
                let inside = all < vec4(p.hidden);
                let i = min(all, vec4(p.hidden - 1u));
                let v = vec4(h_at(b, i.x), h_at(b, i.y), h_at(b, i.z), h_at(b, i.w));
                for (var gate = 0u; gate < 4u; gate++) {
                    sums[gate] += dot(select(vec4(0.0), v, inside), select(vec4(0.0), w_quad(gate, unit, i), inside));
                }
            }
            sums = sum_all_4(sums, lane);
        }
        if lane == 0u {
            let at = p.at[0].x + b * p.gates_stride + p.t * p.step_stride + unit;
            let pre = sums + vec4(gates[at], gates[at + p.hidden], gates[at + 2u * p.hidden], gates[at + 3u * p.hidden]);
            let open = sigmoid_4(pre);
            let cell = fma(open.x, tanh_4(vec4(pre.z)).x, open.y * c_at(b, unit));
            let value = open.w * tanh_4(vec4(cell)).x;
            c[p.at[1].z + state_at] = cell;
            out[p.at[1].x + (b * p.len + p.t) * p.hidden + unit] = value;
            if last { h[p.at[1].y + state_at] = value; }
        }
    }
}
