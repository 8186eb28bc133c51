// Which queries see which keys, and what is added to their scores: `ops::attend::cuda` describes it. Scores are in base 2.
// Also how rows of heads are staged in shared memory.
#pragma once
#include "common/matrix.cuh"

// Distances in an operand [batch, len, heads, head_dim]; the elements of a head are neighbours.
struct Strides {
    u64 batch, row, head;
};
DEVICE u64 place(const Strides &s, u32 b, u32 row, u32 head) { return b * s.batch + row * s.row + head * s.head; }

struct Attend {
    // Null where the problem lacks them.
    const float *bias;
    const u32 *ids_q, *ids_k;
    const u8 *padding;
    const u32 *lens;
    // 0 where sequences or heads share the bias.
    u64 bias_batch, bias_head, bias_row;
    // `group` heads of queries share a head of keys; a window of 0 is none.
    u32 len_q, len_k, heads_q, heads_kv, group, head_dim, causal, window;
    // `score_scale` is softmax_scale · log2 e.
    float softmax_scale, score_scale;
};

// The keys that exist. More than `len_k` is a fault, which `check_keys` reports.
DEVICE u32 keys_of(const Attend &a, u32 b) { return a.lens ? min(a.lens[b], a.len_k) : a.len_k; }
DEVICE void check_keys(const Attend &a, u32 b, Faults *faults, u32 op) {
    if (a.lens && a.lens[b] > a.len_k) fault(faults, op, a.lens[b], b, a.len_k + 1);
}

// Whether no padding hides key j < len_k.
DEVICE bool key_there(const Attend &a, u32 b, u32 j) { return !a.padding || a.padding[(u64)b * a.len_k + j] != 0; }

// The key behind the last one that query i sees by its place, and the first, of `keys` that exist.
DEVICE u32 seen_end(const Attend &a, u32 i, u32 keys) {
    if (!a.causal) return keys;
    const i32 next = (i32)(i + 1 + keys) - (i32)a.len_q;
    return (u32)min(max(next, 0), (i32)keys);
}
DEVICE u32 seen_begin(const Attend &a, u32 i, u32 keys) {
    if (a.window == 0) return 0;
    const i32 next = (i32)(i + 1 + keys) - (i32)(a.len_q + a.window);
    return min((u32)max(next, 0), seen_end(a, i, keys));
}

// The keys from `from` to before `to` are those that queries `first` to `last` all see, where nothing is added to their
// scores: then a score is the product times `score_scale`.
struct Span {
    u32 from, to;
    DEVICE bool holds(u32 begin, u32 end) const { return begin >= from && end <= to; }
};
DEVICE Span seen_by_all(const Attend &a, u32 first, u32 last, u32 keys) {
    if (a.bias || a.ids_q || a.padding) return {1, 0};
    return {seen_begin(a, last, keys), seen_end(a, first, keys)};
}
DEVICE bool all_seen(const Attend &a, u32 first, u32 last, u32 keys, u32 begin, u32 end) {
    return seen_by_all(a, first, last, keys).holds(begin, end);
}

// A query of a head: by its place it sees the keys from `lo` to before `hi`; its segment; its row of the bias.
struct Query {
    u32 lo, hi, id;
    const float *bias;
};
// The number of the query must lie inside; one that is not `there` sees nothing.
DEVICE Query query_of(const Attend &a, u32 b, u32 head, u32 i, u32 keys, bool there = true) {
    Query q;
    q.hi = there ? seen_end(a, i, keys) : 0;
    q.lo = min(seen_begin(a, i, keys), q.hi);
    q.id = a.ids_q ? a.ids_q[(u64)b * a.len_q + i] : 0;
    q.bias = a.bias ? a.bias + b * a.bias_batch + head * a.bias_head + i * a.bias_row : nullptr;
    return q;
}

// The score of a key that is not seen, and the log-sum-exp of none.
DEVICE float nothing() { return -infinity(); }

// Whether segments and padding let a query meet key j, one that it sees by its place.
DEVICE bool meets(const Attend &a, u32 b, const Query &q, u32 j) {
    return (!a.ids_k || a.ids_k[(u64)b * a.len_k + j] == q.id) && key_there(a, b, j);
}

