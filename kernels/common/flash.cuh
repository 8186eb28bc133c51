// Attention of blocks of queries over blocks of keys on tensor cores: what attention_d64.cu, attention_d128.cu and
// attention_d256.cu instantiate.
//
// Operands: q [batch, len_q, heads_q, head_dim], k and v [batch, len_k, heads_kv, head_dim] of 16-bit floats, heads whole and
// everything else at any distance; the masks of common/attend.cuh; results as in common/attend_out.cuh.
//
// Algorithm (FlashAttention-2, arXiv 2307.08691, algorithm 1, in base 2): the queries of all heads of a group that share
// keys are one column of rows, row i · group + head. A block owns ROWS of them and goes over the keys between the first and
// the last that one of them sees: S = Q · Kᵀ, m' = max(m, S), P = 2^(S - m'), O = O · 2^(m - m') + P · V. Scores, P and O stay
// in registers: the accumulator of S has the layout of the operand P. Tiles of K and V come in turn through a ring of three,
// each asked for two steps ahead. Masks are evaluated only by warps for which a tile is not seen in full.
// Where the result is finer than the operands, P is a sum of two (f16) or three (bf16) of them, each with a product of its own.
//
// Tunables: TILES of 16 rows to a warp (2 for coarse results of up to 128 columns, so that a fragment of K or V serves 4
// products; else 1: beyond, O alone has 128 registers, and fine results use a fragment of V several times anyway), KEYS of a
// tile (64 up to 128 columns). Four warps.
//
// Budget: O has TILES · D / 2 registers, S TILES · KEYS / 2; Q stays in shared memory where 128 columns leave no
// registers. 80 KiB of shared memory for 128 and for 256 columns: two blocks on a multiprocessor of sm_80 and of sm_90. Bound:
// mma. For 128 columns a tile of a warp has 256 products (512 cycles of a multiprocessor's tensor cores at the rate of sm_80)
// and 80 ldmatrix (320 cycles of its shared memory), among about 1160 instructions (290 cycles of its four schedulers).
// Multiplying O only where a maximum grew saves a tenth of them but costs registers that are not there.
#pragma once
#include "common/attend_out.cuh"

// The addresses at which a lane reads four 8x8 matrices of 16 rows by 16 columns of a swizzled tile, in the order in which
// fragments want them: columns after rows for A and, transposed, for B (ROWS_FIRST), or rows after columns for B.
template <int CHUNKS, bool ROWS_FIRST>
struct FragmentLane {
    u32 row, chunk;
    DEVICE FragmentLane() {
        const u32 lane = threadIdx.x % 32, one = lane >> 3 & 1, two = lane >> 4;
        const u32 r = lane % 8 + 8 * (ROWS_FIRST ? one : two);
        row = r * CHUNKS * 16;
        chunk = swizzled<CHUNKS>(r, ROWS_FIRST ? two : one) - row;
    }
    // Of the rows from `first` on and the columns from `column` on, both multiples of 16.
    DEVICE u32 at(u32 tile, u32 first, u32 column) const { return tile + row + first * CHUNKS * 16 + (chunk ^ column * 2); }
};

template <class T, int D, bool FINE>
struct Flash {
    static constexpr int TILES = D <= 128 && !FINE ? 2 : 1;
    static constexpr int WARPS = 4, THREADS = 32 * WARPS;
    static constexpr int WARP_ROWS = 16 * TILES, ROWS = WARPS * WARP_ROWS;
    static constexpr int KEYS = D <= 128 ? 64 : FINE ? 16 : 32;
    static constexpr bool Q_IN_REGISTERS = D <= 64;
    static constexpr int CHUNKS = D / 8;
    static constexpr u32 Q_BYTES = ROWS * D * 2, TILE_BYTES = KEYS * D * 2;
    // Rows of results, in f32, lie 8 banks apart.
    static constexpr int PITCH = D + 8;

    // Keeps Q as fragments where there are registers for it.
    struct Queries {
        u32 kept[Q_IN_REGISTERS ? D / 16 : 1][TILES][4];
        u32 tile;
        FragmentLane<CHUNKS, true> lane;

        DEVICE Queries(u32 tile) : tile(tile + threadIdx.x / 32 * WARP_ROWS * CHUNKS * 16) {}
        DEVICE void read(u32 (&a)[TILES][4], int step) const {
#pragma unroll
            for (int t = 0; t < TILES; t++) load_matrix_4(a[t], lane.at(tile, 16 * t, 16 * step));
        }
        DEVICE void keep() {
            if constexpr (Q_IN_REGISTERS) {
#pragma unroll
                for (int step = 0; step < D / 16; step++) read(kept[step], step);
            }
        }
        DEVICE void get(u32 (&a)[TILES][4], int step) const {
            if constexpr (Q_IN_REGISTERS) {
#pragma unroll
                for (int i = 0; i < 4 * TILES; i++) a[i / 4][i % 4] = kept[step][i / 4][i % 4];
            } else {
                read(a, step);
            }
        }
    };

