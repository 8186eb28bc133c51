// Gradients of attention: what they need of each query, and f32 arithmetic for all dtypes and head dims. With 16-bit operands
// whose rows are whole, the kernels of common/flash_bwd.cuh take the second part's place.
//
// Operands: q [batch, len_q, heads_q, head_dim], k and v [batch, len_k, heads_kv, head_dim] of `dtype`, out of `out_dtype` and
// dout f32, shaped as q, with contiguous rows at any distance; lse and dlse f32 [batch, heads_q, len_q]; the masks of
// common/attend.cuh. Results: f32, contiguous. In the workspace, f32 [batch, heads_q, len_q]: the log-sum-exp in base 2 and
// delta = dout · out - dlse.
//
// Algorithm (FlashAttention-2, arXiv 2307.08691, algorithm 2, in base 2 and without atomics): P = 2^(S - lse), with the
// scores S of Q · Kᵀ, and dS = P ∘ (dO · Vᵀ - delta). A block of `queries` owns 64 queries of a head and adds up dQ = dS · K over
// the tiles of 64 keys that they see; one of `keys` owns keys and adds up dV = Pᵀ · dO and dK = dSᵀ · Q over the heads of the group
// and the queries that see them; one of `bias` owns a tile of both and adds up dS over the sequences and heads that
// share the bias. Products are computed again rather than stored, and every sum has one order. Head dims beyond 128 take
// several blocks, each for 128 columns of the sums.
//
// Budget: 52 KiB of shared memory; up to 64 registers of sums, 32 of S and dP. Bound: fma; three loads of 16 bytes from shared
// memory for 32 of them.
#include "common/attend.cuh"
#include "common/reduce.cuh"

// A warp for each query of a head. `rounded` [batch, heads_q, len_q, head_dim] gets dout in `dtype` unless it is null.
KERNEL(256)
attention_bwd_delta__sm80(const void *out, const float *dout, const float *lse, const float *dlse, float *lse_out,
                          float *delta_out, void *rounded, Attend a, Strides out_strides, Strides dout_strides, u32 rows,
                          u32 out_dtype, u32 dtype, Faults *faults, u32 fault_op) {
    const u32 row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    // In the order in which rows lie.
    const u32 head = row % a.heads_q, i = row / a.heads_q % a.len_q, b = row / a.heads_q / a.len_q;
    const u64 out_at = place(out_strides, b, i, head), dout_at = place(dout_strides, b, i, head);
    const u64 n = ((u64)b * a.heads_q + head) * a.len_q + i;
    float sum = 0;
    for (u32 c = lane; c < a.head_dim; c += 32) {
        const float d = dout[dout_at + c];
        sum = fmaf(d, load_any(out, out_at + c, out_dtype), sum);
        if (rounded) store_any(rounded, n * a.head_dim + c, dtype, d);
    }
    sum = warp_reduce(sum, Add());
    if (lane > 0) return;
    if (dlse) sum -= dlse[n];
    // One that saw nothing gets weights of 2^-inf = 0.
    const bool none = lse[n] == nothing();
    lse_out[n] = none ? infinity() : lse[n] * 1.44269504f;
    delta_out[n] = none ? 0.0f : sum;
    if (i == 0 && head == 0) check_keys(a, b, faults, fault_op);
}

constexpr u32 ROWS = 64;
constexpr u32 DEPTH = 16;
constexpr u32 COLUMNS = 128;
constexpr u32 THREADS = 256;

struct Operands {
    const void *q, *k, *v;
    const float *dout, *lse, *delta;
    Strides q_strides, k_strides, v_strides, dout_strides;
    u32 dtype;
    // Blocks of the own side (of `bias` also of the other), and of columns.
    u32 blocks, other_blocks, passes;
};

struct Shared {
    // Of the own side's two operands, then of the other's: DEPTH columns of all rows. Or DEPTH rows of the other's.
    union {
        float columns[4][DEPTH][ROWS + 4];
        float rows[2][DEPTH][COLUMNS + 4];
    };
    // dS and P, a row for each row of the other side.
    float weights[2][ROWS][ROWS + 4];
};

