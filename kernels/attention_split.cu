// Attention of a few queries over parts of the keys on tensor cores, and the join of parts.
//
// Operands: as in common/flash.cuh, heads in whole vectors of 16 bytes; results as in common/attend_out.cuh.
//
// Algorithm (Flash-Decoding: FlashAttention-2, arXiv 2307.08691, algorithm 1, over parts of the keys, in base 2): a block
// owns a part of the keys of a head and 16 rows; each of its warps has a state of its own and takes 16 keys at a time, so that
// keys and values are read once, from global memory into registers, without shared memory. That goes as neither product
// minds the order of what it sums over: a lane reads 16 bytes of a key, columns 32 c + 8 t + x, which are the fragments of two
// products when Q is read in the same order; of values it reads columns 64 c + 8 group + x of the four keys that its fragments
// hold, and pairs them by byte permutes. The keys of the next step are asked for before the weights are computed, its
// values after the sums. Weights are as fine as f32 (sums of two or three elements): tensor cores have time for it. At the end
// warps are joined in shared memory, and parts by `attention_join`.
//
// Tunables: four warps, 64 keys of a block at a time.
//
// Budget: for 128 columns 64 registers for O, 32 each for keys and values under way: two blocks on a multiprocessor, with
// up to 64 KiB under way (36 KiB are needed for 4.8 TB/s at 1 us). 34 KiB of shared memory. Bound: memory.
#include "common/attend_out.cuh"
#include "common/reduce.cuh"

template <class T, int D>
struct Split {
    static constexpr int WARPS = 4, THREADS = 32 * WARPS, ROWS = 16, STEP = 16 * WARPS;
    // Beyond 128 columns O leaves no registers for what is under way.
    static constexpr bool AHEAD = D <= 128;
    // Rows of Q lie 16 banks apart, so that eight lanes read 2 rows of 4 vectors from all banks.
    static constexpr int Q_PITCH = D * 2 + 64;
    static constexpr int PITCH = D + 4;

