// The gradients of attention, in three functions: `queries` computes dq, `keys` dk and dv, `bias_of` dbias.
//
// Bindings: the masks of common/attend.wgsl; q, k, v of `dtype` and dout f32, shaped as in attention.wgsl, with contiguous
// rows at any distance; ends f32 [batch, heads_q, len_q, 2] as attention_bwd_delta.wgsl leaves them; result: the f32
// gradient, contiguous; dv f32, of `keys` alone.
//
// Algorithm (FlashAttention-2, arXiv 2307.08691, algorithm 2, in base 2 and without atomics): for a block of queries and one
// of keys P = 2^(S - lse), with the scores S of Q · Kᵀ, and dS = P ∘ (dO · Vᵀ - delta). A workgroup of `queries` owns a block
// of queries of a head and adds up dQ = dS · K over the blocks of keys that they see; one of `keys` owns a block of keys
// and adds up dK = dSᵀ · Q and dV = Pᵀ · dO over the heads of the group and the blocks of queries that see them; one of
// `bias_of` owns a block of both and adds up dS over the sequences and heads that share the bias. So the first two products
// are computed twice, or three times, and every sum has one order.
//
// Tunables: as in common/attend_tile.wgsl; `queries` owns 64 rows for head dims up to 128, 32 up to 256, 16 beyond; `keys`,
// which has two sums, owns 32 up to 128 and 16 beyond. Passes over columns from 512 and from 256 on.
//
// Budget: 16 KiB of workgroup memory; about 64 registers for the sums, 16 to 32 for S and dP, and 60 more: 3 workgroups of
// 128 on a multiprocessor with 64 Ki registers. Bound: fma; blocks of 64 and 32 rows read 1/20 byte per flop in f32, mostly
// from caches.

