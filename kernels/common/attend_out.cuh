// Where the results of attention go: to the op's results, or, where the keys are divided into parts, to sums and ends that
// `attention_join` (attention_split.cu) makes results of.
#pragma once
#include "common/attend.cuh"

// The numbers of a block of `block_rows` rows in a grid [head of keys in all sequences][part][block of rows], and its keys:
// a part of those that its queries see by their places, in steps of `step`. Row i · group + x is query i of head x of a group.
struct Place {
    u32 head, b, h, part, first, keys, begin, end;

    DEVICE Place(const Attend &a, u32 rows, u32 blocks, u32 parts, u32 block_rows, u32 step) {
        // The last blocks of a head first: with a causal mask they take the longest.
        first = (blocks - 1 - blockIdx.x % blocks) * block_rows;
        part = blockIdx.x / blocks % parts;
        head = blockIdx.x / blocks / parts;
        b = head / a.heads_kv;
        h = head % a.heads_kv;
        keys = keys_of(a, b);
        const u32 from = seen_begin(a, first / a.group, keys);
        const u32 to = seen_end(a, (min(first + block_rows, rows) - 1) / a.group, keys);
        const u32 seen = to > from ? to - from : 0;
        const u32 each = ceil_div(ceil_div(seen, parts), step) * step;
        begin = from + min(part * each, seen);
        end = from + min((part + 1) * each, seen);
    }
    // The head of queries of a row.
    DEVICE u32 head_q(const Attend &a, u32 row) const { return h * a.group + row % a.group; }
};

struct Results {
    // Contiguous [batch, len_q, heads_q, head_dim], and f32 [batch, heads_q, len_q] or null.
    void *out;
    float *lse;
    // For several parts: f32 [head of keys][part][row][head_dim] and (m, l) [head of keys][part][row], of which a row's
    // result is sums / l and its log-sum-exp (m + log2 l) · ln 2.
    float *sums;
    float *ends;
    u32 out_dtype, parts;

    DEVICE u64 part_row(const Place &p, u32 rows, u32 row) const { return ((u64)p.head * parts + p.part) * rows + row; }

    // What the sums of a row are multiplied by.
    DEVICE float scale(float l) const { return parts > 1 ? 1.0f : l == 0 ? 0.0f : 1 / l; }

    DEVICE void write_ends(const Attend &a, const Place &p, u32 rows, u32 row, float m, float l) const {
        if (parts > 1) {
            store_vec<float, 2>(ends + 2 * part_row(p, rows, row), {{m, l}});
        } else if (lse) {
            lse[((u64)p.b * a.heads_q + p.head_q(a, row)) * a.len_q + row / a.group] = fmaf(m, 0.6931472f, logf(l));
        }
    }

    // N columns of a row, scaled, or those of them that exist.
    template <int N>
    DEVICE void write(const Attend &a, const Place &p, u32 rows, u32 row, u32 column, const float (&x)[N]) const {
        const u32 count = a.head_dim - column;
        if (parts > 1) {
            store_some(sums, part_row(p, rows, row) * a.head_dim + column, F32, x, count);
        } else {
            const u64 at = ((u64)p.b * a.len_q + row / a.group) * a.heads_q + p.head_q(a, row);
            store_some(out, at * a.head_dim + column, out_dtype, x, count);
        }
    }

    // The first `count` of N values from element `i` on; in vectors where they lie so.
    template <int N>
    static DEVICE void store_some(void *to, u64 i, u32 dtype, const float (&x)[N], u32 count) {
        const u32 bytes = dtype == F32 ? 4 : 2, vector = min(16u, N * bytes);
        if (count >= N && (reinterpret_cast<u64>(to) + i * bytes) % vector == 0) {
            switch (dtype) {
                case F32: store_values(static_cast<float *>(to) + i, x); break;
                case F16: store_values(static_cast<f16 *>(to) + i, x); break;
                default: store_values(static_cast<bf16 *>(to) + i, x);
            }
            return;
        }
#pragma unroll
        for (u32 e = 0; e < N; e++)
            if (e < count) store_any(to, i + e, dtype, x[e]);
    }
};
