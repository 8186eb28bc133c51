// Convolutions of 16-bit elements as products of matrices on the tensor cores; x is gathered while it is multiplied.
//
// Algorithm: a block of 256 threads owns BM rows x 128 columns of a group, and the steps of a split, 32 at a time. The factor is
// a matrix with rows at multiples of 16 bytes (the weight itself, or packed by `pack_factor` where it does not lie so) and is
// copied three tiles deep past the registers. x comes through the registers, since its elements lie anywhere: a thread
// gathers 16 steps of its column, the next tile's while the present one is multiplied, and stores them as two vectors. Where
// columns are masked (see `Window`) an element is a test of a bit, an addition and a load; steps' places lie in shared memory,
// computed a tile ahead. Both tiles are rows of 64 bytes, rotated so that eight rows lie in different banks. Warps are 2 x 4,
// each of BM/2 rows by 32 columns of mma.m16n8k16.
//
// Tunables: BM = 64, 128. Budget: 40 KiB of shared memory (BM = 64: 34), 128 registers (64 sums at BM = 128): 2 blocks a
// multiprocessor. Bound: the tensor cores at BM = 128, 32 instructions of a warp for 16 gathered elements of a thread, some 5
// instructions each; at BM = 64 instructions issued.
#pragma once
#include "common/convolution.cuh"
#include "common/matrix.cuh"

constexpr int MMA_COLS = 128, MMA_DEPTH = 32;

// A column of x as a thread gathers it, 16 steps at a time.
struct Column {
    const Window window;
    Window::Held held;
    const u16 *x;
    const bool masked;

    DEVICE Column(const Product &p, u32 group, u32 col)
        : window{p.x, p.x_dtype, {p, group}}, held(window.hold(col)), masked(window.is_masked()) {
        x = static_cast<const u16 *>(p.x) + held.place.at;
        // Kept as a pointer: taken apart into x and its offset, each element would cost two additions of 64 bits.
        asm("" : "+l"(x));
        held.place.at = 0;
    }
    template <bool MASKED>
    DEVICE void gather(u16 (&to)[16], const Listed *steps) const {
#pragma unroll
        for (int i = 0; i < 16; i++) {
            i64 at;
            const bool there = window.find<MASKED>(held, steps[i], at);
            to[i] = there ? x[at] : 0;
        }
    }
};