// Four neighbouring floats of shared memory, which begin at a multiple of 16 bytes.
DEVICE void load_four(float (&to)[4], const float *from) { load_values<float, 4>(to, from); }

// A tile of queries and one of keys of a head. Thread (r, c) has rows 4r.. of the own side and rows 4c.. of the other.
template <bool OWN_KEYS>
struct Tile {
    const Operands &x;
    const Attend &a;
    Shared &m;
    u32 b, head, keys, own, other;

    static DEVICE u32 r4() { return threadIdx.x / 16 * 4; }
    static DEVICE u32 c4() { return threadIdx.x % 16 * 4; }

    // Operand 0 of a side is q or k, operand 1 dout or v. What is hidden may be anything, and 0 · NaN is not 0.
    DEVICE float query_at(int operand, u32 i, u32 column) const {
        if (i >= a.len_q || column >= a.head_dim) return 0;
        if (operand == 0) return load_any(x.q, place(x.q_strides, b, i, head) + column, x.dtype);
        return x.dout[place(x.dout_strides, b, i, head) + column];
    }
    DEVICE float key_at(int operand, u32 j, u32 column) const {
        if (j >= keys || column >= a.head_dim || !key_there(a, b, j)) return 0;
        if (operand == 0) return load_any(x.k, place(x.k_strides, b, j, head / a.group) + column, x.dtype);
        return load_any(x.v, place(x.v_strides, b, j, head / a.group) + column, x.dtype);
    }
    DEVICE float own_at(int operand, u32 row, u32 column) const {
        return OWN_KEYS ? key_at(operand, own + row, column) : query_at(operand, own + row, column);
    }
    DEVICE float other_at(int operand, u32 row, u32 column) const {
        return OWN_KEYS ? query_at(operand, other + row, column) : key_at(operand, other + row, column);
    }

    // The products of both operands of the sides, which become P and dS: element [own][other].
    DEVICE void weigh(float (&p)[4][4], float (&ds)[4][4]) const {
#pragma unroll
        for (int i = 0; i < 16; i++) p[i / 4][i % 4] = ds[i / 4][i % 4] = 0;
        for (u32 column = 0; column < a.head_dim; column += DEPTH) {
            __syncthreads();
            const u32 row = threadIdx.x / 4, first = threadIdx.x % 4 * 4;
#pragma unroll
            for (u32 e = first; e < first + 4; e++) {
#pragma unroll
                for (int operand = 0; operand < 2; operand++) {
                    m.columns[operand][e][row] = own_at(operand, row, column + e);
                    m.columns[2 + operand][e][row] = other_at(operand, row, column + e);
                }
            }
            __syncthreads();
#pragma unroll 4
            for (u32 d = 0; d < DEPTH; d++) {
                float u[4], v[4], w[4], z[4];
                load_four(u, &m.columns[0][d][r4()]);
                load_four(v, &m.columns[2][d][c4()]);
                load_four(w, &m.columns[1][d][r4()]);
                load_four(z, &m.columns[3][d][c4()]);
#pragma unroll
                for (int i = 0; i < 16; i++) {
                    p[i / 4][i % 4] = fmaf(u[i / 4], v[i % 4], p[i / 4][i % 4]);
                    ds[i / 4][i % 4] = fmaf(w[i / 4], z[i % 4], ds[i / 4][i % 4]);
                }
            }
        }
#pragma unroll
        for (int y = 0; y < 4; y++) {
            const u32 i = OWN_KEYS ? other + c4() + y : own + r4() + y, inside = min(i, a.len_q - 1);
            const u32 j = OWN_KEYS ? own + r4() : other + c4();
            const Query of = query_of(a, b, head, inside, keys, i < a.len_q);
            const u64 n = ((u64)b * a.heads_q + head) * a.len_q + inside;
            const float lse = x.lse[n], delta = x.delta[n];
            score<4>(
                a, b, of, [&](int z) -> float & { return OWN_KEYS ? p[z][y] : p[y][z]; }, [&](int z) { return j + z; });
#pragma unroll
            for (int z = 0; z < 4; z++) {
                float &weight = OWN_KEYS ? p[z][y] : p[y][z], &slope = OWN_KEYS ? ds[z][y] : ds[y][z];
                weight = exp2_fast(weight - lse);
                slope = weight == 0 ? 0 : weight * (slope - delta);
            }
        }
    }