    struct Piece {
        u32 at[4];
    };
    static DEVICE Piece read(const T *from) {
        Piece p;
        asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(p.at[0]), "=r"(p.at[1]), "=r"(p.at[2]), "=r"(p.at[3])
                     : "l"(from));
        return p;
    }

    static DEVICE void run(const T *q, const T *k, const T *v, const Attend &a, const Strides &q_strides,
                           const Strides &k_strides, const Strides &v_strides, const Results &results, u32 rows, u32 blocks,
                           Faults *faults, u32 fault_op) {
        extern __shared__ __align__(16) u8 smem[];
        __shared__ float warp_m[WARPS][ROWS], warp_l[WARPS][ROWS];
        const Place p(a, rows, blocks, results.parts, ROWS, STEP);
        if (threadIdx.x == 0) check_keys(a, p.b, faults, fault_op);

        for (u32 i = threadIdx.x; i < ROWS * D / 8; i += THREADS) {
            const u32 row = p.first + i / (D / 8), column = i % (D / 8) * 8;
            const bool there = row < rows && column < a.head_dim;
            const T *from = q + place(q_strides, p.b, row / a.group, p.head_q(a, row)) + column;
            copy_async_16(smem_address(smem) + i / (D / 8) * Q_PITCH + column * 2, there ? from : q, there ? 16 : 0);
        }
        copy_commit();
        copy_wait<0>();
        __syncthreads();

        const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, t = lane % 4;
        const T *k_head = k + place(k_strides, p.b, 0, p.h), *v_head = v + place(v_strides, p.b, 0, p.h);
        const u8 *q_lane = smem + group * Q_PITCH + 16 * t;

        // Columns 32 c + 8 t on of keys `key` + 8 n + group.
        Piece key_pieces[AHEAD ? D / 32 : 1][2];
        const auto read_keys = [&](Piece (&to)[2], u32 key, int c) {
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const u32 j = key + 8 * n + group;
                const T *from = k_head + j * k_strides.row + 8 * t + 32 * c;
                to[n] = {};
                if (j < p.end && 32 * c + 8 * t < a.head_dim) to[n] = read(from);
            }
        };
        // Columns 64 c + 8 group on of keys `key` + 2 t, 2 t + 1, 2 t + 8, 2 t + 9.
        Piece value_pieces[AHEAD ? D / 64 : 1][4];
        const auto read_values = [&](Piece (&to)[4], u32 key, int c) {
#pragma unroll
            for (int x = 0; x < 4; x++) {
                const u32 j = key + 2 * t + x % 2 + x / 2 * 8;
                const T *from = v_head + j * v_strides.row + 8 * group + 64 * c;
                to[x] = {};
                // What is hidden may be anything, and 0 · NaN is not 0.
                if (j < p.end && 64 * c + 8 * group < a.head_dim && key_there(a, p.b, j)) to[x] = read(from);
            }
        };
        const auto ask_keys = [&](u32 key) {
#pragma unroll
            for (int c = 0; AHEAD && c < D / 32; c++) read_keys(key_pieces[c], key, c);
        };
        const auto ask_values = [&](u32 key) {
#pragma unroll
            for (int c = 0; AHEAD && c < D / 64; c++) read_values(value_pieces[c], key, c);
        };

        Query queries[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const u32 row = p.first + group + 8 * half, inside = min(row, rows - 1);
            queries[half] = query_of(a, p.b, p.head_q(a, inside), inside / a.group, p.keys, row < rows);
        }
        // [64 columns][x]: columns 64 c + 16 t + x and 8 behind, of rows `group` and 8 below.
        float o[D / 64][8][4] = {};
        float m[2] = {nothing(), nothing()}, l[2] = {};

        u32 key = p.begin + 16 * warp;
        ask_keys(key);
        ask_values(key);
        for (; key < p.end; key += STEP) {
            float s[2][4] = {};
#pragma unroll(AHEAD ? D / 32 : 2)
            for (int c = 0; c < D / 32; c++) {
                Piece(&pieces)[2] = key_pieces[AHEAD ? c : 0];
                if (!AHEAD) read_keys(pieces, key, c);
                const Vec<u32, 4> top = load_vec<u32, 4>(reinterpret_cast<const u32 *>(q_lane + 64 * c));
                const Vec<u32, 4> low = load_vec<u32, 4>(reinterpret_cast<const u32 *>(q_lane + 8 * Q_PITCH + 64 * c));
#pragma unroll
                for (int x = 0; x < 4; x += 2) {
                    const u32 rows_of_q[4] = {top.at[x], low.at[x], top.at[x + 1], low.at[x + 1]};
#pragma unroll
                    for (int n = 0; n < 2; n++)
                        mma<T>(s[n], rows_of_q, pieces[n].at[x], pieces[n].at[x + 1]);
                }
            }
            ask_keys(key + STEP);

#pragma unroll
            for (int half = 0; half < 2; half++) {
                score<4>(
                    a, p.b, queries[half], [&](int x) -> float & { return s[x / 2][2 * half + x % 2]; },
                    [&](int x) { return key + 8 * (x / 2) + 2 * t + x % 2; });
                float top = fmaxf(fmaxf(s[0][2 * half], s[0][2 * half + 1]), fmaxf(s[1][2 * half], s[1][2 * half + 1]));
                top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
                top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
                top = fmaxf(top, m[half]);
                // A row that has seen nothing: any finite base gives weights of 2^-inf = 0.
                const float base = top == nothing() ? 0.0f : top;
                const float fade = exp2_fast(m[half] - base);
                m[half] = top;
                float sum = 0;
#pragma unroll
                for (int x = 0; x < 4; x++) {
                    float &weight = s[x / 2][2 * half + x % 2];
                    weight = exp2_fast(weight - base);
                    sum += weight;
                }
                l[half] = fmaf(l[half], fade, sum);
#pragma unroll
                for (int i = 0; i < D / 8; i++) {
                    o[i / 8][i % 8][2 * half] *= fade;
                    o[i / 8][i % 8][2 * half + 1] *= fade;
                }
            }

            u32 weights[TERMS<T>][4];
#pragma unroll
            for (int term = 0; term < TERMS<T>; term++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float *two = &s[i / 2][i % 2 * 2];
                    weights[term][i] = pack<T>(two[0], two[1]);
                    two[0] -= value(element<T>(two[0]));
                    two[1] -= value(element<T>(two[1]));
                }
            }
#pragma unroll
            for (int c = 0; c < D / 64; c++) {
                Piece(&pieces)[4] = value_pieces[AHEAD ? c : 0];
                if (!AHEAD) read_values(pieces, key, c);
#pragma unroll
                for (int x = 0; x < 8; x++) {
                    const u32 pick = x % 2 ? 0x7632 : 0x5410;
                    const u32 b0 = __byte_perm(pieces[0].at[x / 2], pieces[1].at[x / 2], pick);
                    const u32 b1 = __byte_perm(pieces[2].at[x / 2], pieces[3].at[x / 2], pick);
#pragma unroll
                    for (int term = 0; term < TERMS<T>; term++) mma<T>(o[c][x], weights[term], b0, b1);
                }
            }
            ask_values(key + STEP);
        }

        // The join of warps; Q is read no more.
        const auto row_of = [&](int half) { return group + 8 * half; };
#pragma unroll
        for (int half = 0; half < 2; half++) {
            l[half] += __shfl_xor_sync(0xffffffffu, l[half], 1);
            l[half] += __shfl_xor_sync(0xffffffffu, l[half], 2);
            if (t == 0) {
                warp_m[warp][row_of(half)] = m[half];
                warp_l[warp][row_of(half)] = l[half];
            }
        }
        __syncthreads();
        float *sums = reinterpret_cast<float *>(smem);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = nothing();