struct Params {
    at: array<vec4<u32>, 3>,
    attend: Attend,
    q_strides: vec4<u32>, k_strides: vec4<u32>, v_strides: vec4<u32>, dout_strides: vec4<u32>,
    // Of the function's own side; of the other one, for `bias_of` only; passes over columns.
    blocks: u32, other_blocks: u32, passes: u32, batch: u32,
    bias_batch: u32, bias_heads: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(5) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read> v: array<vec4<u32>>;
@group(0) @binding(8) var<storage, read> dout: array<vec4<u32>>;
@group(0) @binding(9) var<storage, read> ends: array<f32>;
@group(0) @binding(10) var<storage, read_write> result: array<f32>;
@group(0) @binding(11) var<storage, read_write> dv: array<f32>;
override dtype: u32 = 0u;
// Whether rows of all four begin at multiples of four elements, and are a multiple of four long.
override whole: bool = true;
// Whether the own side is that of the keys.
override own_keys: bool = false;

// The sequence, the heads of queries and of keys, the first rows of both sides' blocks, and the keys that exist.
struct Place { b: u32, head: u32, h: u32, own: u32, other: u32, keys: u32 }
var<private> place: Place;

fn query_row(which: u32, i: u32) -> u32 {
    if i >= p.attend.len_q { return NOWHERE; }
    if which == 0u { return p.at[1].y + place.b * p.q_strides.x + i * p.q_strides.y + place.head * p.q_strides.z; }
    return p.at[2].x + place.b * p.dout_strides.x + i * p.dout_strides.y + place.head * p.dout_strides.z;
}
fn key_row(which: u32, j: u32) -> u32 {
    // What is hidden may be anything, and 0 · NaN is not 0.
    if j >= place.keys || !key_there(place.b, j) { return NOWHERE; }
    if which == 0u { return p.at[1].z + place.b * p.k_strides.x + j * p.k_strides.y + place.h * p.k_strides.z; }
    return p.at[1].w + place.b * p.v_strides.x + j * p.v_strides.y + place.h * p.v_strides.z;
}
fn own_row(which: u32, row: u32) -> u32 {
    if own_keys { return key_row(which, place.own + row); }
    return query_row(which, place.own + row);
}
fn other_row(which: u32, row: u32) -> u32 {
    if own_keys { return query_row(which, place.other + row); }
    return key_row(which, place.other + row);
}

fn query_at(which: u32, i: u32) -> f32 {
    if which == 0u { return decode(dtype, q[vector_of(dtype, i)][word_of(dtype, i)], i); }
    return decode(F32, dout[vector_of(F32, i)][word_of(F32, i)], i);
}
fn key_at(which: u32, i: u32) -> f32 {
    if which == 0u { return decode(dtype, k[vector_of(dtype, i)][word_of(dtype, i)], i); }
    return decode(dtype, v[vector_of(dtype, i)][word_of(dtype, i)], i);
}
fn query_quad(which: u32, at: u32, t: u32) -> vec4<f32> {
    if whole {
        if which == 0u { return decode4(dtype, q[vector_of(dtype, at + t)], at + t); }
        return decode4(F32, dout[vector_of(F32, at + t)], at + t);
    }
    var x = vec4(0.0);
    for (var e = 0u; e < min(4u, head_dim - t); e++) { x[e] = query_at(which, at + t + e); }
    return x;
}
fn key_quad(which: u32, at: u32, t: u32) -> vec4<f32> {
    if whole {
        if which == 0u { return decode4(dtype, k[vector_of(dtype, at + t)], at + t); }
        return decode4(dtype, v[vector_of(dtype, at + t)], at + t);
    }
    var x = vec4(0.0);
    for (var e = 0u; e < min(4u, head_dim - t); e++) { x[e] = key_at(which, at + t + e); }
    return x;
}
fn own_quad(which: u32, at: u32, t: u32) -> vec4<f32> {
    if own_keys { return key_quad(which, at, t); }
    return query_quad(which, at, t);
}
fn other_quad(which: u32, at: u32, t: u32) -> vec4<f32> {
    if own_keys { return query_quad(which, at, t); }
    return key_quad(which, at, t);
}

// For four queries of a head the log-sum-exp in base 2 and delta.
struct Ends { lse: vec4<f32>, delta: vec4<f32> }
fn ends_of(i: vec4<u32>) -> Ends {
    let at = vec4(p.at[2].y) + 2u * (vec4((place.b * p.attend.heads_q + place.head) * p.attend.len_q) + i);
    return Ends(vec4(ends[at.x], ends[at.y], ends[at.z], ends[at.w]),
                vec4(ends[at.x + 1u], ends[at.y + 1u], ends[at.z + 1u], ends[at.w + 1u]));
}

// Weights, and the scores' gradients from those of the weights.
fn weights_of(s: vec4<f32>, seen: Queries, j: vec4<u32>, e: Ends) -> vec4<f32> {
    return exp2_4(scored(s, place.b, seen, j) - e.lse);
}
fn slopes_of(weights: vec4<f32>, dp: vec4<f32>, e: Ends) -> vec4<f32> {
    return select(weights * (dp - e.delta), vec4(0.0), weights == vec4(0.0));
}

@compute @workgroup_size(128)
fn queries(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = flat_workgroup(id, grid);
    // The last blocks of a head first: with a causal mask they take the longest.
    let first = (p.blocks - 1u - number % p.blocks) * 4u * groups;
    let column = number / p.blocks % p.passes * 4u * quads * across;
    let head_number = number / p.blocks / p.passes;
    let b = head_number / p.attend.heads_q;
    let head = head_number % p.attend.heads_q;
    if b >= p.batch { return; }
    let keys = keys_of(b);
    let last = min(first + 4u * groups, p.attend.len_q) - 1u;
    let begin = seen_begin(vec4(first), keys).x;
    let end = seen_end(vec4(last), keys).x;
    place = Place(b, head, head / p.attend.group, first, begin, keys);

    let g = lane / across;
    let c = lane % across;
    let rows = vec4(first + 4u * g) + vec4(0u, 1u, 2u, 3u);
    let i = min(rows, vec4(p.attend.len_q - 1u));
    let seen = queries_of(b, keys, i, vec4(head), rows < vec4(p.attend.len_q));
    let e = ends_of(i);
    var acc: array<vec4<f32>, 16>;
    for (var key = begin; key < end; key += OTHERS) {
        place.other = key;
        var s = products(0u, lane);
        var dp = products(1u, lane);
        workgroupBarrier();
        for (var o = 0u; o < others_each; o++) {
            let other = c + across * o;
            tile[other * groups + g] = slopes_of(weights_of(s[o], seen, vec4(key + other), e), dp[o], e);
        }
        accumulate(0u, 0u, column, lane, &acc);
    }
    for (var r = 0u; r < 4u; r++) {
        if rows[r] < p.attend.len_q {
            let at = p.at[2].z + ((b * p.attend.len_q + rows[r]) * p.attend.heads_q + head) * head_dim;
            for (var x = 0u; x < quads; x++) {
                let t = column + 4u * (x * across + c);
                for (var n = 0u; n < 4u && t + n < head_dim; n++) {
                    result[at + t + n] = acc[4u * x + r][n] * p.attend.softmax_scale;
                }
            }
        }
    }
}

@compute @workgroup_size(128)
fn keys(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = flat_workgroup(id, grid);
    // The first blocks of a head first: with a causal mask they take the longest.
    let first = number % p.blocks * 4u * groups;
    let column = number / p.blocks % p.passes * 4u * quads * across;
    let head_number = number / p.blocks / p.passes;
    let b = head_number / p.attend.heads_kv;
    let h = head_number % p.attend.heads_kv;
    if b >= p.batch { return; }
    let exist = keys_of(b);
    let end = min(first + 4u * groups, exist);
    place = Place(b, 0u, h, first, 0u, exist);

    // The queries that see one of the keys by their places.
    let beside = i32(p.attend.len_q) - i32(exist);
    var begin = 0u;
    var stop = select(0u, p.attend.len_q, first < exist);
    if causal { begin = u32(max(i32(first) + beside, 0)); }
    if windowed { stop = min(stop, u32(max(i32(end + p.attend.window) + beside - 1, 0))); }

    let g = lane / across;
    let c = lane % across;
    let j = vec4(first + 4u * g) + vec4(0u, 1u, 2u, 3u);
    var to_keys: array<vec4<f32>, 16>;
    var to_values: array<vec4<f32>, 16>;
    for (var head = h * p.attend.group; head < (h + 1u) * p.attend.group; head++) {
        place.head = head;
        for (var query = begin; query < stop; query += OTHERS) {
            place.other = query;
            var s = products(0u, lane);
            var dp = products(1u, lane);
            workgroupBarrier();
            for (var o = 0u; o < others_each; o++) {
                let other = c + across * o;
                let i = vec4(min(query + other, p.attend.len_q - 1u));
                let seen = queries_of(b, exist, i, vec4(head), vec4(query + other < p.attend.len_q));
                let e = ends_of(i);
                let weights = weights_of(s[o], seen, j, e);
                tile[other * groups + g] = weights;
                tile[SLOPES + other * groups + g] = slopes_of(weights, dp[o], e);
            }
            accumulate(1u, 0u, column, lane, &to_values);
            accumulate(0u, SLOPES, column, lane, &to_keys);
        }
    }
    for (var r = 0u; r < 4u; r++) {
        if j[r] < p.attend.len_k {
            let at = ((b * p.attend.len_k + j[r]) * p.attend.heads_kv + h) * head_dim;
            for (var x = 0u; x < quads; x++) {
                let t = column + 4u * (x * across + c);
                for (var n = 0u; n < 4u && t + n < head_dim; n++) {
                    result[p.at[2].z + at + t + n] = to_keys[4u * x + r][n] * p.attend.softmax_scale;
                    dv[p.at[2].w + at + t + n] = to_values[4u * x + r][n];
                }
            }
        }
    }
}
// Where `keys` holds dS, behind P of 32 rows and 8 groups.
const SLOPES = 256u;

@compute @workgroup_size(128)
fn bias_of(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = flat_workgroup(id, grid);
    let key = number % p.other_blocks * OTHERS;
    let first = number / p.other_blocks % p.blocks * 4u * groups;
    let head_number = number / p.other_blocks / p.blocks;
    let bias_b = head_number / p.bias_heads;
    let bias_head = head_number % p.bias_heads;
    if bias_b >= p.bias_batch { return; }
    let last = min(first + 4u * groups, p.attend.len_q) - 1u;

    let g = lane / across;
    let c = lane % across;
    let rows = vec4(first + 4u * g) + vec4(0u, 1u, 2u, 3u);
    let i = min(rows, vec4(p.attend.len_q - 1u));
    // One sequence and head, or all of them where they share the bias.
    let batch_end = select(p.batch, bias_b + 1u, p.bias_batch > 1u);
    let heads_end = select(p.attend.heads_q, bias_head + 1u, p.bias_heads > 1u);
    var sums: array<vec4<f32>, 4>;
    for (var b = bias_b; b < batch_end; b++) {
        let keys = keys_of(b);
        if seen_begin(vec4(first), keys).x < key + OTHERS && seen_end(vec4(last), keys).x > key {
            for (var head = bias_head; head < heads_end; head++) {
                place = Place(b, head, head / p.attend.group, first, key, keys);
                var s = products(0u, lane);
                var dp = products(1u, lane);
                let seen = queries_of(b, keys, i, vec4(head), rows < vec4(p.attend.len_q));
                let e = ends_of(i);
                for (var o = 0u; o < others_each; o++) {
                    sums[o] += slopes_of(weights_of(s[o], seen, vec4(key + c + across * o), e), dp[o], e);
                }
            }
        }
    }
    for (var r = 0u; r < 4u; r++) {
        if rows[r] < p.attend.len_q {
            let at = p.at[2].z + (head_number * p.attend.len_q + rows[r]) * p.attend.len_k;
            for (var o = 0u; o < others_each; o++) {
                let j = key + c + across * o;
                if j < p.attend.len_k { result[at + j] = sums[o][r]; }
            }
        }
    }
}
