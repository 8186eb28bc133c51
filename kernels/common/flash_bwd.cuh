// Gradients of attention on tensor cores: what attention_bwd_d64.cu, attention_bwd_d128.cu and attention_bwd_d256.cu
// instantiate. attention_bwd_delta of attention_bwd.cu runs before.
//
// Operands: q [batch, len_q, heads_q, head_dim], k and v [batch, len_k, heads_kv, head_dim] of 16-bit floats, rows of heads
// whole (multiples of 16 bytes that begin at such) and at any distance; the masks of common/attend.cuh; from the workspace
// dout [batch, heads_q, len_q, head_dim] of the same dtype, and f32 [batch, heads_q, len_q] the log-sum-exp in base 2 and
// delta. Results: f32, contiguous, aligned to 8 bytes.
//
// Algorithm (FlashAttention-2, arXiv 2307.08691, algorithm 2, in base 2): for a tile of queries and one of keys,
// P = 2^(S - lse) with the scores S of Q · Kᵀ, and dS = P ∘ (dO · Vᵀ - delta). A block of `queries` owns queries of a head and
// adds up dQ = dS · K over the tiles of keys that they see; one of `keys` owns keys, computes Sᵀ and dPᵀ, and adds up
// dV = Pᵀ · dO and dK = dSᵀ · Q over the tiles of queries of all heads of the group. So a warp's accumulators of S and dP are,
// rounded, the operands of what follows: weights never leave registers. Seven products instead of five, for sums in one
// order without atomics, without partial sums of dQ (a matrix for each block of keys), and without blocks that wait.
// Tiles of the other side come through a ring of two, asked for one step ahead. Masks are evaluated only by warps for which
// a tile is not seen in full; what a warp does not see at all it skips.
//
// Tunables: TILES of 16 rows of a warp, of four warps, and OTHERS, the rows of the other side's tiles, at most 64 / TILES. `keys`:
// 1 and 64, from 128 columns on 32; with 256, where dK and dV are 128 registers each, a block has one of them. `queries`: 2
// and 32, with 128 columns 1 and 64, with 256 1 and 32.
//
// Budget: with 128 columns `keys` has 128 registers of sums and 32 of S and dP, 64.5 KiB of shared memory, `queries` 64 and 64
// registers, 96 KiB: two blocks on a multiprocessor, 8 warps. With 256 one block, 128 KiB. Bound: shared memory, of which a
// product of 16 x 8 x 16 reads 320 bytes (`keys`) or 299: 2.5 cycles, where the tensor cores of sm_80 need 2.
#pragma once
#include "common/flash.cuh"

struct Operands16 {
    const void *q, *k, *v, *dout;
    const float *lse, *delta;
    Strides q_strides, k_strides, v_strides;
    u32 blocks;
};

// The number itself, as if it were new: what is computed from it is not kept over a loop, for which there are no registers.
DEVICE u32 afresh(u32 x) {
    asm volatile("" : "+r"(x));
    return x;
}

// As stage_rows of whole rows, with addresses computed afresh.
template <class T, int D, int ROWS, int THREADS, class RowOf>
DEVICE void copy_rows(u32 smem, const T *any, u32 head_dim, RowOf row_of) {
    constexpr int CHUNKS = D / 8, ALL = ROWS * CHUNKS;
    const u32 thread = afresh(threadIdx.x);
#pragma unroll
    for (u32 at = 0; at < ALL; at += THREADS) {
        const u32 row = (at + thread) / CHUNKS, chunk = (at + thread) % CHUNKS;
        if (ALL % THREADS != 0 && row >= ROWS) break;
        const T *from = row_of(row);
        const bool there = from && chunk * 8 < head_dim;
        copy_async_16(smem + swizzled<CHUNKS>(row, chunk), there ? from + chunk * 8 : any, there ? 16 : 0);
    }
}

struct Pair {
    u32 query, key;
};

// Sums that a block of keys has.
enum Sums { DK_AND_DV, DK, DV };

