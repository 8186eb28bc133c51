// Products of 16-bit matrices on the tensor cores whose operands lie in any way: odd k, rows at odd places, transposed.
//
// Operands, algorithm and tiles are those of gemm_matrix.cu; a chunk of an operand is brought by one cp.async, by four of
// 4 bytes, or element by element through registers, neighbouring threads along what is contiguous. A transposed operand
// whose rows (m or n) are a multiple of eight stays transposed in shared memory: ldmatrix turns it.
//
// Bound: with vectors that of gemm_matrix.cu, less the copies' addresses, which are computed anew; element by element, the
// loads of the next stage, which the multiplications wait for.
#include "common/gemm_matrix.cuh"

#define TILES(T)                                                     \
    GEMM_MATRIX(gemm_##T##_any__sm80_m128n128, T, m128n128, true, 2) \
    GEMM_MATRIX(gemm_##T##_any__sm80_m64n64, T, m64n64, true, 4)     \
    GEMM_MATRIX(gemm_##T##_any__sm80_m16n64, T, m16n64, true, 5)

TILES(bf16)
TILES(f16)