// Products of a query with keys become scores in base 2, -infinity where it does not see the key. For x < N, `at(x)` is a
// product and `key(x)` its key, which may be any number; both are unrolled, and each kind of mask has a loop of its own so
// that the others cost nothing.
template <int N, class At, class Key>
DEVICE void score(const Attend &a, u32 b, const Query &q, At at, Key key) {
#pragma unroll
    for (int x = 0; x < N; x++) at(x) = key(x) >= q.lo && key(x) < q.hi ? at(x) * a.score_scale : nothing();
    if (a.bias) {
#pragma unroll
        for (int x = 0; x < N; x++)
            if (key(x) >= q.lo && key(x) < q.hi) at(x) = fmaf(q.bias[key(x)], 1.44269504f, at(x));
    }
    if (a.ids_k || a.padding) {
#pragma unroll
        for (int x = 0; x < N; x++)
            if (key(x) >= q.lo && key(x) < q.hi && !meets(a, b, q, key(x))) at(x) = nothing();
    }
}

// 2^x to 2 ulp; 0 of -infinity.
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// How many elements added up hold a weight to f32's precision.
template <class T>
constexpr u32 TERMS = 3;
template <>
constexpr u32 TERMS<f16> = 2;

DEVICE void store_shared_16(u32 smem, const u32 (&w)[4]) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(smem), "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]) : "memory");
}

// Rows of heads of 16-bit elements into a swizzled tile of ROWS x D; THREADS take part. `row_of` gives where a row begins,
// or null for one that counts as zeros; columns from head_dim on are zeros. Where all rows are `whole`, that is begin at
// multiples of 16 bytes and consist of such pieces, the copies are asynchronous; `any` is an address that can be read.
template <class T, int D, int ROWS, int THREADS, class RowOf>
DEVICE void stage_rows(u32 smem, const T *any, u32 head_dim, bool whole, RowOf row_of) {
    constexpr int CHUNKS = D / 8, ALL = ROWS * CHUNKS;
    if (whole) {
#pragma unroll 1
        for (u32 at = 0; at < ALL; at += THREADS) {
            const u32 row = (at + threadIdx.x) / CHUNKS, chunk = (at + threadIdx.x) % CHUNKS;
            if (ALL % THREADS != 0 && row >= ROWS) break;
            const T *from = row_of(row);
            const bool there = from && chunk * 8 < head_dim;
            copy_async_16(smem + swizzled<CHUNKS>(row, chunk), there ? from + chunk * 8 : any, there ? 16 : 0);
        }
        return;
    }
#pragma unroll 1
    for (u32 i = threadIdx.x; i < ALL; i += THREADS) {
        const u32 row = i / CHUNKS, chunk = i % CHUNKS;
        const T *from = row_of(row);
        u32 words[4] = {};
#pragma unroll
        for (u32 e = 0; e < 8; e++)
            if (from && chunk * 8 + e < head_dim) words[e / 2] |= (u32)from[chunk * 8 + e].bits << e % 2 * 16;
        store_shared_16(smem + swizzled<CHUNKS>(row, chunk), words);
    }
}

// The same for whole rows at one distance, of which `count` exist and the others count as zeros; in few instructions, for
// loops over tiles. `first` is the first element of the first row.
template <class T, int D, int ROWS, int THREADS>
DEVICE void stage_whole_rows(u32 smem, const T *first, u64 stride, u32 head_dim, u32 count) {
    // Threads side by side take WIDTH neighbours of a row.
    constexpr int CHUNKS = D / 8, WIDTH = CHUNKS & -CHUNKS, STEP = THREADS / WIDTH;
    static_assert(ROWS % STEP == 0, "every thread has as many rows");
    const u32 row = threadIdx.x / WIDTH, chunk = threadIdx.x % WIDTH;
    const T *from = first + row * stride + chunk * 8;
#pragma unroll
    for (int i = 0; i < ROWS; i += STEP) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c += WIDTH) {
            const bool there = row + i < count && (chunk + c) * 8 < head_dim;
            copy_async_16(smem + swizzled<CHUNKS>(row + i, chunk + c), from + c * 8, there ? 16 : 0);
        }
        from += STEP * stride;
    }
}
