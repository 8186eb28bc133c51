// Attention of a few queries over a part of the keys: what each part finds, for attention_join.wgsl.
//
// Bindings: the masks of common/attend.wgsl; q, k, v as in attention.wgsl; parts f32: for each head of keys, part and row
// (query i · group + head of the group) head_dim sums of weighted values, and behind all of them the rows' (m, l): the
// largest score in base 2 and the sum of the weights 2^(s - m).
//
// Algorithm (Flash-Decoding: FlashAttention-2 with the keys split): a workgroup takes up to `split_keys` keys of a head and
// up to 8 rows. Four invocations share a key: each multiplies every fourth 16 bytes of it with the rows, for two keys at a
// time, and their four sums are added up through memory. All scores of the part are held, so that softmax is not online.
// Then as many invocations as a value has 16 bytes share it and add it to sums of their own columns, four values at a
// time; at the end those of the same columns are added up, in order. Values that no row gives a weight are not read.
//
// Tunables: rows_each 1 to 8, up to 4 for head dims beyond 128; head_dim up to 256; split_keys 128 or 256.
//
// Budget: 16 KiB of workgroup memory; about 80 registers. Bound: memory. k and v are read once, in runs of 64 bytes and of
// whole rows; 8 rows need 16 flops for each element read.

struct Params {
    at: array<vec4<u32>, 3>,
    attend: Attend,
    q_strides: vec4<u32>, k_strides: vec4<u32>, v_strides: vec4<u32>,
    // Rows of a head of keys, blocks of them, parts, heads of keys in all sequences.
    rows: u32, blocks: u32, splits: u32, heads: u32,
    fault_op: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(5) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read> v: array<vec4<u32>>;
@group(0) @binding(8) var<storage, read_write> parts: array<f32>;
@group(0) @binding(9) var<storage, read_write> faults: Faults;
override dtype: u32 = 0u;
override head_dim: u32 = 64u;
override split_keys: u32 = 256u;
override rows_each: u32 = 1u;
// Invocations that share a value: a power of two, at least its vectors.
override value_lanes: u32 = 32u;
// Whether rows of k and v consist of aligned vectors.
override whole: bool = true;

// Four rows are a vector: queries [element][quad of rows], scores [quad of rows][key].
var<workgroup> queries: array<vec4<f32>, 256>;
var<workgroup> scores: array<vec4<f32>, 512>;
var<workgroup> partial: array<vec4<f32>, 256>;
override row_quads: u32 = (rows_each + 3u) / 4u;

// 16 bytes of a row: the second half is 0 where they hold four elements.
struct Piece { lo: vec4<f32>, hi: vec4<f32> }

fn q_at(i: u32) -> f32 { return decode(dtype, q[vector_of(dtype, i)][word_of(dtype, i)], i); }
fn k_at(i: u32) -> f32 { return decode(dtype, k[vector_of(dtype, i)][word_of(dtype, i)], i); }
fn v_at(i: u32) -> f32 { return decode(dtype, v[vector_of(dtype, i)][word_of(dtype, i)], i); }

fn piece(vector: vec4<u32>) -> Piece {
    if per_vector(dtype) == 4u { return Piece(decode4(dtype, vector, 0u), vec4(0.0)); }
    return Piece(decode4(dtype, vector, 0u), decode4(dtype, vector, 4u));
}
// The elements from t on of the row that begins at `at`; 0 beyond its end.
fn k_piece(at: u32, t: u32) -> Piece {
    if whole { return piece(k[vector_of(dtype, at + t)]); }
    var x: Piece;
    for (var e = 0u; e < min(per_vector(dtype), head_dim - t); e++) {
        if e < 4u { x.lo[e] = k_at(at + t + e); } else { x.hi[e - 4u] = k_at(at + t + e); }
    }
    return x;
}
fn v_piece(at: u32, t: u32) -> Piece {
    if whole { return piece(v[vector_of(dtype, at + t)]); }
    var x: Piece;
    for (var e = 0u; e < min(per_vector(dtype), head_dim - t); e++) {
        if e < 4u { x.lo[e] = v_at(at + t + e); } else { x.hi[e - 4u] = v_at(at + t + e); }
    }
    return x;
}

fn max_all(x: vec4<f32>, lane: u32) -> vec4<f32> {
    partial[lane] = x;
    for (var step = 128u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step { partial[lane] = max(partial[lane], partial[lane + step]); }
    }
    workgroupBarrier();
    let all = partial[0];
    workgroupBarrier();
    return all;
}
fn sum_all(x: vec4<f32>, lane: u32) -> vec4<f32> {
    partial[lane] = x;
    for (var step = 128u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step { partial[lane] += partial[lane + step]; }
    }
    workgroupBarrier();
    let all = partial[0];
    workgroupBarrier();
    return all;
}

// acc [row][half] += weight · piece for four rows from `acc[at]` on.
fn weigh(w: vec4<f32>, x: Piece, at: u32, acc: ptr<function, array<vec4<f32>, 16>>) {
    (*acc)[at] = fma(vec4(w.x), x.lo, (*acc)[at]);
    (*acc)[at + 2u] = fma(vec4(w.y), x.lo, (*acc)[at + 2u]);
    (*acc)[at + 4u] = fma(vec4(w.z), x.lo, (*acc)[at + 4u]);
    (*acc)[at + 6u] = fma(vec4(w.w), x.lo, (*acc)[at + 6u]);
    if per_vector(dtype) == 4u { return; }
    (*acc)[at + 1u] = fma(vec4(w.x), x.hi, (*acc)[at + 1u]);
    (*acc)[at + 3u] = fma(vec4(w.y), x.hi, (*acc)[at + 3u]);
    (*acc)[at + 5u] = fma(vec4(w.z), x.hi, (*acc)[at + 5u]);
    (*acc)[at + 7u] = fma(vec4(w.w), x.hi, (*acc)[at + 7u]);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = flat_workgroup(id, grid);
    let split = number % p.splits;
    let first_row = number / p.splits % p.blocks * rows_each;
    let head_number = number / p.splits / p.blocks;
    if head_number >= p.heads { return; }
    let b = head_number / p.attend.heads_kv;
    let h = head_number % p.attend.heads_kv;
    let keys = keys_of(b);
    if lane == 0u && keys_told(b) > keys { fault(keys_told(b), b, keys + 1u); }
    let last_row = min(first_row + rows_each, p.rows) - 1u;
    let begin = max(split * split_keys, seen_begin(vec4(first_row / p.attend.group), keys).x);
    let end = min((split + 1u) * split_keys, seen_end(vec4(last_row / p.attend.group), keys).x);

    // Where the sums of the first row go, and (m, l) of it.
    let part = (head_number * p.splits + split) * p.rows + first_row;
    let sums_at = p.at[2].x + part * head_dim;
    let ends_at = p.at[2].x + p.heads * p.splits * p.rows * head_dim + 2u * part;
    let rows = last_row + 1u - first_row;
    if begin >= end {
        if lane < rows {
            parts[ends_at + 2u * lane] = -infinity();
            parts[ends_at + 2u * lane + 1u] = 0.0;
        }
        return;
    }

    let per = per_vector(dtype);
    var seen: array<Queries, 2>;
    for (var r = 0u; r < row_quads; r++) {
        let wanted = vec4(first_row + 4u * r) + vec4(0u, 1u, 2u, 3u);
        let there = wanted <= vec4(last_row);
        let row = min(wanted, vec4(last_row));
        let i = row / p.attend.group;
        let head = vec4(h * p.attend.group) + row % p.attend.group;
        seen[r] = queries_of(b, keys, i, head, there);
        let at = vec4(p.at[1].y + b * p.q_strides.x) + i * p.q_strides.y + head * p.q_strides.z;
        for (var d = lane; d < (head_dim + per - 1u) / per * per; d += 256u) {
            var x = vec4(0.0);
            if d < head_dim { x = vec4(q_at(at.x + d), q_at(at.y + d), q_at(at.z + d), q_at(at.w + d)); }
            queries[d * row_quads + r] = x;
        }
    }
    workgroupBarrier();

    let first_key = split * split_keys;
    let k_at_head = p.at[1].z + b * p.k_strides.x + h * p.k_strides.z;
    for (var from_key = 0u; from_key < split_keys; from_key += 128u) {
        let slot = from_key + (lane >> 2u);
        let j = vec2(first_key + slot, first_key + slot + 64u);
        // [key][quad of rows]
        var sums: array<vec4<f32>, 4>;
        for (var t = (lane & 3u) * per; t < head_dim; t += 4u * per) {
            var x: Piece;
            var y: Piece;
            if j.x >= begin && j.x < end { x = k_piece(k_at_head + j.x * p.k_strides.y, t); }
            if j.y >= begin && j.y < end { y = k_piece(k_at_head + j.y * p.k_strides.y, t); }
            for (var r = 0u; r < row_quads; r++) {
                for (var e = 0u; e < 4u; e++) {
                    let lo = queries[(t + e) * row_quads + r];
                    sums[r] = fma(vec4(x.lo[e]), lo, sums[r]);
                    sums[2u + r] = fma(vec4(y.lo[e]), lo, sums[2u + r]);
                    if per == 8u {
                        let hi = queries[(t + 4u + e) * row_quads + r];
                        sums[r] = fma(vec4(x.hi[e]), hi, sums[r]);
                        sums[2u + r] = fma(vec4(y.hi[e]), hi, sums[2u + r]);
                    }
                }
            }
        }
        for (var key = 0u; key < 2u; key++) {
            for (var r = 0u; r < row_quads; r++) {
                workgroupBarrier();
                partial[lane] = sums[2u * key + r];
                workgroupBarrier();
                if (lane & 3u) == 0u {
                    let sum = (partial[lane] + partial[lane + 1u]) + (partial[lane + 2u] + partial[lane + 3u]);
                    let place = slot + 64u * key;
                    scores[r * 256u + place] = scored(sum, b, seen[r], vec4(first_key + place));
                }
            }
        }
    }
    workgroupBarrier();

    let lowest = vec4(-infinity());
    for (var r = 0u; r < row_quads; r++) {
        var s = lowest;
        if lane < split_keys { s = scores[r * 256u + lane]; }
        let m = max_all(s, lane);
        // A row that sees nothing: any finite base gives weights of 2^-inf = 0.
        let weights = exp2_4(s - select(m, vec4(0.0), m == lowest));
        scores[r * 256u + lane] = weights;
        let l = sum_all(weights, lane);
        if lane < 4u && 4u * r + lane < rows {
            parts[ends_at + 2u * (4u * r + lane)] = m[lane];
            parts[ends_at + 2u * (4u * r + lane) + 1u] = l[lane];
        }
    }

    let t = lane % value_lanes * per;
    let slots = 256u / value_lanes;
    let v_at_head = p.at[1].w + b * p.v_strides.x + h * p.v_strides.z;
    // [row][half]
    var acc: array<vec4<f32>, 16>;
    if t < head_dim {
        for (var key = lane / value_lanes; key < end - first_key; key += 4u * slots) {
            var pieces: array<Piece, 4>;
            var weights: array<vec4<f32>, 8>;
            for (var x = 0u; x < 4u; x++) {
                let place = min(key + x * slots, 255u);
                var some = false;
                if key + x * slots < end - first_key {
                    for (var r = 0u; r < row_quads; r++) {
                        weights[2u * x + r] = scores[r * 256u + place];
                        // What is hidden may be anything, and 0 · NaN is not 0.
                        some |= !all(weights[2u * x + r] == vec4(0.0));
                    }
                }
                if some { pieces[x] = v_piece(v_at_head + (first_key + place) * p.v_strides.y, t); }
                else { pieces[x] = Piece(); }
            }
            for (var x = 0u; x < 4u; x++) {
                for (var r = 0u; r < row_quads; r++) { weigh(weights[2u * x + r], pieces[x], 8u * r, &acc); }
            }
        }
    }
    // Halves of a row one behind the other: [half][slot][lane of the value].
    let half = lane / value_lanes;
    for (var r = 0u; r < rows_each; r++) {
        workgroupBarrier();
        scores[lane] = acc[2u * r];
        scores[256u + lane] = acc[2u * r + 1u];
        workgroupBarrier();
        let d = t + 4u * half;
        if 4u * half < per && t < head_dim && r < rows {
            var sum = vec4(0.0);
            for (var s = 0u; s < slots; s++) { sum += scores[half * 256u + s * value_lanes + lane % value_lanes]; }
            for (var e = 0u; e < 4u && d + e < head_dim; e++) { parts[sums_at + r * head_dim + d + e] = sum[e]; }
        }
    }
}
