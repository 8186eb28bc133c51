// Transposed convolutions in float arithmetic: common/conv_transpose.cuh has the formula and the operands' layouts,
// common/convolution_tiled.cuh and common/convolution_direct.cuh the algorithms with their tunables and budgets. x and weight
// are of the dtype that the kernel is named after, `any` of every float dtype each; the direct kernels' weight and all results
// are of any.

#include "common/conv_transpose.cuh"
#include "common/convolution_direct.cuh"
#include "common/convolution_tiled.cuh"

template <int BM, bool ASYNC>
DEVICE void conv_transpose(const Product &p, const Spread &s) {
    const Share share(p);
    const ConvTranspose op{p, s};
    tiled<BM, ASYNC>(p, share, op.lhs(share.group), op.rhs(share.group), op.out(share.group));
}
KERNEL_OF(256, 2) conv_transpose_f32__sm80_m128n128(const Product p, const Spread s) { conv_transpose<128, true>(p, s); }
KERNEL_OF(256, 2) conv_transpose_f32__sm80_m64n128(const Product p, const Spread s) { conv_transpose<64, true>(p, s); }
KERNEL_OF(256, 2) conv_transpose_any__sm80_m64n128(const Product p, const Spread s) { conv_transpose<64, false>(p, s); }

#define CONV_TRANSPOSE_DIRECT(name, T)                                                  \
    KERNEL_OF(DIRECT_THREADS, 6) name(const Product p, const Spread s, const Pieces q) { \
        direct<T>(p, q, ConvTranspose{p, s});                                           \
    }
CONV_TRANSPOSE_DIRECT(conv_transpose_f32_direct__sm80, float)
CONV_TRANSPOSE_DIRECT(conv_transpose_bf16_direct__sm80, bf16)
CONV_TRANSPOSE_DIRECT(conv_transpose_f16_direct__sm80, f16)
