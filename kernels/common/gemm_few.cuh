// Products with few rows of lhs; the entry points are in gemm_few.cu and gemm_few_quant.cu.
#pragma once
#include "common/gemm.cuh"
#include "common/quant.cuh"
#include "common/reduce.cuh"

// Columns of a warp, with a gate half of them and the same of the other matrix; warps of a block.
constexpr u32 COLUMNS = 4, WARPS = 8;

// Eight values from k on; zeros from `end` on.
template <class T>
DEVICE void octet_values(float (&x)[8], const T *row, u32 k, u32 end, bool vectors) {
    if (vectors) return load_values<T, 8>(x, row + k);
#pragma unroll
    for (u32 j = 0; j < 8; j++) x[j] = k + j < end ? value(row[k + j]) : 0.0f;
}
DEVICE void octet_any(float (&x)[8], const void *row, u32 k, u32 end, u32 dtype, bool vectors) {
    switch (dtype) {
        case F32: return octet_values(x, static_cast<const float *>(row), k, end, vectors);
        case F16: return octet_values(x, static_cast<const f16 *>(row), k, end, vectors);
        default: return octet_values(x, static_cast<const bf16 *>(row), k, end, vectors);
    }
}

// A rhs (strides count BYTES): a row is read in units, a unit as loaded is held in registers, and its octets give eight numbers q, so that the
// values are factor * q + offset.
//
// Plain elements, 32 bytes of a row in a unit. Octets of a unit are 256 k apart: neighbouring lanes read neighbouring vectors.
template <class T>
struct PlainRhs {
    static constexpr u32 OCTETS = 4 / sizeof(T), WARP_K = 256 * OCTETS, WORDS = 2 * sizeof(T), PER_WORD = 4 / sizeof(T);
    static constexpr u32 BYTES = sizeof(T);
    static constexpr bool HAS_FACTOR = false, HAS_OFFSET = false;
    struct Unit {
        u32 words[OCTETS][WORDS];
    };
    DEVICE static u32 first(u32 u, u32 octet) { return u / 32 * WARP_K + octet * 256 + u % 32 * 8; }
    DEVICE static void load(Unit (&units)[COLUMNS], const char *const (&rows)[COLUMNS], u32 u, u32 k, bool vectors) {
#pragma unroll
        for (u32 o = 0; o < OCTETS; o++) {
            const u32 at = first(u, o);
            if (at >= k) {
                for (Unit &x : units)
                    for (u32 &word : x.words[o]) word = 0;
            } else if (vectors) {
#pragma unroll
                for (u32 c = 0; c < COLUMNS; c++)
#pragma unroll
                    for (u32 i = 0; i < WORDS; i += 4)
                        reinterpret_cast<Vec<u32, 4> &>(units[c].words[o][i]) =
                            load_vec<u32, 4>(reinterpret_cast<const u32 *>(rows[c] + at * BYTES) + i);
            } else {
#pragma unroll
                for (u32 c = 0; c < COLUMNS; c++) {
                    const T *from = reinterpret_cast<const T *>(rows[c]) + at;
                    for (u32 &word : units[c].words[o]) word = 0;
#pragma unroll
                    for (u32 j = 0; j < 8; j++)
                        if (at + j < k) units[c].words[o][j / PER_WORD] |= bits(from[j]) << j % PER_WORD * 16;
                }
            }
        }
    }
    DEVICE static u32 bits(float x) { return __float_as_uint(x); }
    DEVICE static u32 bits(f16 x) { return x.bits; }
    DEVICE static u32 bits(bf16 x) { return x.bits; }
    DEVICE static float of_bits(u32 x, float) { return __uint_as_float(x); }
    DEVICE static float of_bits(u32 x, f16) { return value(f16{(u16)x}); }
    DEVICE static float of_bits(u32 x, bf16) { return value(bf16{(u16)x}); }
    DEVICE static void octet(float (&q)[8], const Unit &x, u32 octet) {
#pragma unroll
        for (u32 j = 0; j < 8; j++) q[j] = of_bits(x.words[octet][j / PER_WORD] >> j % PER_WORD * 16, T{});
    }
    DEVICE static float factor(const Unit &, u32) { return 1.0f; }
    DEVICE static float offset(const Unit &, u32) { return 0.0f; }
};

template <u32 Q>
struct QuantRhs {
    static constexpr u32 OCTETS = 2, WARP_K = 512, BYTES = 1;
    static constexpr bool HAS_FACTOR = true, HAS_OFFSET = Quant<Q>::HAS_OFFSET;
    using Unit = QuantUnit;
    DEVICE static u32 first(u32 u, u32 octet) { return first_of_unit<Quant<Q>::GAP>(u) + octet * Quant<Q>::GAP; }
    DEVICE static void load(Unit (&units)[COLUMNS], const char *const (&rows)[COLUMNS], u32 u, u32 k, bool) {
        // Of units beyond the end no byte exists, and none is used.
        if (first(u, 0) >= k) return;
#pragma unroll
        for (u32 c = 0; c < COLUMNS; c++) units[c] = Quant<Q>::load(reinterpret_cast<const u8 *>(rows[c]), u, k);
    }
    DEVICE static void octet(float (&q)[8], const Unit &x, u32 octet) { quant_octet<Q>(q, x, octet); }
    DEVICE static float factor(const Unit &x, u32 octet) { return x.factor[octet]; }
    DEVICE static float offset(const Unit &x, u32 octet) { return x.offset[octet]; }
};

