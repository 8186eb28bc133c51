// Attention in f32, for operands of any float dtype, heads of any length that lie anyhow, and any number of queries.
//
// Operands: as in common/flash.cuh, of a dtype that is told at run time.
//
// Algorithm (FlashAttention-2, arXiv 2307.08691, algorithm 1, in base 2; rows and parts as in common/attend_out.cuh): 64 rows
// meet 64 keys at a time. Thread (g, c) has rows g + 8 i, of S the keys c + 16 j, and of O the columns 4 c + 64 y on. Both products
// read 4 elements of each row at once from shared memory; K and V take turns in the same place. O has at most D columns: longer
// heads are computed in passes, blocks of their own that compute the scores again, from D columns of Q and K at a time.
//
// Tunables: D columns, 64 or 128.
//
// Budget: 64 + 32 registers for O and S of 128 columns. 87 KiB of shared memory: two blocks of 128 threads on a
// multiprocessor with 228 KiB. Bound: fma; 12 and 16 reads of 16 bytes, most of them the same in half a warp, for 128 and 256.
#include "common/attend_out.cuh"

template <int D>
struct Tiled {
    static constexpr int ROWS = 64, KEYS = 64, THREADS = 128;
    // Rows of 4 banks more: eight neighbours read 16 bytes each from all banks. Weights of neighbours lie 16 banks apart.
    static constexpr int PITCH = D + 4, P_PITCH = KEYS + 16;
    static constexpr u32 SMEM_BYTES = 4 * (ROWS * PITCH + KEYS * PITCH + ROWS * P_PITCH);

    // Columns `column` to before column + D of 64 rows; `row_of` gives the place of a row's first element, or ~0 for zeros.
    template <class RowOf>
    static DEVICE void stage(float *to, const void *from, u32 dtype, bool whole, u32 head_dim, u32 column, RowOf row_of) {
        if (whole) {
#pragma unroll 4
            for (u32 i = threadIdx.x; i < 64 * D / 4; i += THREADS) {
                const u32 row = i / (D / 4), c = i % (D / 4) * 4;
                const u64 at = row_of(row);
                const bool there = at != ~0ull && column + c < head_dim;
                const float *x = static_cast<const float *>(from);
                copy_async_16(smem_address(to + row * PITCH + c), there ? x + at + column + c : x, there ? 16 : 0);
            }
        } else {
            for (u32 i = threadIdx.x; i < 64 * D; i += THREADS) {
                const u32 row = i / D, c = i % D;
                const u64 at = row_of(row);
                const bool there = at != ~0ull && column + c < head_dim;
                to[row * PITCH + c] = there ? load_any(from, at + column + c, dtype) : 0;
            }
        }
        copy_commit();
    }

    static DEVICE Vec<float, 4> four(const float *from) { return load_vec<float, 4>(from); }

