// Sums and maxima over a warp and over a block, in a fixed order: the same bits on every run.
#pragma once
#include "common/base.cuh"

struct Add {
    DEVICE static float identity() { return 0.0f; }
    DEVICE float operator()(float a, float b) const { return a + b; }
};
struct Max {
    DEVICE static float identity() { return -infinity(); }
    DEVICE float operator()(float a, float b) const { return fmaxf(a, b); }
};

// Over aligned groups of `width` lanes (a power of two); every lane gets the result. All lanes of the warp call it.
template <class F>
DEVICE float group_reduce(float x, int width, F f) {
    for (int d = width / 2; d > 0; d /= 2) x = f(x, __shfl_xor_sync(0xffffffffu, x, d));
    return x;
}
template <class F>
DEVICE float warp_reduce(float x, F f) {
#pragma unroll
    for (int d = 16; d > 0; d /= 2) x = f(x, __shfl_xor_sync(0xffffffffu, x, d));
    return x;
}

// Over a block of whole warps; every thread gets the result. `scratch` holds a float per warp, 32 at most, and may be used
// again at once: a call begins with a barrier.
template <class F>
DEVICE float block_reduce(float x, float *scratch, F f) {
    const u32 warps = blockDim.x / 32, lane = threadIdx.x % 32;
    x = warp_reduce(x, f);
    if (warps == 1) return x;
    __syncthreads();
    if (lane == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    x = warp_reduce(lane < warps ? scratch[lane] : F::identity(), f);
    return x;
}
