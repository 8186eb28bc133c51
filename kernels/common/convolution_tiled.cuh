// Convolutions as products of matrices that are gathered while they are multiplied, in float arithmetic.
//
// Algorithm: a block of 256 threads owns BM rows x 128 columns of a group, and the steps of a split. Factors lie in shared
// memory step by step, in two buffers: the next 16 steps are gathered while a thread multiplies BM/16 rows by 8 columns of the
// present ones. A thread gathers always in the same line (its place stays in registers; the places of the steps lie in shared
// memory, computed a tile ahead) or, where steps lie together in memory, at the same step of many lines, the other way round.
// Lines beyond the last are the last one's, computed and left out; steps beyond the last are zeros. Sums leave through shared
// memory, 64 rows at a time, so that rows of the result are written in vectors.
//
// Tunables: BM = 64, 128; ASYNC: both factors are f32 and are copied past the registers, else any of the float dtypes.
//
// Budget: 35 KiB of shared memory and up to 4 of tables, 128 registers (64 sums at BM = 128): 2 blocks a multiprocessor. Bound:
// arithmetic; at BM = 128 4 vectors from shared memory for 64 multiply-adds, 16 elements gathered for 1024.
#pragma once
#include "common/convolution.cuh"
#include "common/matrix.cuh"

constexpr int TILE_COLS = 128, TILE_DEPTH = 16;

// LINES lines of a factor on their way to shared memory.
template <int LINES, bool ASYNC, class Side>
struct Gather {
    static constexpr int PITCH = LINES + 4;
    static constexpr int TABLE = Side::ALONG_DEPTH ? LINES : 2 * TILE_DEPTH;
    // Along the lines: threads of neighbouring steps.
    static constexpr int PARTS = 256 / LINES;

    const Side side;
    Listed *table;
    typename Side::Held held;

    DEVICE Gather(const Side &side, Listed *table, u32 first, u32 lines) : side(side), table(table) {
        const u32 tid = threadIdx.x;
        if constexpr (!Side::ALONG_DEPTH) held = side.hold(min(first + tid % LINES, lines - 1));
        else if (tid < LINES) table[tid] = listed(side.line(min(first + tid, lines - 1)));
    }
    // Writes the places of the steps from k on for `load` with the same `buffer`, behind a barrier.
    DEVICE void prepare(u32 k, u32 end, u32 buffer) const {
        if constexpr (!Side::ALONG_DEPTH) {
            const u32 tid = threadIdx.x;
            if (tid < TILE_DEPTH) table[buffer * TILE_DEPTH + tid] = k + tid < end ? side.list(k + tid) : nowhere();
        }
    }
    DEVICE void put(float *to, i64 at, bool there) const {
        const float *base = static_cast<const float *>(side.base);
        if constexpr (ASYNC) copy_async_4(smem_address(to), base + (there ? at : 0), there ? 4 : 0);
        else *to = there ? load_any(base, at, side.dtype) : 0.0f;
    }
    // At one step of many lines.
    DEVICE void load_steps(float *tile, u32 k, u32 end) const {
        const u32 tid = threadIdx.x;
#pragma unroll
        for (u32 i = 0; i < TILE_DEPTH / 8; i++) {
            const u32 s = tid % 8 + 8 * i;
            const Place step = side.step(min(k + s, end - 1));
#pragma unroll
            for (u32 j = 0; j < LINES / 32; j++) {
                const u32 line = tid / 8 + 32 * j;
                i64 at;
                const bool there = side.find(placed(table[line]), step, at) & (k + s < end);
                put(tile + s * PITCH + line, at, there);
            }
        }
    }
    // In one line.
    template <bool MASKED>
    DEVICE void load_line(float *tile, u32 buffer) const {
        const u32 tid = threadIdx.x;
#pragma unroll
        for (u32 i = 0; i < TILE_DEPTH / PARTS; i++) {
            const u32 s = tid / LINES + PARTS * i;
            i64 at;
            const bool there = side.template find<MASKED>(held, table[buffer * TILE_DEPTH + s], at);
            put(tile + s * PITCH + tid % LINES, at, there);
        }
    }
    DEVICE void load(float *tile, u32 k, u32 end, u32 buffer) const {
        if constexpr (Side::ALONG_DEPTH) load_steps(tile, k, end);
        else if (side.is_masked()) load_line<true>(tile, buffer);
        else load_line<false>(tile, buffer);
    }
};

