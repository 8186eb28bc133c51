// Products of 16-bit matrices on the tensor cores, k contiguous and in vectors of 16 bytes.
//
// lhs [batch, m, k], rhs [batch or 1, n or 2n, k], both bf16 or both f16, rows any multiple of 16 bytes apart; out
// [batch, m, n] of any float dtype, or partial sums where k is split; bias, activation, gate and residual as
// common/epilogue.cuh has them.
//
// Algorithm (common/gemm_matrix.cuh):
// 1. A block owns BM x BN results; blocks go down eight tiles of m before the next of n (common/gemm.cuh).
// 2. 64 k at a time come by cp.async into a ring of stages, rows of 128 bytes whose 16-byte chunks are swizzled, so that
//    neither the copies nor ldmatrix meet in a bank. What lies beyond m, n or k is zero-filled.
// 3. A warp multiplies its part in steps of 16 k: ldmatrix for the next step, also across the barrier of a stage, then the
//    mma.m16n8k16 of this one.
// 4. The sums go through shared memory, so that the epilogue is a short loop of 16-byte accesses.
//
// Tunables: a multiple of 16 rows and of 16 columns for each warp; stages as shared memory allows. Budget on an H100:
//   m128n256   8 warps of 64 x 64, 3 stages, 144 KiB, 232 registers, 1 block on a multiprocessor
//   m128n128   4 warps of 64 x 64, 3 stages,  96 KiB, 240 registers, 2 blocks
//   m64n64     4 warps of 32 x 32, 3 stages,  48 KiB, 118 registers, 4 blocks
//   m16n64     4 warps of 16 x 16, 4 stages,  40 KiB,  72 registers, 5 blocks: few rows, where reading rhs takes the time
// Bound: the mma pipe, on Hopper about 6.4 cycles per mma.sync and quarter of a multiprocessor (620 TFLOP/s in all). A warp
// of 64 x 64 reads 4 KiB for 32 of them: m128n256 moves 32 KiB + 12 KiB (copies) of shared memory in 16 k, 352 cycles at 128
// bytes a cycle, in 410 cycles of mma; 12 copies, 32 ldmatrix and 128 mma for 64 k leave the issue slots three quarters
// empty. m64n64 needs twice the shared memory for a product and is bound by it, at half of that rate.
#include "common/gemm_matrix.cuh"

#define TILES(T)                                                   \
    GEMM_MATRIX(gemm_##T##__sm80_m128n256, T, m128n256, false, 1) \
    GEMM_MATRIX(gemm_##T##__sm80_m128n128, T, m128n128, false, 2) \
    GEMM_MATRIX(gemm_##T##__sm80_m64n64, T, m64n64, false, 4)     \
    GEMM_MATRIX(gemm_##T##__sm80_m16n64, T, m16n64, false, 5)

TILES(bf16)
TILES(f16)
