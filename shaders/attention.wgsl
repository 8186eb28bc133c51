// Attention of blocks of queries over blocks of keys.
//
// Bindings: the masks of common/attend.wgsl; q [batch, len_q, heads_q, head_dim], k and v [batch, len_k, heads_kv, head_dim]
// of `dtype` with contiguous rows at any distance; out contiguous, of `out_dtype`; lse f32 [batch, heads_q, len_q].
//
// Algorithm (FlashAttention-2, arXiv 2307.08691, algorithm 1, in base 2): the queries of all heads of a group that share
// keys are one column of rows, row i · group + head, so that a block shares what it reads of k and v. A workgroup owns a
// block of rows, and goes over the keys between the first and the last that one of them sees, 32 at a time:
// S = scores of Q · Kᵀ, m' = max(m, S), P = 2^(S - m'), O = O · 2^(m - m') + P · V. Invocations keep sums of their own
// columns of P, which are added up at the end. Columns of O beyond what a workgroup holds are left to others, which compute
// the scores again.
//
// Tunables: as in common/attend_tile.wgsl; 64 rows for head dims up to 128, 32 up to 256, 16 beyond, from 512 on in passes.
//
// Budget: 16 KiB of workgroup memory; about 64 + 16 registers for O and S and 50 more: 4 workgroups of 128 on a
// multiprocessor with 64 Ki registers. Bound: fma. 64 rows read k and v once for 4 · 64 flops per element, and q again from
// the nearest cache: 1/16 byte per flop in f32.