template <class T, int BM, class Out>
DEVICE void tensor(const Product &p, const Out &out, const Share &share) {
    constexpr int MI = BM / 32, STAGES = 3;
    constexpr int LHS = BM * MMA_DEPTH * 2, RHS = MMA_COLS * MMA_DEPTH * 2;
    constexpr int TILES = STAGES * LHS + 2 * RHS, LEAVE = LEAVE_ROWS * LEAVE_PITCH * 4;
    __shared__ alignas(128) u8 buffer[TILES > LEAVE ? TILES : LEAVE];
    __shared__ Listed steps[2][MMA_DEPTH];

    const u32 tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
    const u32 first_row = share.row_block * BM, first_col = share.col_block * MMA_COLS;
    const u32 begin = share.part * p.split_depth, end = min(begin + p.split_depth, p.depth);
    const u32 tiles = begin < end ? ceil_div(end - begin, MMA_DEPTH) : 0;
    const u16 *factor = static_cast<const u16 *>(p.factor) + (u64)share.group * p.rows * p.factor_pitch;
    const u32 lhs_smem = smem_address(buffer), rhs_smem = lhs_smem + STAGES * LHS;

    // A column of 16 steps.
    const u32 col = tid % MMA_COLS, half = tid / MMA_COLS;
    const Column column(p, share.group, min(first_col + col, p.cols - 1));
    u16 raw[16];
    auto store = [&](u32 tile) {
#pragma unroll
        for (u32 c = 0; c < 2; c++) {
            Vec<u32, 4> v;
#pragma unroll
            for (int i = 0; i < 4; i++) v.at[i] = raw[c * 8 + i * 2] | (u32)raw[c * 8 + i * 2 + 1] << 16;
            u8 *to = buffer + STAGES * LHS + tile % 2 * RHS + swizzled<4>(col, half * 2 + c);
            store_vec<u32, 4>(reinterpret_cast<u32 *>(to), v);
        }
    };
    auto copy_factor = [&](u32 tile) {
        if (tile < tiles) {
#pragma unroll
            for (u32 j = 0; j < BM * 4 / 256; j++) {
                const u32 i = tid + 256 * j, row = i / 4, k = begin + tile * MMA_DEPTH + i % 4 * 8;
                const bool there = first_row + row < p.rows && k < p.factor_pitch;
                const u16 *from = factor + (there ? (u64)(first_row + row) * p.factor_pitch + k : 0);
                copy_async_16(lhs_smem + tile % STAGES * LHS + swizzled<4>(row, i % 4), from, there ? 16 : 0);
            }
        }
        copy_commit();
    };
    auto prepare = [&](u32 tile) {
        const u32 k = begin + tile * MMA_DEPTH + tid;
        if (tid < MMA_DEPTH) steps[tile % 2][tid] = k < end ? column.window.list(k) : nowhere();
    };

    const u32 warp_row = warp / 4 * (BM / 2), warp_col = warp % 4 * 32;
    float acc[MI][4][4] = {};
    auto multiply = [&](u32 tile) {
        const u32 a_tile = lhs_smem + tile % STAGES * LHS, b_tile = rhs_smem + tile % 2 * RHS;
#pragma unroll
        for (u32 k = 0; k < MMA_DEPTH / 16; k++) {
            u32 a[MI][4], b[2][4];
#pragma unroll
            for (int j = 0; j < 2; j++)
                load_matrix_4(b[j], b_tile + swizzled<4>(warp_col + j * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
#pragma unroll
            for (int i = 0; i < MI; i++)
                load_matrix_4(a[i], a_tile + swizzled<4>(warp_row + i * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
            for (int i = 0; i < MI; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) mma<T>(acc[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
    };
    copy_factor(0);
    prepare(0);
    // Gathers a tile and multiplies the one before.
#pragma unroll 1
    for (u32 tile = 0; tile <= tiles; tile++) {
        copy_wait<1>();
        __syncthreads();
        copy_factor(tile + 1);
        if (tile < tiles && column.masked) column.gather<true>(raw, &steps[tile % 2][half * 16]);
        else if (tile < tiles) column.gather<false>(raw, &steps[tile % 2][half * 16]);
        prepare(tile + 1);
        if (tile > 0) multiply(tile - 1);
        if (tile < tiles) store(tile);
    }
    copy_wait<0>();

    float *sums = reinterpret_cast<float *>(buffer);
#pragma unroll 1
    for (u32 first = 0; first < BM; first += LEAVE_ROWS) {
        __syncthreads();
        if (warp_row / LEAVE_ROWS * LEAVE_ROWS == first) {
            float *to = sums + (warp_row - first + lane / 4) * LEAVE_PITCH + warp_col + lane % 4 * 2;
#pragma unroll
            for (int i = 0; i < MI; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        const float two[2] = {acc[i][j][h * 2], acc[i][j][h * 2 + 1]};
                        store_values<float, 2>(to + (i * 16 + h * 8) * LEAVE_PITCH + j * 8, two);
                    }
        }
        __syncthreads();
        leave_tile(p, out, share.part, first_row + first, first_col, sums);
    }
}

// The factor of a product as a matrix [groups, rows, pitch] of rows at multiples of 16 bytes; zeros behind the last step. A
// thread writes 8 elements.
template <class Op>
DEVICE void pack_factor(const Product &p, const Op &op, u16 *to) {
    const u32 chunks = p.factor_pitch / 8, i = blockIdx.x * 256 + threadIdx.x;
    if (i >= p.groups * p.rows * chunks) return;
    const u32 line = i / chunks, first = i % chunks * 8;
    const auto side = op.lhs(line / p.rows);
    const Place row = side.line(line % p.rows);
    Vec<u16, 8> v;
#pragma unroll
    for (u32 j = 0; j < 8; j++) {
        i64 at;
        const bool there = first + j < p.depth && side.find(row, side.step(first + j), at);
        v.at[j] = there ? static_cast<const u16 *>(p.factor)[at] : (u16)0;
    }
    store_vec<u16, 8>(to + (u64)i * 8, v);
}
