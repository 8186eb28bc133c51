// Attention of a few queries over parts of the keys in f32.
//
// Operands: as in common/flash.cuh, f32, heads in whole vectors of 16 bytes; results as in common/attend_out.cuh, parts of which
// `attention_join` of attention_split.cu joins.
//
// Algorithm (as attention_split.cu, without tensor cores): a block owns a part of the keys of a head and 4 rows. LANES lanes
// share a key, each with four vectors of its columns: they multiply, add up by shuffles, and weigh the same columns of the
// value. Every such group has a state of its own and takes two keys at a time; groups are joined by shuffles at the end, warps
// in shared memory.
//
// Tunables: D columns, 16 for each of LANES lanes.
//
// Budget: 64 registers for O, 32 each for keys and values under way, which are asked for one step ahead: two blocks on a
// multiprocessor, 64 KiB under way. Bound: memory; for 4 rows 2 fma for each byte.
#include "common/attend_out.cuh"
#include "common/reduce.cuh"

template <int D>
struct Split {
    static constexpr int WARPS = 4, THREADS = 32 * WARPS, ROWS = 4;
    static constexpr int LANES = D / 16, GROUPS = 32 / LANES, STEP = 2 * GROUPS * WARPS;
    // Columns of one vector of all lanes.
    static constexpr int SPAN = 4 * LANES;