template <class T, int D, bool KEYS, int TILES, int OTHERS>
struct Backward {
    static constexpr int WARPS = 4, THREADS = 32 * WARPS, WARP_ROWS = 16 * TILES, ROWS = WARPS * WARP_ROWS;
    static constexpr int CHUNKS = D / 8;
    static constexpr u32 OWN_BYTES = ROWS * D * 2, OTHER_BYTES = OTHERS * D * 2, ENDS_BYTES = KEYS ? OTHERS * 8 : 0;
    static constexpr u32 SLOT_BYTES = 2 * OTHER_BYTES + ENDS_BYTES;
    using Scores = float[TILES][OTHERS / 8][4];
    using Sum = float[TILES][D / 8][4];

    // s += own · otherᵀ
    static DEVICE void multiply(Scores &s, u32 own, u32 other) {
        FragmentLane<CHUNKS, true> own_lane;
        FragmentLane<CHUNKS, false> other_lane;
        own_lane.chunk = afresh(own_lane.chunk);
        other_lane.chunk = afresh(other_lane.chunk);
        own += threadIdx.x / 32 * WARP_ROWS * CHUNKS * 16;
#pragma unroll
        for (int step = 0; step < D / 16; step++) {
            u32 x[TILES][4];
#pragma unroll
            for (int t = 0; t < TILES; t++) load_matrix_4(x[t], own_lane.at(own, 16 * t, 16 * step));
#pragma unroll
            for (int n = 0; n < OTHERS / 16; n++) {
                u32 y[4];
                load_matrix_4(y, other_lane.at(other, 16 * n, 16 * step));
                mma_pair<T>(s, x, y, 2 * n);
            }
        }
    }