template <int BM, bool ASYNC, class Lhs, class Rhs, class Out>
DEVICE void tiled(const Product &p, const Share &share, const Lhs &lhs_side, const Rhs &rhs_side, const Out &out) {
    using LhsGather = Gather<BM, ASYNC, Lhs>;
    using RhsGather = Gather<TILE_COLS, ASYNC, Rhs>;
    constexpr int TM = BM / 16;
    constexpr int LHS = TILE_DEPTH * LhsGather::PITCH, STAGE = LHS + TILE_DEPTH * RhsGather::PITCH;
    constexpr int LEAVE = LEAVE_ROWS * LEAVE_PITCH;
    __shared__ alignas(16) float buffer[2 * STAGE > LEAVE ? 2 * STAGE : LEAVE];
    __shared__ Listed lhs_table[LhsGather::TABLE], rhs_table[RhsGather::TABLE];

    const u32 first_row = share.row_block * BM, first_col = share.col_block * TILE_COLS;
    const u32 begin = share.part * p.split_depth, end = min(begin + p.split_depth, p.depth);
    const LhsGather lhs(lhs_side, lhs_table, first_row, p.rows);
    const RhsGather rhs(rhs_side, rhs_table, first_col, p.cols);
    lhs.prepare(begin, end, 0);
    rhs.prepare(begin, end, 0);

    // Warps are 4 x 2, lanes 4 x 8.
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 y = warp / 2 * 4 + lane / 8, x = warp % 2 * 8 + lane % 8;
    float acc[TM][8] = {};
    auto multiply = [&](const float *tile) {
        const float *a_tile = tile + y * TM, *b_tile = tile + LHS + x * 4;
#pragma unroll
        for (int s = 0; s < TILE_DEPTH; s++) {
            float a[TM], b[2][4];
            load_values<float, TM>(a, a_tile + s * LhsGather::PITCH);
            load_values<float, 4>(b[0], b_tile + s * RhsGather::PITCH);
            load_values<float, 4>(b[1], b_tile + s * RhsGather::PITCH + 64);
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) acc[i][j] = fmaf(a[i], b[j / 4][j % 4], acc[i][j]);
        }
    };
    // Gathers a tile and multiplies the one before.
    u32 now = 0;
#pragma unroll 1
    for (u32 k = begin;; k += TILE_DEPTH, now ^= 1) {
        copy_wait<0>();
        __syncthreads();
        if (k < end) {
            lhs.load(buffer + now * STAGE, k, end, now);
            rhs.load(buffer + now * STAGE + LHS, k, end, now);
        }
        copy_commit();
        lhs.prepare(k + TILE_DEPTH, end, now ^ 1);
        rhs.prepare(k + TILE_DEPTH, end, now ^ 1);
        if (k > begin) multiply(buffer + (now ^ 1) * STAGE);
        if (k >= end) break;
    }

#pragma unroll 1
    for (u32 first = 0; first < BM; first += LEAVE_ROWS) {
        __syncthreads();
        if (y * TM / LEAVE_ROWS * LEAVE_ROWS == first) {
            float *to = buffer + (y * TM - first) * LEAVE_PITCH + x * 4;
#pragma unroll
            for (int i = 0; i < TM; i++) {
                const float low[4] = {acc[i][0], acc[i][1], acc[i][2], acc[i][3]};
                const float high[4] = {acc[i][4], acc[i][5], acc[i][6], acc[i][7]};
                store_values<float, 4>(to + i * LEAVE_PITCH, low);
                store_values<float, 4>(to + i * LEAVE_PITCH + 64, high);
            }
        }
        __syncthreads();
        leave_tile(p, out, share.part, first_row + first, first_col, buffer);
    }
}
