// Products of 16-bit matrices in tiles on the tensor cores; the entry points are in gemm_matrix.cu and gemm_matrix_any.cu.
#pragma once
#include "common/gemm.cuh"
#include "common/matrix.cuh"

// How the rows of an operand are read: k contiguous in vectors of 16 bytes or in pairs of 4 bytes, element by element with
// any strides, or, where neighbouring rows are neighbours, in vectors of one k of eight rows, which stay so in shared
// memory: [k][rows] instead of [rows][k]. A vector or pair exists or does not: k (the rows) are a multiple of it.
enum : u32 { VECTORS, PAIRS, ELEMENTS, COLUMNS_OF_ROWS };

// k of a stage: rows of 128 bytes, eight chunks of 16.
constexpr u32 BLOCK_K = 64;

template <u32 BM_, u32 BN_, u32 WARPS_M_, u32 WARPS_N_, u32 STAGES_>
struct Tiling {
    static constexpr u32 BM = BM_, BN = BN_, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, STAGES = STAGES_;
    static constexpr u32 THREADS = 32 * WARPS_M * WARPS_N;
    static constexpr u32 STAGE_BYTES = (BM + BN) * BLOCK_K * 2;
    // m16 and n8 pieces of a warp.
    static constexpr u32 MI = BM / WARPS_M / 16, NI = BN / WARPS_N / 8;
    static_assert(NI % 2 == 0 && BM * 8 % THREADS == 0 && BN * 8 % THREADS == 0, "");
    static_assert(BM * SUMS_STRIDE<BN> * 4 <= STAGES * STAGE_BYTES, "sums take the place of the stages");
};

// One thread's part of bringing ROWS rows of an operand into the stages: chunk `chunk` of every THREADS / 8th row.
template <class T, u32 ROWS, u32 THREADS>
struct Loader {
    static constexpr u32 STEP = THREADS / 8;
    const T *from;
    u64 stride;
    u32 valid;  // bit i: row i * STEP + own row exists
    u32 to, chunk;

    // `first` is the element of k = 0 of the tile's first row.
    DEVICE Loader(const T *first, u64 stride, u32 exist) : stride(stride) {
        const u32 row = threadIdx.x / 8;
        chunk = threadIdx.x % 8;
        from = first + row * stride + chunk * 8;
        to = swizzled<8>(row, chunk);
        valid = 0;
#pragma unroll
        for (u32 i = 0; i < ROWS / STEP; i++) valid |= (u32)(row + i * STEP < exist) << i;
    }

    // Rows STEP apart keep their place among eight, so that they keep the swizzle.
    static_assert(STEP % 8 == 0, "");
    DEVICE void load(u32 stage, u32 k, u32 end) const {
        const T *p = from + k;
        const bool inside = k + chunk * 8 < end;
#pragma unroll
        for (u32 i = 0; i < ROWS / STEP; i++, p += STEP * stride)
            copy_async_16(stage + to + i * STEP * 128, p, inside && (valid >> i & 1) ? 16 : 0);
    }
};

// Where chunk `chunk` of eight rows lies for one k; ROWS is 64 or more.
template <u32 ROWS>
DEVICE u32 column_place(u32 k, u32 chunk) {
    return k * ROWS * 2 + (chunk ^ k % 8) * 16;
}

// The same of an operand that lies in any way. Threads go along what is contiguous.
template <class T, u32 ROWS, u32 THREADS, class RowOf>
DEVICE void load_any_rows(char *stage, const T *at, const Matrix &x, u32 mode, u32 exist, u32 k, u32 end, RowOf row_of) {
    if (mode == COLUMNS_OF_ROWS) {
#pragma unroll 1
        for (u32 i = threadIdx.x; i < ROWS * 8; i += THREADS) {
            const u32 chunk = i % (ROWS / 8), at_k = i / (ROWS / 8), source = row_of(chunk * 8);
            const T *from = at + source + (k + at_k) * x.step;
            const u32 bytes = source < exist && k + at_k < end ? 16 : 0;
            copy_async_16(smem_address(stage) + column_place<ROWS>(at_k, chunk), from, bytes);
        }
        return;
    }
#pragma unroll 1
    for (u32 i = threadIdx.x; i < ROWS * 8; i += THREADS) {
        const u32 row = x.step == 1 ? i / 8 : i % ROWS, chunk = x.step == 1 ? i % 8 : i / ROWS;
        char *to = stage + swizzled<8>(row, chunk);
        const u32 source = row_of(row), first = k + chunk * 8;
        const bool is = source < exist;
        const T *from = at + source * x.row + first * x.step;
        if (mode == VECTORS) {
            copy_async_16(smem_address(to), from, is && first < end ? 16 : 0);
        } else if (mode == PAIRS) {
#pragma unroll
            for (u32 j = 0; j < 8; j += 2) copy_async_4(smem_address(to) + 2 * j, from + j, is && first + j < end ? 4 : 0);
        } else {
            Vec<T, 8> v = {};
#pragma unroll
            for (u32 j = 0; j < 8; j++)
                if (is && first + j < end) v.at[j] = from[j * x.step];
            store_vec<T, 8>(reinterpret_cast<T *>(to), v);
        }
    }
}