// ROWS: the most rows of lhs at once.
template <class R, u32 ROWS>
DEVICE void gemm_few(const Matrix &lhs, const Matrix &rhs, const Reads &reads, const Sizes &s, u32 k_warps, Epilogue e) {
    __shared__ __align__(16) float parts[WARPS][ROWS][COLUMNS];
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 wide = e.gated ? COLUMNS / 2 : COLUMNS, groups = WARPS / k_warps;
    // Blocks along n, then along m, then of a batch.
    const u32 block_n = blockIdx.x % s.tiles_n, rest = blockIdx.x / s.tiles_n;
    const u32 first_row = rest % s.tiles_m * ROWS, batch = rest / s.tiles_m, rows = min(ROWS, s.m - first_row);
    const u32 column = (block_n * groups + warp / k_warps) * wide;

    const u64 lhs_bytes = reads.lhs_dtype == F32 ? 4 : 2;
    const char *a = static_cast<const char *>(lhs.at) + (batch * lhs.batch + first_row * lhs.row) * lhs_bytes;
    const char *b[COLUMNS];
#pragma unroll
    for (u32 c = 0; c < COLUMNS; c++) {
        const u32 own = min(column + c % wide, s.n - 1);
        b[c] = static_cast<const char *>(rhs.at) + (batch * rhs.batch + (c < wide ? own : s.n + own) * rhs.row) * R::BYTES;
    }

    float sums[ROWS][COLUMNS] = {};
    const u32 steps = ceil_div(s.k, R::WARP_K);
#pragma unroll 1
    for (u32 step = warp % k_warps; step < steps; step += k_warps) {
        typename R::Unit units[COLUMNS];
        R::load(units, b, step * 32 + lane, s.k, reads.rhs_vectors);
#pragma unroll
        for (u32 o = 0; o < R::OCTETS; o++) {
            const u32 k = R::first(step * 32 + lane, o);
            if (k >= s.k) break;
            float q[COLUMNS][8];
#pragma unroll
            for (u32 c = 0; c < COLUMNS; c++) R::octet(q[c], units[c], o);
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
                if (r >= rows) break;
                float x[8];
                octet_any(x, a + r * lhs.row * lhs_bytes, k, s.k, reads.lhs_dtype, reads.lhs_vectors);
                float total = 0.0f;
                if (R::HAS_OFFSET) total = ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
#pragma unroll
                for (u32 c = 0; c < COLUMNS; c++) {
                    float part = R::HAS_FACTOR ? 0.0f : sums[r][c];
#pragma unroll
                    for (u32 j = 0; j < 8; j++) part = fmaf(x[j], q[c][j], part);
                    if (R::HAS_FACTOR) part = fmaf(part, R::factor(units[c], o), sums[r][c]);
                    if (R::HAS_OFFSET) part = fmaf(total, R::offset(units[c], o), part);
                    sums[r][c] = part;
                }
            }
        }
    }

#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
        if (r >= rows) break;
#pragma unroll
        for (u32 c = 0; c < COLUMNS; c++) sums[r][c] = warp_reduce(sums[r][c], Add{});
        if (lane == 0) store_values<float, COLUMNS>(parts[warp][r], sums[r]);
    }
    __syncthreads();
    // One thread for each row of each group of columns.
    const u32 group = threadIdx.x / ROWS, r = threadIdx.x % ROWS;
    const u32 first = (block_n * groups + group) * wide;
    if (group >= groups || r >= rows || first >= s.n) return;
    float x[COLUMNS] = {}, ups[COLUMNS] = {};
    for (u32 part = 0; part < k_warps; part++)
#pragma unroll
        for (u32 c = 0; c < COLUMNS; c++) x[c] += parts[group * k_warps + part][r][c];
    if (e.gated) {
        ups[0] = x[2];
        ups[1] = x[3];
        e.vectors = false;
    }
    finish_4(e, (u64)batch * s.m + first_row + r, first, min(wide, s.n - first), x, ups);
}

#define GEMM_FEW(name, ROWS, ...)                                                                     \
    KERNEL_OF(32 * WARPS, ROWS == 1 ? 2 : 1)                                                          \
    name(Matrix lhs, Matrix rhs, Reads reads, Sizes s, u32 k_warps, Epilogue e) {                     \
        gemm_few<__VA_ARGS__, ROWS>(lhs, rhs, reads, s, k_warps, e);                                  \
    }