    // sums += weights · other, of columns from `first` on: with dS and operand 0, then with P and operand 1.
    template <int SUMS>
    DEVICE void accumulate(float (&sums)[SUMS][4][8], const float (&p)[4][4], const float (&ds)[4][4], u32 first) const {
        __syncthreads();
#pragma unroll
        for (int c = 0; c < 4; c++) {
#pragma unroll
            for (int r = 0; r < 4; r++) {
                m.weights[0][c4() + c][r4() + r] = ds[r][c];
                if (SUMS > 1) m.weights[1][c4() + c][r4() + r] = p[r][c];
            }
        }
        for (u32 row = 0; row < ROWS; row += DEPTH) {
            __syncthreads();
#pragma unroll
            for (int operand = 0; operand < SUMS; operand++)
                for (u32 i = threadIdx.x; i < DEPTH * COLUMNS; i += THREADS)
                    m.rows[operand][i / COLUMNS][i % COLUMNS] = other_at(operand, row + i / COLUMNS, first + i % COLUMNS);
            __syncthreads();
#pragma unroll 4
            for (u32 d = 0; d < DEPTH; d++) {
#pragma unroll
                for (int operand = 0; operand < SUMS; operand++) {
                    float w[4], lo[4], hi[4];
                    load_four(w, &m.weights[operand][row + d][r4()]);
                    load_four(lo, &m.rows[operand][d][c4()]);
                    load_four(hi, &m.rows[operand][d][COLUMNS / 2 + c4()]);
#pragma unroll
                    for (int i = 0; i < 16; i++) {
                        float(&sum)[8] = sums[operand][i / 4];
                        sum[i % 4] = fmaf(w[i / 4], lo[i % 4], sum[i % 4]);
                        sum[4 + i % 4] = fmaf(w[i / 4], hi[i % 4], sum[4 + i % 4]);
                    }
                }
            }
        }
    }
};

// Rows of [row, head] that begin at `to`, of `rows`.
DEVICE void store_sum(const float (&sum)[4][8], float scale, float *to, u32 first, u32 rows, u32 heads, u32 head_dim,
                      u32 column) {
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const u32 row = first + threadIdx.x / 16 * 4 + r;
        if (row >= rows) break;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const u32 c = column + i / 4 * (COLUMNS / 2) + threadIdx.x % 16 * 4 + i % 4;
            if (c < head_dim) to[(u64)row * heads * head_dim + c] = sum[r][i] * scale;
        }
    }
}

