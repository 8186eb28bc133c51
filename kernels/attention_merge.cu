// The merge of two attentions of the same queries over different keys, by their log-sum-exps.
//
// Operands, all f32 and contiguous: results [batch, len_q, heads, head_dim], log-sum-exps [batch, heads, len_q].
//
// Algorithm: with m the larger log-sum-exp and x = e^(lse_a - m), y = e^(lse_b - m), lse = m + ln(x + y) and a row is
// x/(x + y) · a + y/(x + y) · b. A weight of 0 hides what it would multiply, whatever that is. `lanes` threads, a power of two,
// share a row, each with four columns at a time (one where rows are no vectors); they find the weights each for themselves.
//
// Budget: 32 registers, no shared memory. Bound: memory, two reads and one write; 2048 threads have 64 KiB under way on a
// multiprocessor. Log-sum-exps of neighbouring rows lie len_q apart: a sector for each, 1/16 of the traffic of 128 columns.
#include "common/base.cuh"

template <int V>
DEVICE void merge(const float *a, const float *b, float *out, float x, float y, u32 columns, u32 lane, u32 lanes) {
    for (u32 c = lane * V; c < columns; c += lanes * V) {
        const Vec<float, V> p = load_vec<float, V>(a + c), q = load_vec<float, V>(b + c);
        Vec<float, V> r;
#pragma unroll
        for (int e = 0; e < V; e++) {
            const float kept = x == 0 ? 0.0f : x * p.at[e];
            r.at[e] = y == 0 ? kept : fmaf(y, q.at[e], kept);
        }
        store_vec<float, V>(out + c, r);
    }
}

KERNEL(256)
attention_merge_f32__sm80(const float *out_a, const float *lse_a, const float *out_b, const float *lse_b, float *out, float *lse,
                          u32 rows, u32 len_q, u32 heads, u32 head_dim, u32 lanes, u32 vectors) {
    const u32 row = blockIdx.x * (256 / lanes) + threadIdx.x / lanes, lane = threadIdx.x % lanes;
    if (row >= rows) return;
    const u32 query = row / heads, sequence = query / len_q;
    const u64 end = ((u64)sequence * heads + row % heads) * len_q + query % len_q;
    const float a = lse_a[end], b = lse_b[end], m = fmaxf(a, b);
    float x = 0, y = 0, merged = m;
    if (m != -infinity()) {
        x = expf(a - m), y = expf(b - m);
        const float sum = x + y;
        merged = m + logf(sum);
        x /= sum, y /= sum;
    }
    if (lane == 0) lse[end] = merged;
    const u64 at = (u64)row * head_dim;
    if (vectors) {
        merge<4>(out_a + at, out_b + at, out + at, x, y, head_dim, lane, lanes);
    } else {
        merge<1>(out_a + at, out_b + at, out + at, x, y, head_dim, lane, lanes);
    }
}
