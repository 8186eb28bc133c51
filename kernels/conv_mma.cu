// Convolutions of bf16 and f16 on the tensor cores: common/conv.cuh has the formula and the operands' layouts,
// common/convolution_mma.cuh the algorithm with its tunables and budget. x and weight are of one dtype, results of any.

#include "common/conv.cuh"
#include "common/convolution_mma.cuh"

template <class T, int BM>
DEVICE void conv(const Product &p) {
    const Share share(p);
    tensor<T, BM>(p, Conv{p}.out(share.group), share);
}
KERNEL_OF(256, 2) conv_bf16__sm80_m128n128(const Product p) { conv<bf16, 128>(p); }
KERNEL_OF(256, 2) conv_bf16__sm80_m64n128(const Product p) { conv<bf16, 64>(p); }
KERNEL_OF(256, 2) conv_f16__sm80_m128n128(const Product p) { conv<f16, 128>(p); }
KERNEL_OF(256, 2) conv_f16__sm80_m64n128(const Product p) { conv<f16, 64>(p); }
KERNEL(256) conv_pack__sm80(const Product p, u16 *to) { pack_factor(p, Conv{p}, to); }