struct Params {
    at: array<vec4<u32>, 3>,
    attend: Attend,
    q_strides: vec4<u32>, k_strides: vec4<u32>, v_strides: vec4<u32>,
    // Rows of a head of keys, blocks of them, passes over columns, heads of keys in all sequences.
    rows: u32, blocks: u32, passes: u32, heads: u32,
    fault_op: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(5) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read> v: array<vec4<u32>>;
@group(0) @binding(8) var<storage, read_write> out: array<atomic<u32>>;
@group(0) @binding(9) var<storage, read_write> lse: array<f32>;
@group(0) @binding(10) var<storage, read_write> faults: Faults;
override dtype: u32 = 0u;
override out_dtype: u32 = 0u;
override has_lse: bool = false;
// Whether rows of q, k and v begin at multiples of four elements, and are a multiple of four long.
override whole: bool = true;

// The sequence, the head of keys, the first row of the block, the first key of the block and the end of the keys.
struct Place { b: u32, h: u32, row: u32, key: u32, end: u32 }
var<private> place: Place;

// Query and head of rows; the last ones for rows beyond them.
fn query_of(row: vec4<u32>) -> vec4<u32> { return min(row, vec4(p.rows - 1u)) / p.attend.group; }
fn head_of(row: vec4<u32>) -> vec4<u32> {
    return vec4(place.h * p.attend.group) + min(row, vec4(p.rows - 1u)) % p.attend.group;
}

fn own_row(which: u32, row: u32) -> u32 {
    let r = vec4(place.row + row);
    if r.x >= p.rows { return NOWHERE; }
    return p.at[1].y + place.b * p.q_strides.x + query_of(r).x * p.q_strides.y + head_of(r).x * p.q_strides.z;
}
fn other_row(which: u32, row: u32) -> u32 {
    // What is hidden may be anything, and 0 · NaN is not 0.
    let j = place.key + row;
    if j >= place.end || !key_there(place.b, j) { return NOWHERE; }
    if which == 0u { return p.at[1].z + place.b * p.k_strides.x + j * p.k_strides.y + place.h * p.k_strides.z; }
    return p.at[1].w + place.b * p.v_strides.x + j * p.v_strides.y + place.h * p.v_strides.z;
}

fn q_at(i: u32) -> f32 { return decode(dtype, q[vector_of(dtype, i)][word_of(dtype, i)], i); }
fn k_at(i: u32) -> f32 { return decode(dtype, k[vector_of(dtype, i)][word_of(dtype, i)], i); }
fn v_at(i: u32) -> f32 { return decode(dtype, v[vector_of(dtype, i)][word_of(dtype, i)], i); }

fn own_quad(which: u32, at: u32, t: u32) -> vec4<f32> {
    if whole { return decode4(dtype, q[vector_of(dtype, at + t)], at + t); }
    var x = vec4(0.0);
    for (var e = 0u; e < min(4u, head_dim - t); e++) { x[e] = q_at(at + t + e); }
    return x;
}
fn other_quad(which: u32, at: u32, t: u32) -> vec4<f32> {
    if whole {
        if which == 0u { return decode4(dtype, k[vector_of(dtype, at + t)], at + t); }
        return decode4(dtype, v[vector_of(dtype, at + t)], at + t);
    }
    var x = vec4(0.0);
    for (var e = 0u; e < min(4u, head_dim - t); e++) {
        if which == 0u { x[e] = k_at(at + t + e); } else { x[e] = v_at(at + t + e); }
    }
    return x;
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = flat_workgroup(id, grid);
    // The last blocks of a head first: with a causal mask they take the longest.
    let block = p.blocks - 1u - number % p.blocks;
    let pass_number = number / p.blocks % p.passes;
    let head_number = number / p.blocks / p.passes;
    if head_number >= p.heads { return; }
    let b = head_number / p.attend.heads_kv;
    let first = block * 4u * groups;
    let last = min(first + 4u * groups, p.rows) - 1u;
    let keys = keys_of(b);
    if lane == 0u && keys_told(b) > keys { fault(keys_told(b), b, keys + 1u); }
    let begin = seen_begin(vec4(first / p.attend.group), keys).x;
    let end = seen_end(vec4(last / p.attend.group), keys).x;
    place = Place(b, head_number % p.attend.heads_kv, first, begin, end);

    let g = lane / across;
    let c = lane % across;
    let rows = vec4(first + 4u * g) + vec4(0u, 1u, 2u, 3u);
    let queries = queries_of(b, keys, query_of(rows), head_of(rows), rows < vec4(p.rows));
    let width = quads * across;
    let column = pass_number * 4u * width;
    let lowest = vec4(-infinity());
    var m = lowest;
    var l = vec4(0.0);
    var acc: array<vec4<f32>, 16>;
    for (var key = begin; key < end; key += OTHERS) {
        place.key = key;
        var s = products(0u, lane);
        var top = lowest;
        for (var o = 0u; o < others_each; o++) {
            s[o] = scored(s[o], b, queries, vec4(key + c + across * o));
            top = max(top, s[o]);
        }
        tile[REDUCED + lane] = top;
        workgroupBarrier();
        top = m;
        for (var i = 0u; i < across; i++) { top = max(top, tile[REDUCED + g * across + i]); }
        // A row that has seen nothing: any finite base gives weights of 2^-inf = 0.
        let base = select(top, vec4(0.0), top == lowest);
        let factor = exp2_4(m - base);
        m = top;
        l *= factor;
        for (var o = 0u; o < others_each; o++) {
            let weights = exp2_4(s[o] - base);
            l += weights;
            tile[(c + across * o) * groups + g] = weights;
        }
        for (var i = 0u; i < quads; i++) {
            acc[4u * i] *= factor.x;
            acc[4u * i + 1u] *= factor.y;
            acc[4u * i + 2u] *= factor.z;
            acc[4u * i + 3u] *= factor.w;
        }
        accumulate(1u, 0u, column, lane, &acc);
    }

    workgroupBarrier();
    tile[REDUCED + lane] = l;
    workgroupBarrier();
    var sum = vec4(0.0);
    for (var i = 0u; i < across; i++) { sum += tile[REDUCED + g * across + i]; }
    let scale = select(vec4(1.0) / sum, vec4(0.0), sum == vec4(0.0));
    let logs = fma(m, vec4(0.6931472), ln_4(sum));
    let i = query_of(rows);
    let heads = head_of(rows);
    for (var r = 0u; r < 4u; r++) {
        workgroupBarrier();
        for (var x = 0u; x < quads; x++) { tile[g * width + x * across + c] = acc[4u * x + r] * scale[r]; }
        workgroupBarrier();
        if rows[r] < p.rows {
            if has_lse && c == 0u && pass_number == 0u {
                lse[p.at[2].y + (b * p.attend.heads_q + heads[r]) * p.attend.len_q + i[r]] = logs[r];
            }
            let at = p.at[2].x + ((b * p.attend.len_q + i[r]) * p.attend.heads_q + heads[r]) * head_dim + column;
            write_row(at, at + min(4u * width, head_dim - column), 4u * g * width, c);
        }
    }
}

// The invocations of a group write the part of a row that lies in the tile from element `from` on.
fn write_row(at: u32, end: u32, tile_at: u32, c: u32) {
    for (var w = first_word(at) + c; w < end_word(end); w += across) {
        let first = word_start(w);
        var x = vec4(0.0);
        for (var e = 0u; e < per_word(out_dtype); e++) {
            if first + e >= at && first + e < end {
                let i = tile_at + first + e - at;
                x[e] = tile[i >> 2u][i & 3u];
            }
        }
        store_word(w, at, end, encode4(out_dtype, x));
    }
}
