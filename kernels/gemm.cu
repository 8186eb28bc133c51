// Matrix products in f32 arithmetic, of operands of any dtype that lie in any way.
//
// lhs [batch, m, k], rhs [batch or 1, n or 2n, k], each f32, f16 or bf16 with any strides, or rhs rows of quantised blocks;
// out [batch, m, n] of any float dtype, or partial sums where k is split; bias, activation, gate and residual as
// common/epilogue.cuh has them. Values of rhs are exact, lhs is never rounded, products and sums are f32.
//
// Algorithm:
// 1. A block owns BLOCK x BLOCK results, a thread 8 x 8 of them: rows 4 ty.. and columns 4 tx.. of both halves of the tile.
//    Blocks go down eight tiles of m before the next of n (common/gemm.cuh).
// 2. BLOCK / 8 k at a time, each thread brings eight k of a row of each operand to shared memory, k outermost: stores of
//    neighbouring threads are neighbours. Two buffers, one barrier: the next k are loaded into registers, as they are, while
//    these are used, and decoded when they are stored.
// 3. Of each k a thread reads 16 values in four vectors for 64 multiply-adds; a warp is 4 threads high and 8 wide, so that it
//    reads 64 and 128 neighbouring bytes.
// 4. The sums go through shared memory, one half of the rows after the other.
//
// BLOCK: 128 (256 threads, 34 KiB, up to 128 registers, 2 blocks on a multiprocessor) or 64 (64 threads, 9 KiB, 8 blocks).
// Bound: multiply-adds: 64 for four shared loads and, in 16 k, 16 stores and the decoding of 16 values.
#include "common/gemm.cuh"
#include "common/quant.cuh"

// Eight k of a row as loaded: eight elements in a word each, vectors of elements, or the bytes, factor, offset and zero of
// quantised ones.
struct Octet {
    u32 word[8];
};

template <u32 Q>
DEVICE void load_quant(Octet &x, const u8 *row, u32 k, u32 end) {
    constexpr u32 GAP = Quant<Q>::GAP;
    const u32 octet = octet_of<GAP>(k);
    const QuantUnit unit = Quant<Q>::load(row, unit_of<GAP>(k), end);
#pragma unroll
    for (u32 i = 0; i < 2; i++)
        x.word[i] = octet == 0 ? Quant<Q>::bytes(unit, 0, i) : Quant<Q>::bytes(unit, 1, i);
    x.word[2] = __float_as_uint(octet == 0 ? unit.factor[0] : unit.factor[1]);
    x.word[3] = __float_as_uint(octet == 0 ? unit.offset[0] : unit.offset[1]);
    x.word[4] = __float_as_uint((float)Quant<Q>::ZERO);
}

// From k on, zeros from `end` on; `all` are the k of the whole row.
DEVICE Octet load_octet(const void *row, u64 step, u32 k, u32 end, u32 all, u32 dtype, bool vectors, u32 quant) {
    Octet x = {};
    if (k >= end) return x;
    if (dtype == U8) {
        const u8 *blocks = static_cast<const u8 *>(row);
        switch (quant) {
            case Q8_0: load_quant<Q8_0>(x, blocks, k, all); break;
            case Q4_0: load_quant<Q4_0>(x, blocks, k, all); break;
            case Q4_1: load_quant<Q4_1>(x, blocks, k, all); break;
            case Q4_K: load_quant<Q4_K>(x, blocks, k, all); break;
            default: load_quant<Q6_K>(x, blocks, k, all); break;
        }
    } else if (vectors) {
        const u32 *from = static_cast<const u32 *>(row) + (dtype == F32 ? k : k / 2);
        reinterpret_cast<Vec<u32, 4> &>(x.word[0]) = load_vec<u32, 4>(from);
        if (dtype == F32) reinterpret_cast<Vec<u32, 4> &>(x.word[4]) = load_vec<u32, 4>(from + 4);
    } else {
#pragma unroll
        for (u32 j = 0; j < 8; j++) {
            if (k + j >= end) break;
            const u64 at = (k + j) * step;
            x.word[j] = dtype == F32 ? static_cast<const u32 *>(row)[at] : static_cast<const u16 *>(row)[at];
        }
    }
    return x;
}

// Stores the values BLOCK floats apart, as eight k of one row.
template <u32 BLOCK>
DEVICE void store_octet(float *to, const Octet &x, u32 dtype, bool vectors) {
#pragma unroll
    for (u32 j = 0; j < 8; j++) {
        const u32 word = vectors && dtype != F32 ? x.word[j / 2] >> j % 2 * 16 : x.word[j];
        float v = __uint_as_float(word);
        if (dtype == F16) v = value(f16{(u16)word});
        if (dtype == BF16) v = value(bf16{(u16)word});
        if (dtype == U8) {
            const float q = byte_value(x.word[j / 4], j % 4, __uint_as_float(x.word[4]));
            v = fmaf(q, __uint_as_float(x.word[2]), __uint_as_float(x.word[3]));
        }
        to[j * BLOCK] = v;
    }
}

