// What products share: operands, sizes, the order of tiles, and the way of a tile's sums out of shared memory.
#pragma once
#include "common/epilogue.cuh"

// An operand [batch, rows, k] with strides in elements (quantised blocks: in bytes); a batch stride of 0 repeats it.
struct Matrix {
    const void *at;
    u64 batch, row, step;
};

// How operands are read whose dtypes are told at run time: `vectors` where eight k are whole vectors of 16 bytes (k is
// contiguous and a multiple of eight). A rhs of U8 has blocks of the format `quant`.
struct Reads {
    u32 lhs_dtype, lhs_vectors, rhs_dtype, rhs_vectors, quant;
};

// The result is [batch, m, n]. With a gate, rhs has 2n rows: those of the gate and then those of the other matrix.
struct Sizes {
    u32 m, n, k, batch;
    // Tiles along m and n; parts of k and the length of one, a multiple of 64.
    u32 tiles_m, tiles_n, splits, split_k;
};

// The tile that a block owns. Blocks go down eight tiles of m before the next of n, so that those that run together find
// both operands in L2.
struct Tile {
    u32 batch, split, m, n;
};
DEVICE Tile tile_of(u32 block, const Sizes &s) {
    const u32 per_product = s.tiles_m * s.tiles_n, product = block / per_product, tile = block % per_product;
    const u32 group = tile / (8 * s.tiles_n), within = tile % (8 * s.tiles_n), rows = min(8u, s.tiles_m - 8 * group);
    return {product / s.splits, product % s.splits, 8 * group + within % rows, within / rows};
}

// The row of rhs that column `j` of a tile of BN columns is multiplied by, or what is not below `rows` where there is none:
// with a gate the left half of the tile are sums of the gate, the right half those of the other matrix.
template <u32 BN>
DEVICE u32 rhs_row(u32 tile_n, u32 j, u32 n, bool gated) {
    if (!gated) return tile_n * BN + j;
    const u32 column = tile_n * (BN / 2) + j % (BN / 2);
    return column < n ? (j < BN / 2 ? column : n + column) : 2 * n;
}

// Floats of the row of a tile of sums in shared memory: neighbouring rows are eight banks apart.
template <u32 BN>
constexpr u32 SUMS_STRIDE = BN + 8;

// Takes sums, ROWS rows of SUMS_STRIDE<BN> from row `first_row` of a tile's product on, to the result, or where k is split to
// `partial` [splits, batch, m, n or 2n], which gemm_split adds up. All threads of the block call it, after a barrier.
template <u32 ROWS, u32 BN, u32 THREADS>
DEVICE void finish_rows(const float *sums, u32 first_row, const Tile &tile, const Sizes &s, const Epilogue &e,
                        float *partial) {
    const bool halved = e.gated && s.splits == 1;
    const u32 width = halved ? BN / 2 : BN, quads = width / 4;
    const u32 total = e.gated && s.splits > 1 ? 2 * s.n : s.n;
#pragma unroll 1
    for (u32 i = threadIdx.x; i < ROWS * quads; i += THREADS) {
        const u32 r = i / quads, j = 4 * (i % quads), row = first_row + r;
        if (row >= s.m) break;
        float x[4], up[4] = {};
        load_values<float, 4>(x, sums + r * SUMS_STRIDE<BN> + j);
        if (s.splits > 1) {
            // With a gate, the columns of one half of the tile are those of rows of rhs as they lie.
            const u32 half = e.gated ? BN / 2 : BN, column = tile.n * half + j % half;
            const u32 count = column < s.n ? min(4u, s.n - column) : 0;
            const u32 at = e.gated && j >= half ? s.n + column : column;
            float *to = partial + (((u64)tile.split * s.batch + tile.batch) * s.m + row) * total + at;
            if (e.vectors) {
                if (count > 0) store_values<float, 4>(to, x);
            } else {
#pragma unroll
                for (u32 c = 0; c < 4; c++)
                    if (c < count) to[c] = x[c];
            }
            continue;
        }
        const u32 column = tile.n * width + j;
        if (column >= s.n) continue;
        if (halved) load_values<float, 4>(up, sums + r * SUMS_STRIDE<BN> + BN / 2 + j);
        finish_4(e, (u64)tile.batch * s.m + row, column, min(4u, s.n - column), x, up);
    }
}
