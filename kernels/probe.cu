// What a device can do at most, for rooflines: chains of multiply-adds and of matrix products, and reads of a buffer, spread
// over all threads. Nothing here touches memory but the last store, which keeps the work from being left out.
#include "common/matrix.cuh"

// Sixteen rounds of eight chains in a step: enough to cover the latency of four cycles with any number of warps.
KERNEL(256) probe_fma(float *out, u32 steps) {
    const u32 id = blockIdx.x * 256 + threadIdx.x;
    const float y = id * 1e-9f;
    float a[8];
#pragma unroll
    for (int j = 0; j < 8; j++) a[j] = y + j;
    for (u32 i = 0; i < steps; i++) {
#pragma unroll
        for (int round = 0; round < 16; round++) {
#pragma unroll
            for (int j = 0; j < 8; j++) a[j] = fmaf(a[j], 0.999f, y);
        }
    }
    out[id] = a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
}

// Four rounds of eight chains of m16n8k16 in a step of a warp.
template <class T>
DEVICE void matrix_chains(float *out, u32 steps) {
    const u32 id = blockIdx.x * 256 + threadIdx.x;
    const u32 tiny = pack<T>(0.0625f, 0.0625f);
    const u32 a[4] = {tiny, tiny + id % 2, tiny, tiny};
    float c[8][4] = {};
    for (u32 i = 0; i < steps; i++) {
#pragma unroll
        for (int round = 0; round < 4; round++) {
#pragma unroll
            for (int j = 0; j < 8; j++) mma<T>(c[j], a, tiny, tiny);
        }
    }
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < 8; j++) sum += c[j][0] + c[j][1] + c[j][2] + c[j][3];
    out[id] = sum;
}
KERNEL(256) probe_mma_bf16(float *out, u32 steps) { matrix_chains<bf16>(out, steps); }
KERNEL(256) probe_mma_f16(float *out, u32 steps) { matrix_chains<f16>(out, steps); }

// Reads `vectors` of 16 bytes, `steps` times; four loads of a thread are under way at once.
KERNEL(256) probe_read(const uint4 *from, u32 *out, u32 steps, u32 vectors) {
    const u32 id = blockIdx.x * 256 + threadIdx.x, stride = gridDim.x * 256;
    u32 sum = 0;
    for (u32 i = 0; i < steps; i++) {
        u32 v = id;
        for (; v + 3 * stride < vectors; v += 4 * stride) {
            uint4 x[4];
#pragma unroll
            for (int j = 0; j < 4; j++) x[j] = __ldcg(from + v + j * stride);
#pragma unroll
            for (int j = 0; j < 4; j++) sum ^= (x[j].x ^ x[j].y ^ x[j].z ^ x[j].w) + i;
        }
        for (; v < vectors; v += stride) {
            const uint4 x = __ldcg(from + v);
            sum ^= (x.x ^ x.y ^ x.z ^ x.w) + i;
        }
    }
    out[id] = sum;
}