    // sum += weights · other, the weights rounded
    static DEVICE void accumulate(Sum &sum, const Scores &weights, u32 other) {
        FragmentLane<CHUNKS, true> lane;
        lane.chunk = afresh(lane.chunk);
#pragma unroll
        for (int step = 0; step < OTHERS / 16; step++) {
            u32 x[TILES][4];
            as_operands<T>(x, weights, 2 * step);
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                u32 y[4];
                load_matrix_4_transposed(y, lane.at(other, 16 * step, 16 * n));
                mma_pair<T>(sum, x, y, 2 * n);
            }
        }
    }

    // Rows from `first` on, of `rows` [row, head] that begin at `to`.
    static DEVICE void store(const Sum &sum, float scale, float *to, u32 first, u32 rows, u32 heads, u32 head_dim) {
        first = afresh(first);
        const u32 t2 = threadIdx.x % 4 * 2;
#pragma unroll
        for (int t = 0; t < TILES; t++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const u32 row = first + row_of(t, half);
                if (row >= rows) continue;
                float *at = to + (u64)row * heads * head_dim + t2;
#pragma unroll
                for (int n = 0; n < D / 8; n++)
                    if (8 * n + t2 < head_dim)
                        store_vec<float, 2>(at + 8 * n, {{sum[t][n][2 * half] * scale, sum[t][n][2 * half + 1] * scale}});
            }
        }
    }

    // Row `half` of fragment t, of this thread, counted from the block's first.
    static DEVICE u32 row_of(int t, int half) {
        return threadIdx.x / 32 * WARP_ROWS + 16 * t + 8 * half + threadIdx.x % 32 / 4;
    }

    // Products become scores in base 2, -infinity where the query does not see the key. `pair_of` tells which they are. What is
    // seen is a word of bits, from a loop that stays one: unrolled it would be half of the kernel and want all registers.
    template <class PairOf>
    static DEVICE void mask(Scores &s, const Attend &a, u32 b, u32 head, u32 exist, PairOf pair_of) {
        static_assert(TILES * OTHERS / 2 <= 32, "a bit for each score of a thread");
        const auto pair = [&](int i) { return pair_of(i / (OTHERS / 2), i / 2 % 2, i / 4 % (OTHERS / 8), i % 2); };
        u32 seen = 0;
#pragma unroll 1
        for (int i = 0; i < TILES * OTHERS / 2; i++) {
            const u32 query = pair(i).query, key = pair(i).key;
            const Query of = query_of(a, b, head, min(query, a.len_q - 1), exist, query < a.len_q);
            if (key >= of.lo && key < of.hi && meets(a, b, of, key)) seen |= 1u << i;
        }
#pragma unroll
        for (int i = 0; i < TILES * OTHERS / 2; i++) {
            float &x = s[i / (OTHERS / 2)][i / 4 % (OTHERS / 8)][i % 4];
            x = seen >> i & 1 ? x * a.score_scale : nothing();
            if (a.bias && seen >> i & 1) {
                const u64 at = b * a.bias_batch + head * a.bias_head + afresh(pair(i).query) * a.bias_row + pair(i).key;
                x = fmaf(a.bias[at], 1.44269504f, x);
            }
        }
    }

    template <Sums SUMS>
    static DEVICE void keys(const Operands16 &x, const Attend &a, float *dk, float *dv, u32 number) {
        extern __shared__ __align__(1024) u8 smem[];
        constexpr bool HAS_DK = SUMS != DV, HAS_DV = SUMS != DK;
        const u32 k_tile = smem_address(smem), v_tile = k_tile + OWN_BYTES, ring = v_tile + OWN_BYTES;
        // The first blocks of a head first: with a causal mask they take the longest.
        const u32 first = number % x.blocks * ROWS, b = number / x.blocks / a.heads_kv, h = number / x.blocks % a.heads_kv;
        const u32 exist = keys_of(a, b), end = min(first + ROWS, exist);

        // The queries that see one of the keys by their places.
        const i32 beside = (i32)a.len_q - (i32)exist;
        const u32 begin = a.causal ? (u32)max((i32)first + beside, 0) : 0;
        u32 stop = first < exist ? a.len_q : 0;
        if (a.window) stop = min(stop, (u32)max((i32)(end + a.window) + beside - 1, 0));
        const u32 steps = stop > begin ? ceil_div(stop - begin, OTHERS) * a.group : 0;

        const auto key_row = [&](const void *from, const Strides &strides, u32 row) {
            const u32 j = first + row;
            // What is hidden may be anything, and 0 · NaN is not 0.
            return j < exist && key_there(a, b, j) ? static_cast<const T *>(from) + place(strides, b, j, h) : nullptr;
        };
        const T *q = static_cast<const T *>(x.q), *dout = static_cast<const T *>(x.dout);
        // Asks for the tile of step `step`.
        const auto stage = [&](u32 step, u32 query, u32 head) {
            if (step < steps) {
                const u32 to = ring + step % 2 * SLOT_BYTES, from = afresh(query), sequence = afresh(b);
                const u64 row = ((u64)sequence * a.heads_q + head) * a.len_q;
                stage_whole_rows<T, D, OTHERS, THREADS>(to, q + place(x.q_strides, sequence, from, head), x.q_strides.row,
                                                        a.head_dim, a.len_q - from);
                stage_whole_rows<T, D, OTHERS, THREADS>(to + OTHER_BYTES, dout + (row + from) * a.head_dim, a.head_dim,
                                                        a.head_dim, a.len_q - from);
                for (u32 i = threadIdx.x; i < 2 * OTHERS; i += THREADS) {
                    const float *ends = i < OTHERS ? x.lse : x.delta;
                    const u32 r = from + i % OTHERS;
                    copy_async_4(to + 2 * OTHER_BYTES + 4 * i, ends + (r < a.len_q ? row + r : 0), r < a.len_q ? 4 : 0);
                }
            }
            copy_commit();
        };
        copy_rows<T, D, ROWS, THREADS>(k_tile, static_cast<const T *>(x.k), a.head_dim,
                                        [&](u32 row) { return key_row(x.k, x.k_strides, row); });
        if (HAS_DK)
            copy_rows<T, D, ROWS, THREADS>(v_tile, static_cast<const T *>(x.v), a.head_dim,
                                            [&](u32 row) { return key_row(x.v, x.v_strides, row); });
        u32 query = begin, head = h * a.group;
        stage(0, query, head);

        const u32 key = first + threadIdx.x / 32 * WARP_ROWS;
        Sum k_sum = {}, v_sum = {};
        for (u32 step = 0; step < steps; step++) {
            const bool more = query + OTHERS < stop;
            const u32 next_query = more ? query + OTHERS : begin, next_head = more ? head : head + 1;
            copy_wait<0>();
            __syncthreads();
            stage(step + 1, next_query, next_head);
            const u32 last = min(query + OTHERS, a.len_q) - 1;
            if (seen_end(a, last, exist) > key && seen_begin(a, query, exist) < key + WARP_ROWS) {
                const u32 slot = step % 2 * SLOT_BYTES, q_tile = ring + slot, dout_tile = q_tile + OTHER_BYTES;
                // Of the queries of this thread's columns: log-sum-exps, and OTHERS / 2 further deltas.
                const float2 *ends =
                    reinterpret_cast<const float2 *>(smem + 2 * OWN_BYTES + slot + 2 * OTHER_BYTES) + threadIdx.x % 4;
                Scores s = {};
                multiply(s, k_tile, q_tile);
                // From here on a score is s · factor.
                const bool all = all_seen(a, query, last, exist, key, key + WARP_ROWS);
                if (!all) {
                    const u32 i = afresh(query) + threadIdx.x % 4 * 2, j = afresh(first);
                    mask(s, a, afresh(b), head, exist, [&](int t, int half, int n, int e) {
                        return Pair{i + 8 * n + e, j + row_of(t, half)};
                    });
                }
                const float factor = all ? a.score_scale : 1.0f;
#pragma unroll
                for (int n = 0; n < OTHERS / 8; n++) {
                    const float2 lse = ends[4 * n];
#pragma unroll
                    for (int t = 0; t < TILES; t++) {
#pragma unroll
                        for (int e = 0; e < 4; e++) s[t][n][e] = exp2_fast(fmaf(s[t][n][e], factor, -(e % 2 ? lse.y : lse.x)));
                    }
                }
                if (HAS_DV) accumulate(v_sum, s, dout_tile);
                if (HAS_DK) {
                    Scores dp = {};
                    multiply(dp, v_tile, dout_tile);
#pragma unroll
                    for (int n = 0; n < OTHERS / 8; n++) {
                        const float2 delta = ends[OTHERS / 2 + 4 * n];
#pragma unroll
                        for (int t = 0; t < TILES; t++) {
#pragma unroll
                            for (int e = 0; e < 4; e++) s[t][n][e] *= dp[t][n][e] - (e % 2 ? delta.y : delta.x);
                        }
                    }
                    accumulate(k_sum, s, q_tile);
                }
            }
            query = next_query;
            head = next_head;
        }
        copy_wait<0>();
        const u64 at = ((u64)afresh(b) * a.len_k * a.heads_kv + h) * a.head_dim;
        if (HAS_DK) store(k_sum, a.softmax_scale, dk + at, first, a.len_k, a.heads_kv, a.head_dim);
        if (HAS_DV) store(v_sum, 1.0f, dv + at, first, a.len_k, a.heads_kv, a.head_dim);
    }

    static DEVICE void queries(const Operands16 &x, const Attend &a, float *dq, u32 number) {
        extern __shared__ __align__(1024) u8 smem[];
        const u32 q_tile = smem_address(smem), dout_tile = q_tile + OWN_BYTES, ring = dout_tile + OWN_BYTES;
        // The last blocks of a head first: with a causal mask they take the longest.
        const u32 first = (x.blocks - 1 - number % x.blocks) * ROWS;
        const u32 b = number / x.blocks / a.heads_q, head = number / x.blocks % a.heads_q, h = head / a.group;
        const u32 exist = keys_of(a, b), last = min(first + ROWS, a.len_q) - 1;
        const u32 begin = seen_begin(a, first, exist), stop = seen_end(a, last, exist);
        const u32 steps = stop > begin ? ceil_div(stop - begin, OTHERS) : 0;

        const T *q = static_cast<const T *>(x.q), *dout = static_cast<const T *>(x.dout);
        const u64 row = ((u64)b * a.heads_q + head) * a.len_q;
        copy_rows<T, D, ROWS, THREADS>(q_tile, q, a.head_dim, [&](u32 r) {
            return first + r < a.len_q ? q + place(x.q_strides, b, first + r, head) : nullptr;
        });
        copy_rows<T, D, ROWS, THREADS>(dout_tile, dout, a.head_dim, [&](u32 r) {
            return first + r < a.len_q ? dout + (row + first + r) * a.head_dim : nullptr;
        });
        const auto stage = [&](u32 step) {
            if (step < steps) {
                const u32 to = ring + step % 2 * SLOT_BYTES, from = afresh(begin + step * OTHERS);
                const u32 sequence = afresh(b), head_kv = afresh(h);
                const auto side = [&](u32 to, const void *operand, const Strides &strides) {
                    const T *first_row = static_cast<const T *>(operand) + place(strides, sequence, from, head_kv);
                    if (!a.padding)
                        return stage_whole_rows<T, D, OTHERS, THREADS>(to, first_row, strides.row, a.head_dim, stop - from);
                    // What is hidden may be anything, and 0 · NaN is not 0.
                    copy_rows<T, D, OTHERS, THREADS>(to, first_row, a.head_dim, [&](u32 r) {
                        return from + r < stop && key_there(a, sequence, from + r) ? first_row + r * strides.row : nullptr;
                    });
                };
                side(to, x.k, x.k_strides);
                side(to + OTHER_BYTES, x.v, x.v_strides);
            }
            copy_commit();
        };
        stage(0);

        float lse[TILES][2], delta[TILES][2];
#pragma unroll
        for (int r = 0; r < 2 * TILES; r++) {
            const u64 at = row + min(first + row_of(r / 2, r % 2), a.len_q - 1);
            lse[r / 2][r % 2] = x.lse[at];
            delta[r / 2][r % 2] = x.delta[at];
        }
        const u32 warp_first = min(first + threadIdx.x / 32 * WARP_ROWS, a.len_q - 1);
        const u32 warp_last = min(warp_first + WARP_ROWS, a.len_q) - 1;
        Sum sum = {};
        for (u32 step = 0; step < steps; step++) {
            copy_wait<0>();
            __syncthreads();
            stage(step + 1);
            const u32 key = begin + step * OTHERS;
            if (seen_end(a, warp_last, exist) <= key || seen_begin(a, warp_first, exist) >= key + OTHERS) continue;
            const u32 k_tile = ring + step % 2 * SLOT_BYTES, v_tile = k_tile + OTHER_BYTES;
            Scores s = {};
            multiply(s, q_tile, k_tile);
            const bool all = all_seen(a, warp_first, warp_last, exist, key, key + OTHERS);
            if (!all) {
                const u32 i = afresh(first), j = afresh(key) + threadIdx.x % 4 * 2;
                mask(s, a, afresh(b), head, exist, [&](int t, int half, int n, int e) {
                    return Pair{i + row_of(t, half), j + 8 * n + e};
                });
            }
            const float factor = all ? a.score_scale : 1.0f;
#pragma unroll
            for (int i = 0; i < TILES * OTHERS / 2; i++) {
                const int t = i / (OTHERS / 2), n = i / 4 % (OTHERS / 8), e = i % 4;
                s[t][n][e] = exp2_fast(fmaf(s[t][n][e], factor, -lse[t][e / 2]));
            }
            Scores dp = {};
            multiply(dp, dout_tile, v_tile);
#pragma unroll
            for (int i = 0; i < TILES * OTHERS / 2; i++) {
                const int t = i / (OTHERS / 2), n = i / 4 % (OTHERS / 8), e = i % 4;
                s[t][n][e] *= dp[t][n][e] - delta[t][e / 2];
            }
            accumulate(sum, s, k_tile);
        }
        copy_wait<0>();
        const u64 at = ((u64)afresh(b) * a.len_q * a.heads_q + head) * a.head_dim;
        store(sum, a.softmax_scale, dq + at, first, a.len_q, a.heads_q, a.head_dim);
    }
};

#define FLASH_BWD(T, D)                                                                                                     \
    KERNEL_OF(128, 2)                                                                                                           \
    attention_bwd_##T##_d##D##__sm80(Operands16 x, Attend attend, float *dk, float *dv) {                                   \
        if constexpr (D <= 128) {                                                                                           \
            Backward<T, D, true, 1, D <= 96 ? 64 : 32>::keys<DK_AND_DV>(x, attend, dk, dv, blockIdx.x);                                    \
        } else if (blockIdx.x % 2 == 0) {                                                                                   \
            Backward<T, D, true, 1, 32>::keys<DK>(x, attend, dk, dv, blockIdx.x / 2);                                       \
        } else {                                                                                                            \
            Backward<T, D, true, 1, 32>::keys<DV>(x, attend, dk, dv, blockIdx.x / 2);                                       \
        }                                                                                                                   \
    }                                                                                                                       \
    KERNEL_OF(128, 2)                                                                                                           \
    attention_bwd_queries_##T##_d##D##__sm80(Operands16 x, Attend attend, float *dq) {                                      \
        Backward<T, D, false, D <= 96 ? 2 : 1, D == 128 ? 64 : 32>::queries(x, attend, dq, blockIdx.x);                                    \
    }
