// Rows, as all kernels of rows divide them among threads.
//
// A team of `lanes` threads (a power of two) works on a row: a part of a warp on a short one, the whole block on one of more
// than 32 lanes. What it holds at once is a tile: N values of each thread, in parts of V neighbouring elements, 16 bytes of
// the operand that is streamed. Value i of a lane stands at column (i / V · lanes + lane) · V + i % V of the tile, so that each
// load of a warp is dense, and all loads of a tile are under way before the first is used. A row of one tile is read once
// and stays in registers; a longer one is read tile by tile, as often as the kernel needs it.
//
// Where rows do not begin at multiples of 16 bytes or do not consist of whole parts, V is 1.
// src/backend/cuda/rows.rs chooses the lanes: a row of more than one tile has a whole block.
#pragma once
#include "common/load.cuh"
#include "common/reduce.cuh"

// Values that a thread holds of a tile of 16-byte parts, and of one of single elements; and of 16-byte parts where it holds
// nothing beside them: the more, the less there is to do for each value.
constexpr int HELD = 16, HELD_SINGLE = 8;
template <class T>
constexpr int HELD_ALONE = 4 * PER_VECTOR<T>;

struct Team {
    u32 lanes, lane;
    // The team's number in the grid. Threads of a team beyond the last row must go along to where others reduce.
    u32 index;

    DEVICE explicit Team(u32 lanes) : lanes(lanes), lane(threadIdx.x & (lanes - 1)) {
        const u32 shift = __popc(lanes - 1);
        index = blockIdx.x * (blockDim.x >> shift) + (threadIdx.x >> shift);
    }

    // The column of value i of this thread in the tile that begins at `first`.
    template <int V>
    DEVICE u32 column(u32 first, int i) const {
        return first + (i / V * lanes + lane) * V + i % V;
    }

    // K results of f over the team, in a fixed order; every lane gets them. All threads of the block call it.
    template <int K, class X, class F>
    DEVICE void reduce(X (&x)[K], F f) const {
        for (u32 d = min(lanes, 32u) / 2; d > 0; d /= 2) {
#pragma unroll
            for (int k = 0; k < K; k++) x[k] = f(x[k], __shfl_xor_sync(0xffffffffu, x[k], d));
        }
        if (lanes <= 32) return;
        __shared__ X scratch[K][32];
        const u32 warps = lanes / 32;
        __syncthreads();
        if (threadIdx.x % 32 == 0) {
#pragma unroll
            for (int k = 0; k < K; k++) scratch[k][threadIdx.x / 32] = x[k];
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < K; k++) x[k] = scratch[k][threadIdx.x & (warps - 1)];
        for (u32 d = warps / 2; d > 0; d /= 2) {
#pragma unroll
            for (int k = 0; k < K; k++) x[k] = f(x[k], __shfl_xor_sync(0xffffffffu, x[k], d));
        }
    }
    template <class X, class F>
    DEVICE X reduce(X x, F f) const {
        X one[1] = {x};
        reduce(one, f);
        return one[0];
    }
};

// The tile that begins at column `first` of a row; values beyond its end are `beyond`.
template <int V, class T, int N>
DEVICE void load_tile(float (&to)[N], const T *row, const Team &team, u32 first, u32 cols, float beyond = 0.0f) {
    constexpr int W = V < PER_VECTOR<T> ? V : PER_VECTOR<T>;
    Vec<T, W> got[N / W];
#pragma unroll
    for (int i = 0; i < N / W; i++) {
        const u32 c = team.column<V>(first, i * W);
        got[i] = load_if<T, W>(c < cols, row + c);
    }
#pragma unroll
    for (int i = 0; i < N / W; i++) {
        const bool there = beyond == 0.0f || team.column<V>(first, i * W) < cols;
        float values[W];
        values_of(values, got[i]);
#pragma unroll
        for (int j = 0; j < W; j++) to[i * W + j] = there ? values[j] : beyond;
    }
}

template <int V, class T, int N>
DEVICE void store_tile(T *row, const Team &team, u32 first, u32 cols, const float (&from)[N]) {
#pragma unroll
    for (int i = 0; i < N; i += V) {
        const u32 c = team.column<V>(first, i);
        float part[V];
#pragma unroll
        for (int j = 0; j < V; j++) part[j] = from[i + j];
        if (c < cols) store_values(row + c, part);
    }
}

// The tiles of a row, which `load(first)` reads. That of a row of one tile is read at once and stays.
template <class Load>
struct Tiles {
    u32 cols, tile;
    Load load;

    DEVICE Tiles(u32 cols, u32 tile, Load load) : cols(cols), tile(tile), load(load) {
        if (cols <= tile) load(0);
    }
    // Calls f(first) for each tile, which is there.
    template <class F>
    DEVICE void each(F f) const {
        for (u32 first = 0; first < cols; first += tile) {
            if (cols > tile) load(first);
            f(first);
        }
    }
};

// Calls f with a value of the float dtype that is told at run time.
template <class F>
DEVICE void with_float(u32 dtype, F f) {
    switch (dtype) {
        case F32: f(0.0f); break;
        case F16: f(f16{}); break;
        default: f(bf16{}); break;
    }
}

// As store_tile, for a result of any float dtype, whose row begins at element `at`.
template <int V, int N>
DEVICE void store_tile_any(
    void *to, u64 at, u32 dtype, const Team &team, u32 first, u32 cols, const float (&from)[N]
) {
    with_float(dtype, [&](auto zero) {
        store_tile<V>(static_cast<decltype(zero) *>(to) + at, team, first, cols, from);
    });
}