    static DEVICE void run(const T *q, const T *k, const T *v, const Attend &a, const Strides &q_strides,
                           const Strides &k_strides, const Strides &v_strides, const Results &results, u32 rows, u32 blocks,
                           bool whole, Faults *faults, u32 fault_op) {
        extern __shared__ __align__(1024) u8 smem[];
        const u32 q_tile = smem_address(smem), ring = q_tile + Q_BYTES;
        const Place p(a, rows, blocks, results.parts, ROWS, KEYS);
        if (threadIdx.x == 0) check_keys(a, p.b, faults, fault_op);

        const T *k_head = k + place(k_strides, p.b, 0, p.h), *v_head = v + place(v_strides, p.b, 0, p.h);
        const auto stage = [&](u32 slot, u32 key, const T *head, u64 stride, bool padded) {
            if (key < p.end) {
                const u32 tile = ring + slot * TILE_BYTES;
                if (whole && !padded) {
                    stage_whole_rows<T, D, KEYS, THREADS>(tile, head + key * stride, stride, a.head_dim, p.end - key);
                } else {
                    stage_rows<T, D, KEYS, THREADS>(tile, head, a.head_dim, whole, [&](u32 row) {
                        const u32 j = key + row;
                        return j < p.end && (!padded || key_there(a, p.b, j)) ? head + j * stride : nullptr;
                    });
                }
            }
            copy_commit();
        };
        const auto stage_k = [&](u32 slot, u32 key) { stage(slot, key, k_head, k_strides.row, false); };
        // What is hidden may be anything, and 0 · NaN is not 0.
        const auto stage_v = [&](u32 slot, u32 key) { stage(slot, key, v_head, v_strides.row, a.padding); };
        stage_rows<T, D, ROWS, THREADS>(q_tile, q, a.head_dim, whole, [&](u32 row) {
            const u32 r = p.first + row;
            return r < rows ? q + place(q_strides, p.b, r / a.group, p.head_q(a, r)) : nullptr;
        });
        stage_k(0, p.begin);
        stage_v(1, p.begin);

        const u32 lane = threadIdx.x % 32, t2 = lane % 4 * 2;
        const u32 warp_first = p.first + threadIdx.x / 32 * WARP_ROWS;
        // Rows of this thread: fragment x of a tile has rows lane / 4 and 8 below.
        const auto row_of = [&](int t, int half) { return warp_first + 16 * t + 8 * half + lane / 4; };
        const Span plain = seen_by_all(a, min(warp_first, rows - 1) / a.group,
                                       min(warp_first + WARP_ROWS - 1, rows - 1) / a.group, p.keys);

        Queries queries(q_tile);
        const FragmentLane<CHUNKS, false> k_lane;
        const FragmentLane<CHUNKS, true> v_lane;
        float o[TILES][D / 8][4] = {};
        float m[TILES][2], l[TILES][2] = {};
#pragma unroll
        for (int t = 0; t < TILES; t++) m[t][0] = m[t][1] = nothing();

        u32 slot = 0;
        for (u32 key = p.begin; key < p.end; key += KEYS) {
            const u32 v_slot = slot == 2 ? 0 : slot + 1, next_slot = slot == 0 ? 2 : slot - 1;
            copy_wait<1>();
            __syncthreads();
            if (key == p.begin) queries.keep();
            stage_k(next_slot, key + KEYS);

            float s[TILES][KEYS / 8][4] = {};
            const u32 k_tile = ring + slot * TILE_BYTES;
#pragma unroll
            for (int step = 0; step < D / 16; step++) {
                u32 x[TILES][4];
                queries.get(x, step);
#pragma unroll
                for (int n = 0; n < KEYS / 16; n++) {
                    u32 y[4];
                    load_matrix_4(y, k_lane.at(k_tile, 16 * n, 16 * step));
                    mma_pair<T>(s, x, y, 2 * n);
                }
            }

            // From here on a score is s · factor.
            float factor = a.score_scale;
            if (!plain.holds(key, key + KEYS) || factor < 0) {
                factor = 1;
#pragma unroll
                for (int t = 0; t < TILES; t++) {
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        const u32 row = min(row_of(t, half), rows - 1);
                        const Query query = query_of(a, p.b, p.head_q(a, row), row / a.group, p.keys);
                        score<KEYS / 4>(
                            a, p.b, query, [&](int x) -> float & { return s[t][x / 2][2 * half + x % 2]; },
                            [&](int x) { return key + 8 * (x / 2) + t2 + x % 2; });
                    }
                }
            }
#pragma unroll
            for (int t = 0; t < TILES; t++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float top = fmaxf(s[t][0][2 * half], s[t][0][2 * half + 1]);
#pragma unroll
                    for (int n = 1; n < KEYS / 8; n++) top = fmaxf(top, fmaxf(s[t][n][2 * half], s[t][n][2 * half + 1]));
                    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
                    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
                    top = fmaxf(m[t][half], top * factor);
                    // A row that has seen nothing: any finite base gives weights of 2^-inf = 0.
                    const float base = top == nothing() ? 0.0f : top;
                    const float fade = exp2_fast(m[t][half] - base);
                    m[t][half] = top;
                    float sum = 0;
#pragma unroll
                    for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                        for (int e = 2 * half; e < 2 * half + 2; e++) {
                            s[t][n][e] = exp2_fast(fmaf(s[t][n][e], factor, -base));
                            sum += s[t][n][e];
                        }
                    }
                    l[t][half] = fmaf(l[t][half], fade, sum);
#pragma unroll
                    for (int n = 0; n < D / 8; n++) {
                        o[t][n][2 * half] *= fade;
                        o[t][n][2 * half + 1] *= fade;
                    }
                }
            }

            copy_wait<1>();
            __syncthreads();
            stage_v(slot, key + KEYS);
            const u32 v_tile = ring + v_slot * TILE_BYTES;
            for (u32 term = FINE ? TERMS<T> : 1;;) {
#pragma unroll
                for (int step = 0; step < KEYS / 16; step++) {
                    u32 x[TILES][4];
                    as_operands<T>(x, s, 2 * step);
#pragma unroll
                    for (int n = 0; n < D / 16; n++) {
                        u32 y[4];
                        load_matrix_4_transposed(y, v_lane.at(v_tile, 16 * step, 16 * n));
                        mma_pair<T>(o, x, y, 2 * n);
                    }
                }
                if (--term == 0) break;
#pragma unroll
                for (int t = 0; t < TILES; t++) {
#pragma unroll
                    for (int i = 0; i < KEYS / 8 * 4; i++) s[t][i / 4][i % 4] -= value(element<T>(s[t][i / 4][i % 4]));
                }
            }
            slot = next_slot;
        }
        copy_wait<0>();
        __syncthreads();

        // A warp's rows go out 16 at a time through shared memory.
        float *staged = reinterpret_cast<float *>(smem) + threadIdx.x / 32 * 16 * PITCH;
