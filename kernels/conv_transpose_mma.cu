// Transposed convolutions of bf16 and f16 on the tensor cores: common/conv_transpose.cuh has the formula and the operands'
// layouts, common/convolution_mma.cuh the algorithm with its tunables and budget. x and weight are of one dtype, results of any.

#include "common/conv_transpose.cuh"
#include "common/convolution_mma.cuh"

template <class T, int BM>
DEVICE void conv_transpose(const Product &p, const Spread &s) {
    const Share share(p);
    tensor<T, BM>(p, ConvTranspose{p, s}.out(share.group), share);
}
KERNEL_OF(256, 2) conv_transpose_bf16__sm80_m128n128(const Product p, const Spread s) { conv_transpose<bf16, 128>(p, s); }
KERNEL_OF(256, 2) conv_transpose_bf16__sm80_m64n128(const Product p, const Spread s) { conv_transpose<bf16, 64>(p, s); }
KERNEL_OF(256, 2) conv_transpose_f16__sm80_m128n128(const Product p, const Spread s) { conv_transpose<f16, 128>(p, s); }
KERNEL_OF(256, 2) conv_transpose_f16__sm80_m64n128(const Product p, const Spread s) { conv_transpose<f16, 64>(p, s); }
KERNEL(256) conv_transpose_pack__sm80(const Product p, const Spread s, u16 *to) { pack_factor(p, ConvTranspose{p, s}, to); }