    static DEVICE void run(const float *q, const float *k, const float *v, const Attend &a, const Strides &q_strides,
                           const Strides &k_strides, const Strides &v_strides, const Results &results, u32 rows, u32 blocks,
                           Faults *faults, u32 fault_op) {
        __shared__ alignas(16) float q_tile[ROWS][D], sums[WARPS][ROWS][D];
        __shared__ float warp_m[WARPS][ROWS], warp_l[WARPS][ROWS];
        const Place p(a, rows, blocks, results.parts, ROWS, STEP);
        if (threadIdx.x == 0) check_keys(a, p.b, faults, fault_op);
        for (u32 i = threadIdx.x; i < ROWS * D; i += THREADS) {
            const u32 row = p.first + i / D, c = i % D;
            const bool there = row < rows && c < a.head_dim;
            q_tile[i / D][c] = there ? q[place(q_strides, p.b, row / a.group, p.head_q(a, row)) + c] : 0;
        }
        __syncthreads();

        const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = lane % LANES * 4;
        const float *k_head = k + place(k_strides, p.b, 0, p.h) + column, *v_head = v + place(v_strides, p.b, 0, p.h) + column;
        // Of the group's two keys the columns that a lane has, zeros where there are none.
        const auto read = [&](Vec<float, 4> (&to)[2][4], const float *head, u64 stride, u32 key, bool padded) {
#pragma unroll
            for (int x = 0; x < 2; x++) {
                const u32 j = key + x * GROUPS;
                const bool there = j < p.end && (!padded || key_there(a, p.b, j));
#pragma unroll
                for (int y = 0; y < 4; y++) {
                    to[x][y] = {};
                    if (there && column + y * SPAN < a.head_dim) to[x][y] = load_vec<float, 4>(head + j * stride + y * SPAN);
                }
            }
        };
        Query queries[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const u32 row = p.first + r, inside = min(row, rows - 1);
            queries[r] = query_of(a, p.b, p.head_q(a, inside), inside / a.group, p.keys, row < rows);
        }
        float o[ROWS][4][4] = {}, m[ROWS], l[ROWS] = {};
#pragma unroll
        for (int r = 0; r < ROWS; r++) m[r] = nothing();

        // All lanes of a warp go on together, for the shuffles.
        u32 key = p.begin + warp * 2 * GROUPS + lane / LANES;
        Vec<float, 4> keys[2][4], values[2][4];
        read(keys, k_head, k_strides.row, key, false);
        // What is hidden may be anything, and 0 · NaN is not 0.
        read(values, v_head, v_strides.row, key, a.padding);
        for (u32 first = p.begin; first < p.end; first += STEP, key += STEP) {
            float s[ROWS][2] = {};
#pragma unroll
            for (int y = 0; y < 4; y++) {
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    const Vec<float, 4> own = load_vec<float, 4>(&q_tile[r][column + y * SPAN]);
#pragma unroll
                    for (int i = 0; i < 8; i++) s[r][i / 4] = fmaf(own.at[i % 4], keys[i / 4][y].at[i % 4], s[r][i / 4]);
                }
            }
            read(keys, k_head, k_strides.row, key + STEP, false);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
#pragma unroll
                for (int x = 0; x < 2; x++) s[r][x] = group_reduce(s[r][x], LANES, Add());
                score<2>(
                    a, p.b, queries[r], [&](int x) -> float & { return s[r][x]; }, [&](int x) { return key + x * GROUPS; });
                const float top = fmaxf(m[r], fmaxf(s[r][0], s[r][1]));
                // A row that has seen nothing: any finite base gives weights of 2^-inf = 0.
                const float base = top == nothing() ? 0.0f : top;
                const float fade = exp2_fast(m[r] - base), w0 = exp2_fast(s[r][0] - base), w1 = exp2_fast(s[r][1] - base);
                m[r] = top;
                l[r] = fmaf(l[r], fade, w0 + w1);
#pragma unroll
                for (int i = 0; i < 16; i++) {
                    float &x = o[r][i / 4][i % 4];
                    x = fmaf(w1, values[1][i / 4].at[i % 4], fmaf(w0, values[0][i / 4].at[i % 4], x * fade));
                }
            }
            read(values, v_head, v_strides.row, key + STEP, a.padding);
        }

        // The join of the groups of a warp, then of warps.
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float top = m[r];
#pragma unroll
            for (int d = LANES; d < 32; d *= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, d));
            const float fade = top == nothing() ? 0.0f : exp2_fast(m[r] - top);
            const auto all = [&](float x) {
                x *= fade;
#pragma unroll
                for (int d = LANES; d < 32; d *= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
                return x;
            };
            const float sum = all(l[r]);
            if (lane == 0) warp_m[warp][r] = top, warp_l[warp][r] = sum;
#pragma unroll
            for (int y = 0; y < 4; y++) {
                Vec<float, 4> four;
#pragma unroll
                for (int e = 0; e < 4; e++) four.at[e] = all(o[r][y][e]);
                if (lane < LANES) store_vec<float, 4>(&sums[warp][r][column + y * SPAN], four);
            }
        }
        __syncthreads();
        for (u32 i = threadIdx.x; i < ROWS * D / 4; i += THREADS) {
            const u32 r = i / (D / 4), row = p.first + r, c = i % (D / 4) * 4;
            if (row >= rows || c >= a.head_dim) continue;
            float top = nothing(), sum = 0, four[4] = {};
            for (u32 w = 0; w < WARPS; w++) top = fmaxf(top, warp_m[w][r]);
            for (u32 w = 0; w < WARPS; w++) {
                if (warp_l[w][r] == 0) continue;
                const float fade = exp2_fast(warp_m[w][r] - top);
                sum = fmaf(warp_l[w][r], fade, sum);
#pragma unroll
                for (int e = 0; e < 4; e++) four[e] = fmaf(sums[w][r][c + e], fade, four[e]);
            }
#pragma unroll
            for (int e = 0; e < 4; e++) four[e] *= results.scale(sum);
            results.write(a, p, rows, row, c, four);
            if (c == 0) results.write_ends(a, p, rows, row, top, sum);
        }
    }
};

#define SPLIT(D)                                                                                                            \
    KERNEL_OF(128, 2)                                                                                                       \
    attention_f32_split_d##D##__sm80(const float *q, const float *k, const float *v, Attend attend, Strides q_strides,      \
                                     Strides k_strides, Strides v_strides, Results results, u32 rows, u32 blocks,           \
                                     Faults *faults, u32 fault_op) {                                                        \
        Split<D>::run(q, k, v, attend, q_strides, k_strides, v_strides, results, rows, blocks, faults, fault_op);           \
    }
SPLIT(64)
SPLIT(128)
SPLIT(256)