#pragma unroll
            for (int w = 0; w < WARPS; w++) top = fmaxf(top, warp_m[w][row_of(half)]);
            const float fade = top == nothing() ? 0.0f : exp2_fast(m[half] - top);
            float *to = sums + (warp * ROWS + row_of(half)) * PITCH + 16 * t;
#pragma unroll
            for (int i = 0; i < D / 16; i++) {
                // Columns 64 c + 16 t + 8 y + 4 z on.
                const int c = i / 4, y = i / 2 % 2, z = i % 2;
                float four[4];
#pragma unroll
                for (int x = 0; x < 4; x++) four[x] = o[c][4 * z + x][2 * half + y] * fade;
                store_values(to + 64 * c + 8 * y + 4 * z, four);
            }
        }
        __syncthreads();
        for (u32 i = threadIdx.x; i < ROWS * D / 8; i += THREADS) {
            const u32 r = i / (D / 8), row = p.first + r, column = i % (D / 8) * 8;
            if (row >= rows || column >= a.head_dim) continue;
            float top = nothing(), sum = 0, eight[8] = {};
            for (u32 w = 0; w < WARPS; w++) top = fmaxf(top, warp_m[w][r]);
            for (u32 w = 0; w < WARPS; w++) {
                if (warp_l[w][r] != 0) sum = fmaf(warp_l[w][r], exp2_fast(warp_m[w][r] - top), sum);
                float more[8];
                load_values(more, sums + (w * ROWS + r) * PITCH + column);
#pragma unroll
                for (int e = 0; e < 8; e++) eight[e] += more[e];
            }
#pragma unroll
            for (int e = 0; e < 8; e++) eight[e] *= results.scale(sum);
            results.write(a, p, rows, row, column, eight);
            if (column == 0) results.write_ends(a, p, rows, row, top, sum);
        }
    }
};

#define SPLIT(T, D, BLOCKS)                                                                                                 \
    KERNEL_OF(128, BLOCKS)                                                                                                  \
    attention_##T##_split_d##D##__sm80(const T *q, const T *k, const T *v, Attend attend, Strides q_strides,                \
                                       Strides k_strides, Strides v_strides, Results results, u32 rows, u32 blocks,         \
                                       Faults *faults, u32 fault_op) {                                                      \
        Split<T, D>::run(q, k, v, attend, q_strides, k_strides, v_strides, results, rows, blocks, faults, fault_op);        \
    }
SPLIT(bf16, 64, 3)
SPLIT(bf16, 128, 2)
SPLIT(bf16, 256, 2)
SPLIT(f16, 64, 3)
SPLIT(f16, 128, 2)
SPLIT(f16, 256, 2)

// The results of rows from those of their parts: a warp to each row of out.
KERNEL(128) attention_join(Results results, u32 len_q, u32 heads_q, u32 heads_kv, u32 head_dim, u64 rows_out) {
    const u64 at = (u64)blockIdx.x * 4 + threadIdx.x / 32;
    const u32 lane = threadIdx.x % 32, parts = results.parts;
    if (at >= rows_out) return;
    const u32 head_q = at % heads_q, i = at / heads_q % len_q;
    const u64 b = at / heads_q / len_q;
    const u32 group = heads_q / heads_kv, rows = group * len_q;
    // The row in the first part; in the next it follows `rows` behind.
    const u64 first = (b * heads_kv + head_q / group) * parts * rows + i * group + head_q % group;
    const float *ends = results.ends + 2 * first;

    float m = nothing(), l = 0;
    for (u32 p = lane; p < parts; p += 32) m = fmaxf(m, ends[2 * (u64)p * rows]);
    m = warp_reduce(m, Max());
    const float base = m == nothing() ? 0.0f : m;
    for (u32 p = lane; p < parts; p += 32) {
        const Vec<float, 2> end = load_vec<float, 2>(ends + 2 * (u64)p * rows);
        l = fmaf(end.at[1], exp2_fast(end.at[0] - base), l);
    }
    l = warp_reduce(l, Add());
    if (results.lse && lane == 0) results.lse[(b * heads_q + head_q) * len_q + i] = fmaf(m, 0.6931472f, logf(l));
    const float scale = l == 0 ? 0 : 1 / l;
    for (u32 column = lane; column < head_dim; column += 32) {
        float x = 0;
#pragma unroll 4
        for (u32 p = 0; p < parts; p++) {
            const u64 row = first + (u64)p * rows;
            // A part that saw nothing has sums of 0.
            x = fmaf(exp2_fast(results.ends[2 * row] - base), results.sums[row * head_dim + column], x);
        }
        store_any(results.out, at * head_dim + column, results.out_dtype, x * scale);
    }
}