template <u32 BLOCK>
DEVICE void gemm(const Matrix &lhs, const Matrix &rhs, const Reads &reads, const Sizes &s, const Epilogue &e,
                 float *partial) {
    constexpr u32 THREADS = BLOCK * BLOCK / 64, STEP = BLOCK / 8, HALF = BLOCK / 2, BUFFER = 2 * STEP * BLOCK;
    constexpr u32 SUMS = HALF * SUMS_STRIDE<BLOCK>;
    __shared__ __align__(16) float smem[2 * BUFFER > SUMS ? 2 * BUFFER : SUMS];
    const Tile tile = tile_of(blockIdx.x, s);
    const u32 begin = tile.split * s.split_k, end = min(s.k, begin + s.split_k);

    // What this thread loads. Rows beyond the last are taken for the last one.
    const u32 slot = threadIdx.x % BLOCK, octet = threadIdx.x / BLOCK * 8;
    const u32 row = min(tile.m * BLOCK + slot, s.m - 1);
    const u32 column = min(rhs_row<BLOCK>(tile.n, slot, s.n, e.gated), (e.gated ? 2 * s.n : s.n) - 1);
    const u32 lhs_bytes = reads.lhs_dtype == F32 ? 4 : 2;
    const u32 rhs_bytes = reads.rhs_dtype == F32 ? 4 : reads.rhs_dtype == U8 ? 1 : 2;
    const char *a_row = static_cast<const char *>(lhs.at) + (tile.batch * lhs.batch + row * lhs.row) * lhs_bytes;
    const char *b_row = static_cast<const char *>(rhs.at) + (tile.batch * rhs.batch + column * rhs.row) * rhs_bytes;
    auto load_a = [&](u32 k) {
        return load_octet(a_row, lhs.step, k + octet, end, s.k, reads.lhs_dtype, reads.lhs_vectors, 0);
    };
    auto load_b = [&](u32 k) {
        return load_octet(b_row, rhs.step, k + octet, end, s.k, reads.rhs_dtype, reads.rhs_vectors, reads.quant);
    };

    // What it computes.
    constexpr u32 WARPS_N = BLOCK / 64;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 ty = warp / WARPS_N * 4 + lane / 8, tx = warp % WARPS_N * 8 + lane % 8;
    float c[2][4][2][4] = {};
    Octet a_next = load_a(begin), b_next = load_b(begin);
    u32 buffer = 0;
#pragma unroll 1
    for (u32 k = begin; k < end; k += STEP) {
        float *a_tile = smem + buffer, *b_tile = a_tile + STEP * BLOCK;
        store_octet<BLOCK>(a_tile + octet * BLOCK + slot, a_next, reads.lhs_dtype, reads.lhs_vectors);
        store_octet<BLOCK>(b_tile + octet * BLOCK + slot, b_next, reads.rhs_dtype, reads.rhs_vectors);
        __syncthreads();
        a_next = load_a(k + STEP);
        b_next = load_b(k + STEP);
#pragma unroll 2
        for (u32 i = 0; i < STEP; i++) {
            float a[2][4], b[2][4];
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                load_values<float, 4>(a[half], a_tile + i * BLOCK + half * HALF + 4 * ty);
                load_values<float, 4>(b[half], b_tile + i * BLOCK + half * HALF + 4 * tx);
            }
#pragma unroll
            for (u32 p = 0; p < 8; p++)
#pragma unroll
                for (u32 q = 0; q < 8; q++)
                    c[p / 4][p % 4][q / 4][q % 4] = fmaf(a[p / 4][p % 4], b[q / 4][q % 4], c[p / 4][p % 4][q / 4][q % 4]);
        }
        buffer = BUFFER - buffer;
    }

#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        __syncthreads();
#pragma unroll
        for (u32 i = 0; i < 4; i++)
#pragma unroll
            for (u32 side = 0; side < 2; side++)
                store_values<float, 4>(smem + (4 * ty + i) * SUMS_STRIDE<BLOCK> + side * HALF + 4 * tx, c[half][i][side]);
        __syncthreads();
        finish_rows<HALF, BLOCK, THREADS>(smem, tile.m * BLOCK + half * HALF, tile, s, e, partial);
    }
}

KERNEL_OF(256, 2) gemm__sm80_m128n128(Matrix lhs, Matrix rhs, Reads reads, Sizes s, Epilogue e, float *partial) {
    gemm<128>(lhs, rhs, reads, s, e, partial);
}
KERNEL_OF(64, 8) gemm__sm80_m64n64(Matrix lhs, Matrix rhs, Reads reads, Sizes s, Epilogue e, float *partial) {
    gemm<64>(lhs, rhs, reads, s, e, partial);
}
