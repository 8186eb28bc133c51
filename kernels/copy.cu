// The elements of a view in row-major order.
//
// Operands: x with any strides, out contiguous, of one dtype, of which only the size matters.
//
// Algorithm: `copy` moves words of up to 16 bytes, as wide as the rows that both sides share. Where x lies in another order
// than the result, so that neighbours of the result are far apart in x, `copy_tiled` turns tiles of 64 by 64 elements in
// shared memory: rows are read along the dimension that is innermost in x and written along that of the result, in both
// directions by neighbouring lanes. Rows of a tile are a word longer than their elements, so that columns hit all banks.
//
// Budget: at most 56 registers and 16640 bytes of shared memory, 4 blocks per multiprocessor; 16 elements or 64 bytes of a
// thread are under way. Bound: memory, one read and one write.
#include "common/move.cuh"

KERNEL(WALKERS) copy__sm80(const void *x, void *out, const Walk<2> walk, u32 word) {
    move_words(x, out, walk, word, blockIdx.x);
}

constexpr u32 TILE = 64;
// Threads of a block, and rows that they take at a time.
constexpr u32 TURNERS = 256, ROWS = TURNERS / 32;

// The two dimensions that a tile lies in; `rows` is innermost in x, `cols` in the result.
struct Tiles {
    u32 rows, cols;
    u32 row_step, col_step; // in x
    u32 row_distance;       // in the result, where columns are neighbours
    Divisor across, down;   // tiles along columns and along rows
};

template <class T>
DEVICE void turn(const T *x, T *out, T *tile, const Walk<2> &others, const Tiles &t) {
    constexpr u32 PITCH = TILE + 4 / sizeof(T);
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 across = blockIdx.x;
    u32 down = split(across, t.across);
    const u32 other = split(down, t.down), col = across * TILE, row = down * TILE;
    u64 at[2];
    places(at, others, other);
    x += at[0];
    out += at[1];
    T v[TILE / ROWS][2];
#pragma unroll
    for (int k = 0; k < TILE / ROWS; k++) {
        const u32 c = col + warp + k * ROWS;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const u32 r = row + lane + h * 32;
            if (r < t.rows && c < t.cols) v[k][h] = x[(u64)r * t.row_step + (u64)c * t.col_step];
        }
    }
#pragma unroll
    for (int k = 0; k < TILE / ROWS; k++) {
#pragma unroll
        for (int h = 0; h < 2; h++) tile[(warp + k * ROWS) * PITCH + lane + h * 32] = v[k][h];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TILE / ROWS; k++) {
        const u32 r = row + warp + k * ROWS;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const u32 c = col + lane + h * 32;
            if (r < t.rows && c < t.cols) {
                out[(u64)r * t.row_distance + c] = tile[(lane + h * 32) * PITCH + warp + k * ROWS];
            }
        }
    }
}

KERNEL(TURNERS) copy_tiled(const void *x, void *out, const Walk<2> others, const Tiles tiles, u32 bytes) {
    __shared__ u32 tile[TILE * (TILE + 1)];
    switch (bytes) {
        case 4: turn((const u32 *)x, (u32 *)out, tile, others, tiles); break;
        case 2: turn((const u16 *)x, (u16 *)out, (u16 *)tile, others, tiles); break;
        default: turn((const u8 *)x, (u8 *)out, (u8 *)tile, others, tiles); break;
    }
}
