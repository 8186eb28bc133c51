// Adds up the partial sums of a product whose k was split, and does what follows them.
//
// partial [splits, rows, n], with a gate [splits, rows, 2n]: f32; the rest as common/epilogue.cuh has it, rows those of all
// products of a batch.
//
// Algorithm: a thread computes four neighbouring results, splits in their order: the same bits on every run.
// Bound: memory, for the most part L2, where the sums were just written.
#include "common/epilogue.cuh"

DEVICE void sum_4(float (&to)[4], const float *from, u32 splits, u64 step, u32 count, bool vectors) {
    for (int i = 0; i < 4; i++) to[i] = 0.0f;
#pragma unroll 4
    for (u32 s = 0; s < splits; s++) {
        float x[4];
        load_4(x, from + s * step, count, vectors);
        for (int i = 0; i < 4; i++) to[i] += x[i];
    }
}

KERNEL(256) gemm_split(const float *partial, u32 splits, u32 rows, Epilogue e) {
    const u32 quads = ceil_div(e.cols, 4);
    const u64 quad = (u64)blockIdx.x * 256 + threadIdx.x, row = quad / quads;
    if (row >= rows) return;
    const u32 column = 4 * (u32)(quad % quads), count = min(4u, e.cols - column);
    const u64 width = e.gated ? 2 * e.cols : e.cols, step = rows * width;
    const float *from = partial + row * width + column;
    float sums[4], ups[4] = {};
    sum_4(sums, from, splits, step, count, e.vectors);
    if (e.gated) sum_4(ups, from + e.cols, splits, step, count, e.vectors);
    finish_4(e, row, column, count, sums, ups);
}