// `ANY`: operands are read as their modes say. Otherwise both are VECTORS.
template <class T, class C, bool ANY>
DEVICE void gemm_matrix(const Matrix &lhs, const Matrix &rhs, const Sizes &s, const Epilogue &e, float *partial,
                        u32 lhs_mode, u32 rhs_mode) {
    extern __shared__ __align__(128) char smem[];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 warp_m = warp % C::WARPS_M * (C::MI * 16), warp_n = warp / C::WARPS_M * (C::NI * 8);
    const Tile tile = tile_of(blockIdx.x, s);
    const u32 begin = tile.split * s.split_k, end = min(s.k, begin + s.split_k);
    const u32 steps = end > begin ? ceil_div(end - begin, BLOCK_K) : 0;

    const T *a_at = static_cast<const T *>(lhs.at) + tile.batch * lhs.batch;
    const T *b_at = static_cast<const T *>(rhs.at) + tile.batch * rhs.batch;
    const u32 first_m = tile.m * C::BM, rhs_rows = e.gated ? 2 * s.n : s.n;
    constexpr u32 B_STAGE = C::BM * BLOCK_K * 2;

    // With a gate, each half of the tile's columns is a run of rows of its own.
    constexpr u32 HALF = C::BN / 2;
    const u32 own_half = e.gated ? HALF : C::BN, first_n = tile.n * own_half;
    const u32 exist_n = s.n > first_n ? s.n - first_n : 0;
    const Loader<T, C::BM, C::THREADS> a_loader(a_at + first_m * lhs.row, lhs.row, s.m - first_m);
    const Loader<T, HALF, C::THREADS> b_left(b_at + first_n * rhs.row, rhs.row, exist_n);
    const Loader<T, HALF, C::THREADS> b_right(b_at + (first_n + (e.gated ? s.n : HALF)) * rhs.row, rhs.row,
                                              e.gated ? exist_n : exist_n - min(exist_n, HALF));

    auto load_stage = [&](u32 step) {
        const u32 at = step % C::STAGES * C::STAGE_BYTES, k = begin + step * BLOCK_K;
        if constexpr (ANY) {
            load_any_rows<T, C::BM, C::THREADS>(smem + at, a_at, lhs, lhs_mode, s.m, k, end,
                                                [&](u32 row) { return first_m + row; });
            load_any_rows<T, C::BN, C::THREADS>(smem + at + B_STAGE, b_at, rhs, rhs_mode, rhs_rows, k, end,
                                                [&](u32 row) { return rhs_row<C::BN>(tile.n, row, s.n, e.gated); });
        } else {
            const u32 stage = smem_address(smem) + at;
            a_loader.load(stage, k, end);
            b_left.load(stage + B_STAGE, k, end);
            b_right.load(stage + B_STAGE + HALF * 128, k, end);
        }
    };

    float c[C::MI][C::NI][4] = {};
    u32 a[2][C::MI][4], b[2][C::NI / 2][4];
    // The place that this lane gives to ldmatrix: row and half of 16 k. A chunk's place is its number exclusive-or the row's
    // last three bits, which are the lane's.
    const u32 a_place = (warp_m + lane % 16) * 128 + ((lane / 16) ^ (lane % 8)) * 16;
    const u32 b_place = B_STAGE + (warp_n + lane / 16 * 8 + lane % 8) * 128 + ((lane / 8 % 2) ^ (lane % 8)) * 16;
    auto load_fragments = [&](u32 buffer, u32 step, u32 ks) {
        const u32 stage = smem_address(smem) + step % C::STAGES * C::STAGE_BYTES;
        if (ANY && C::BM >= 64 && lhs_mode == COLUMNS_OF_ROWS) {
            const u32 k = ks * 16 + lane / 16 * 8 + lane % 8, chunk = warp_m / 8 + lane / 8 % 2;
#pragma unroll
            for (u32 i = 0; i < C::MI; i++)
                load_matrix_4_transposed(a[buffer][i], stage + column_place<C::BM>(k, chunk + 2 * i));
        } else {
            const u32 from = stage + (a_place ^ ks * 32);
#pragma unroll
            for (u32 i = 0; i < C::MI; i++) load_matrix_4(a[buffer][i], from + i * 16 * 128);
        }
        if (ANY && rhs_mode == COLUMNS_OF_ROWS) {
            const u32 k = ks * 16 + lane / 8 % 2 * 8 + lane % 8, chunk = warp_n / 8 + lane / 16;
#pragma unroll
            for (u32 j = 0; j < C::NI / 2; j++)
                load_matrix_4_transposed(b[buffer][j], stage + B_STAGE + column_place<C::BN>(k, chunk + 2 * j));
        } else {
            const u32 from = stage + (b_place ^ ks * 32);
#pragma unroll
            for (u32 j = 0; j < C::NI / 2; j++) load_matrix_4(b[buffer][j], from + j * 16 * 128);
        }
    };

#pragma unroll
    for (u32 step = 0; step < C::STAGES - 1; step++) {
        if (step < steps) load_stage(step);
        copy_commit();
    }
    copy_wait<C::STAGES - 2>();
    __syncthreads();
    if (steps > 0) load_fragments(0, 0, 0);
#pragma unroll 1
    for (u32 step = 0; step < steps; step++) {
#pragma unroll
        for (u32 ks = 0; ks < BLOCK_K / 16; ks++) {
            if (ks + 1 < BLOCK_K / 16) {
                load_fragments((ks + 1) % 2, step, ks + 1);
            } else if (step + 1 < steps) {
                // The last fragments of this stage are in registers: behind the barrier its place is free.
                copy_wait<C::STAGES - 2>();
                __syncthreads();
                load_fragments(0, step + 1, 0);
            }
            if (ks == 0) {
                if (step + C::STAGES - 1 < steps) load_stage(step + C::STAGES - 1);
                copy_commit();
            }
#pragma unroll
            for (u32 i = 0; i < C::MI; i++)
#pragma unroll
                for (u32 j = 0; j < C::NI; j++)
                    mma<T>(c[i][j], a[ks % 2][i], b[ks % 2][j / 2][j % 2 * 2], b[ks % 2][j / 2][j % 2 * 2 + 1]);
        }
    }

    copy_wait<0>();
    __syncthreads();
    float *sums = reinterpret_cast<float *>(smem);
    const u32 place = (warp_m + lane / 4) * SUMS_STRIDE<C::BN> + warp_n + lane % 4 * 2;
#pragma unroll
    for (u32 i = 0; i < C::MI; i++)
#pragma unroll
        for (u32 j = 0; j < C::NI; j++)
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                const Vec<float, 2> pair = {c[i][j][2 * half], c[i][j][2 * half + 1]};
                store_vec<float, 2>(sums + place + (16 * i + 8 * half) * SUMS_STRIDE<C::BN> + 8 * j, pair);
            }
    __syncthreads();
    finish_rows<C::BM, C::BN, C::THREADS>(sums, first_m, tile, s, e, partial);
}

// m128n256: 8 warps of 64 x 64; m128n128: 4 of 64 x 64; m64n64: 4 of 32 x 32; m16n64: 4 of 16 x 16.
using m128n256 = Tiling<128, 256, 2, 4, 3>;
using m128n128 = Tiling<128, 128, 2, 2, 3>;
using m64n64 = Tiling<64, 64, 2, 2, 3>;
using m16n64 = Tiling<16, 64, 1, 4, 4>;

#define GEMM_MATRIX(name, T, tiling, ANY, blocks)                                                         \
    KERNEL_OF(tiling::THREADS, blocks)                                                                    \
    name(Matrix lhs, Matrix rhs, Sizes s, Epilogue e, float *partial, u32 lhs_mode, u32 rhs_mode) {       \
        gemm_matrix<T, tiling, ANY>(lhs, rhs, s, e, partial, lhs_mode, rhs_mode);                         \
    }
