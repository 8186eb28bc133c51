// Convolutions in float arithmetic: common/conv.cuh has the formula and the operands' layouts, common/convolution_tiled.cuh and
// common/convolution_direct.cuh the algorithms with their tunables and budgets. x and weight are of the dtype that the kernel is
// named after, `any` of every float dtype each; the direct kernels' weight and all results are of any.
//
// conv_splits, for all convolutions: sums of the splits, in their order, with bias and activation. A thread computes four
// results. Bound: memory, mostly the cache's: the sums were written just before.

#include "common/conv.cuh"
#include "common/convolution_direct.cuh"
#include "common/convolution_tiled.cuh"

template <int BM, bool ASYNC>
DEVICE void conv(const Product &p) {
    const Share share(p);
    const Conv op{p};
    tiled<BM, ASYNC>(p, share, op.lhs(share.group), op.rhs(share.group), op.out(share.group));
}
KERNEL_OF(256, 2) conv_f32__sm80_m128n128(const Product p) { conv<128, true>(p); }
KERNEL_OF(256, 2) conv_f32__sm80_m64n128(const Product p) { conv<64, true>(p); }
KERNEL_OF(256, 2) conv_any__sm80_m64n128(const Product p) { conv<64, false>(p); }

#define CONV_DIRECT(name, T) \
    KERNEL_OF(DIRECT_THREADS, 6) name(const Product p, const Pieces q) { direct<T>(p, q, Conv{p}); }
CONV_DIRECT(conv_f32_direct__sm80, float)
CONV_DIRECT(conv_bf16_direct__sm80, bf16)
CONV_DIRECT(conv_f16_direct__sm80, f16)

KERNEL(256) conv_splits__sm80(const float *partial, const float *bias, void *out, Divisor points, Divisor channels, u32 total,
                              u32 splits, u32 out_dtype, u32 activation, u32 vectors) {
    const u32 first = (blockIdx.x * 256 + threadIdx.x) * 4;
    if (first >= total) return;
    float sums[4] = {};
#pragma unroll 4
    for (u32 s = 0; s < splits; s++) {
        const float *from = partial + (u64)s * total + first;
        float v[4] = {};
        if (vectors) load_values<float, 4>(v, from);
        else
#pragma unroll
            for (u32 j = 0; j < 4; j++)
                if (first + j < total) v[j] = from[j];
#pragma unroll
        for (int j = 0; j < 4; j++) sums[j] += v[j];
    }
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        u32 channel = (first + j) / points;
        split(channel, channels);
        if (bias && first + j < total) sums[j] += bias[channel];
        sums[j] = activate(activation, sums[j]);
    }
    if (vectors) return store_4(out, first, out_dtype, sums);
#pragma unroll
    for (u32 j = 0; j < 4; j++)
        if (first + j < total) store_any(out, first + j, out_dtype, sums[j]);
}