#pragma unroll
        for (int t = 0; t < TILES; t++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float sum = l[t][half];
                sum += __shfl_xor_sync(0xffffffffu, sum, 1);
                sum += __shfl_xor_sync(0xffffffffu, sum, 2);
                if (t2 == 0 && row_of(t, half) < rows) results.write_ends(a, p, rows, row_of(t, half), m[t][half], sum);
                const float scale = results.scale(sum);
                float *to = staged + (8 * half + lane / 4) * PITCH + t2;
#pragma unroll
                for (int n = 0; n < D / 8; n++)
                    store_vec<float, 2>(to + 8 * n, {{o[t][n][2 * half] * scale, o[t][n][2 * half + 1] * scale}});
            }
            __syncwarp();
#pragma unroll 1
            for (u32 x = lane; x < 16 * CHUNKS; x += 32) {
                const u32 row = warp_first + 16 * t + x / CHUNKS, column = x % CHUNKS * 8;
                if (row >= rows || column >= a.head_dim) continue;
                float eight[8];
                load_values(eight, staged + x / CHUNKS * PITCH + column);
                results.write(a, p, rows, row, column, eight);
            }
            __syncwarp();
        }
    }
};

#define FLASH(T, D, NAME, FINE)                                                                                             \
    KERNEL_OF(128, 2)                                                                                                       \
    attention_##T##_##NAME##__sm80(const T *q, const T *k, const T *v, Attend attend, Strides q_strides, Strides k_strides, \
                                   Strides v_strides, Results results, u32 rows, u32 blocks, u32 whole, Faults *faults,     \
                                   u32 fault_op) {                                                                          \
        Flash<T, D, FINE>::run(q, k, v, attend, q_strides, k_strides, v_strides, results, rows, blocks, whole, faults,      \
                               fault_op);                                                                                   \
    }
