// Columns, as kernels that reduce [outer, len, inner] over `len` divide them among threads: a block takes one segment of the
// rows and `across` · V columns, a thread V columns of every (256 / across)-th row, four of which are under way at a time;
// what it has is joined with the others' through shared memory, always in the same order. src/backend/cuda/rows.rs chooses
// across and the segments.
// Shared memory: V KiB.
#pragma once
#include "common/load.cuh"

constexpr u32 COLUMNS_BLOCK = 256;

struct Columns {
    u32 outer, len, inner, across, segment, segments;
};

// load(v, o, j, c, there) reads row j of o, columns c to c + V - 1, if it is there; take(all, v) is what a value makes of
// those before, which begin as `start`; join(a, b) joins what two threads have; give(o, segment, c, all) stores the result
// of these columns.
template <int V, class Load, class Take, class Join, class Give>
DEVICE void reduce_columns(const Columns &p, float start, Load load, Take take, Join join, Give give) {
    constexpr int ROWS = 4;
    const u32 across = p.across, down = COLUMNS_BLOCK / across, tiles = ceil_div(p.inner, across * V);
    const u32 segment = blockIdx.x / tiles % p.segments, o = blockIdx.x / tiles / p.segments;
    const u32 c = (blockIdx.x % tiles * across + threadIdx.x % across) * V;
    const u32 end = c < p.inner ? min(p.len, (segment + 1) * p.segment) : 0;
    float all[V];
#pragma unroll
    for (int k = 0; k < V; k++) all[k] = start;
    for (u32 first = segment * p.segment + threadIdx.x / across; first < end; first += ROWS * down) {
        float v[ROWS][V];
#pragma unroll
        for (int r = 0; r < ROWS; r++) load(v[r], o, first + r * down, c, first + r * down < end);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
            for (int k = 0; k < V; k++) all[k] = first + r * down < end ? take(all[k], v[r][k]) : all[k];
        }
    }
    __shared__ float shared[V][COLUMNS_BLOCK];
#pragma unroll
    for (int k = 0; k < V; k++) shared[k][threadIdx.x] = all[k];
    for (u32 step = COLUMNS_BLOCK / 2; step >= across; step /= 2) {
        __syncthreads();
        if (threadIdx.x < step) {
#pragma unroll
            for (int k = 0; k < V; k++) {
                shared[k][threadIdx.x] = join(shared[k][threadIdx.x], shared[k][threadIdx.x + step]);
            }
        }
    }
    if (threadIdx.x < across && c < p.inner) {
#pragma unroll
        for (int k = 0; k < V; k++) all[k] = shared[k][threadIdx.x];
        give(o, segment, c, all);
    }
}