    static DEVICE void run(const void *q, const void *k, const void *v, const Attend &a, const Strides &q_strides,
                           const Strides &k_strides, const Strides &v_strides, const Results &results, u32 rows, u32 blocks,
                           bool whole, u32 dtype, Faults *faults, u32 fault_op) {
        extern __shared__ __align__(16) float smem[];
        float *q_tile = smem, *tile = q_tile + ROWS * PITCH, *weights = tile + KEYS * PITCH;
        const Place p(a, rows, blocks, results.parts, ROWS, KEYS);
        const u32 pass_column = blockIdx.y * D;
        if (threadIdx.x == 0 && blockIdx.y == 0) check_keys(a, p.b, faults, fault_op);
        const u32 g = threadIdx.x / 16, c = threadIdx.x % 16;

        const auto stage_q = [&](u32 column) {
            stage(q_tile, q, dtype, whole, a.head_dim, column, [&](u32 row) {
                const u32 r = p.first + row;
                return r < rows ? place(q_strides, p.b, r / a.group, p.head_q(a, r)) : ~0ull;
            });
        };
        if (a.head_dim <= D) stage_q(0);
        const Span plain = seen_by_all(a, p.first / a.group, min(p.first + ROWS - 1, rows - 1) / a.group, p.keys);
        float o[8][D / 16] = {}, m[8], l[8] = {};
#pragma unroll
        for (int i = 0; i < 8; i++) m[i] = nothing();

        for (u32 key = p.begin; key < p.end; key += KEYS) {
            float s[8][4] = {};
            for (u32 column = 0; column < a.head_dim; column += D) {
                if (a.head_dim > D) stage_q(column);
                stage(tile, k, dtype, whole, a.head_dim, column, [&](u32 row) {
                    return key + row < p.end ? place(k_strides, p.b, key + row, p.h) : ~0ull;
                });
                copy_wait<0>();
                __syncthreads();
                const u32 columns = min((u32)D, a.head_dim - column);
#pragma unroll 2
                for (u32 x = 0; x < columns; x += 4) {
                    Vec<float, 4> other[4];
#pragma unroll
                    for (int j = 0; j < 4; j++) other[j] = four(tile + (c + 16 * j) * PITCH + x);
#pragma unroll
                    for (int i = 0; i < 8; i++) {
                        const Vec<float, 4> own = four(q_tile + (g + 8 * i) * PITCH + x);
#pragma unroll
                        for (int j = 0; j < 4; j++) {
#pragma unroll
                            for (int e = 0; e < 4; e++) s[i][j] = fmaf(own.at[e], other[j].at[e], s[i][j]);
                        }
                    }
                }
                __syncthreads();
            }
            stage(tile, v, dtype, whole, a.head_dim, pass_column, [&](u32 row) {
                // What is hidden may be anything, and 0 · NaN is not 0.
                const u32 j = key + row;
                return j < p.end && key_there(a, p.b, j) ? place(v_strides, p.b, j, p.h) : ~0ull;
            });

            // A score is s · factor.
            const bool masked = !plain.holds(key, key + KEYS) || a.score_scale < 0;
            const float factor = masked ? 1 : a.score_scale;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                if (masked) {
                    const u32 row = min(p.first + g + 8 * i, rows - 1);
                    const Query query = query_of(a, p.b, p.head_q(a, row), row / a.group, p.keys);
                    score<4>(
                        a, p.b, query, [&](int x) -> float & { return s[i][x]; }, [&](int x) { return key + c + 16 * x; });
                }
                float top = fmaxf(fmaxf(s[i][0], s[i][1]), fmaxf(s[i][2], s[i][3])) * factor;
#pragma unroll
                for (int d = 1; d < 16; d *= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, d));
                top = fmaxf(top, m[i]);
                // A row that has seen nothing: any finite base gives weights of 2^-inf = 0.
                const float base = top == nothing() ? 0.0f : top;
                const float fade = exp2_fast(m[i] - base);
                m[i] = top;
                l[i] *= fade;
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const float weight = exp2_fast(fmaf(s[i][j], factor, -base));
                    l[i] += weight;
                    weights[(g + 8 * i) * P_PITCH + c + 16 * j] = weight;
                }
#pragma unroll
                for (int x = 0; x < D / 16; x++) o[i][x] *= fade;
            }
            copy_wait<0>();
            __syncthreads();
#pragma unroll 1
            for (int j = 0; j < KEYS; j += 4) {
                Vec<float, 4> w[8];
#pragma unroll
                for (int i = 0; i < 8; i++) w[i] = four(weights + (g + 8 * i) * P_PITCH + j);
#pragma unroll
                for (int e = 0; e < 4; e++) {
#pragma unroll
                    for (int y = 0; y < D / 64; y++) {
                        const Vec<float, 4> x = four(tile + (j + e) * PITCH + 4 * c + 64 * y);
#pragma unroll
                        for (int i = 0; i < 8; i++) {
#pragma unroll
                            for (int n = 0; n < 4; n++) o[i][4 * y + n] = fmaf(w[i].at[e], x.at[n], o[i][4 * y + n]);
                        }
                    }
                }
            }
            __syncthreads();
        }
        copy_wait<0>();

#pragma unroll
        for (int i = 0; i < 8; i++) {
            const u32 row = p.first + g + 8 * i;
            float sum = l[i];
#pragma unroll
            for (int d = 1; d < 16; d *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
            if (row >= rows) continue;
            if (c == 0 && blockIdx.y == 0) results.write_ends(a, p, rows, row, m[i], sum);
#pragma unroll
            for (int y = 0; y < D / 64; y++) {
                const u32 column = pass_column + 4 * c + 64 * y;
                float x[4];
#pragma unroll
                for (int n = 0; n < 4; n++) x[n] = o[i][4 * y + n] * results.scale(sum);
                if (column < a.head_dim) results.write(a, p, rows, row, column, x);
            }
        }
    }
};

#define TILED(D)                                                                                                            \
    KERNEL_OF(128, 2)                                                                                                       \
    attention_f32_d##D##__sm80(const void *q, const void *k, const void *v, Attend attend, Strides q_strides,               \
                               Strides k_strides, Strides v_strides, Results results, u32 rows, u32 blocks, u32 whole,      \
                               u32 dtype, Faults *faults, u32 fault_op) {                                                   \
        Tiled<D>::run(q, k, v, attend, q_strides, k_strides, v_strides, results, rows, blocks, whole, dtype, faults,        \
                      fault_op);                                                                                            \
    }
TILED(64)
TILED(128)