KERNEL(256)
attention_bwd_f32__sm80(Operands x, Attend a, float *dk, float *dv) {
    extern __shared__ __align__(128) u8 smem[];
    // The first blocks of a head first: with a causal mask they take the longest.
    const u32 first = blockIdx.x % x.blocks * ROWS, column = blockIdx.x / x.blocks % x.passes * COLUMNS;
    const u32 h = blockIdx.x / x.blocks / x.passes % a.heads_kv, b = blockIdx.x / x.blocks / x.passes / a.heads_kv;
    const u32 keys = keys_of(a, b), end = min(first + ROWS, keys);
    // The queries that see one of the keys by their places.
    const i32 beside = (i32)a.len_q - (i32)keys;
    const u32 begin = a.causal ? (u32)max((i32)first + beside, 0) : 0;
    u32 stop = first < keys ? a.len_q : 0;
    if (a.window) stop = min(stop, (u32)max((i32)(end + a.window) + beside - 1, 0));

    float sums[2][4][8] = {}, p[4][4], ds[4][4];
    for (u32 head = h * a.group; head < (h + 1) * a.group; head++) {
        for (u32 query = begin; query < stop; query += ROWS) {
            const Tile<true> tile{x, a, *reinterpret_cast<Shared *>(smem), b, head, keys, first, query};
            tile.weigh(p, ds);
            tile.accumulate(sums, p, ds, column);
        }
    }
    const u64 at = ((u64)b * a.len_k * a.heads_kv + h) * a.head_dim;
    store_sum(sums[0], a.softmax_scale, dk + at, first, a.len_k, a.heads_kv, a.head_dim, column);
    store_sum(sums[1], 1.0f, dv + at, first, a.len_k, a.heads_kv, a.head_dim, column);
}

KERNEL(256)
attention_bwd_queries_f32__sm80(Operands x, Attend a, float *dq) {
    extern __shared__ __align__(128) u8 smem[];
    // The last blocks of a head first: with a causal mask they take the longest.
    const u32 first = (x.blocks - 1 - blockIdx.x % x.blocks) * ROWS, column = blockIdx.x / x.blocks % x.passes * COLUMNS;
    const u32 head = blockIdx.x / x.blocks / x.passes % a.heads_q, b = blockIdx.x / x.blocks / x.passes / a.heads_q;
    const u32 keys = keys_of(a, b), last = min(first + ROWS, a.len_q) - 1, end = seen_end(a, last, keys);
    float sums[1][4][8] = {}, p[4][4], ds[4][4];
    for (u32 key = seen_begin(a, first, keys); key < end; key += ROWS) {
        const Tile<false> tile{x, a, *reinterpret_cast<Shared *>(smem), b, head, keys, first, key};
        tile.weigh(p, ds);
        tile.accumulate(sums, p, ds, column);
    }
    const u64 at = ((u64)b * a.len_q * a.heads_q + head) * a.head_dim;
    store_sum(sums[0], a.softmax_scale, dq + at, first, a.len_q, a.heads_q, a.head_dim, column);
}

KERNEL(256)
attention_bwd_bias__sm80(Operands x, Attend a, float *dbias, u32 batch, u32 bias_batch, u32 bias_heads) {
    extern __shared__ __align__(128) u8 smem[];
    const u32 key = blockIdx.x % x.other_blocks * ROWS, first = blockIdx.x / x.other_blocks % x.blocks * ROWS;
    const u32 number = blockIdx.x / x.other_blocks / x.blocks, bias_b = number / bias_heads, bias_head = number % bias_heads;
    const u32 last = min(first + ROWS, a.len_q) - 1;
    // One sequence and head, or all of them where they share the bias.
    const u32 batch_end = bias_batch > 1 ? bias_b + 1 : batch, heads_end = bias_heads > 1 ? bias_head + 1 : a.heads_q;
    float sum[4][4] = {}, p[4][4], ds[4][4];
    for (u32 b = bias_b; b < batch_end; b++) {
        const u32 keys = keys_of(a, b);
        if (seen_begin(a, first, keys) >= key + ROWS || seen_end(a, last, keys) <= key) continue;
        for (u32 head = bias_head; head < heads_end; head++) {
            const Tile<false> tile{x, a, *reinterpret_cast<Shared *>(smem), b, head, keys, first, key};
            tile.weigh(p, ds);
#pragma unroll
            for (int i = 0; i < 16; i++) sum[i / 4][i % 4] += ds[i / 4][i % 4];
        }
    }
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const u32 row = first + threadIdx.x / 16 * 4 + i / 4, j = key + threadIdx.x % 16 * 4 + i % 4;
        if (row < a.len_q && j < a.len_k) dbias[((u64)number * a.len_q + row) * a.len_k + j] = sum[i / 4][i % 4];
    }
}
