// Products with few rows of lhs and plain weights: rhs is read once (for each eight rows of lhs).
//
// lhs [batch, m, k] of any float dtype, rhs [batch or 1, n or 2n, k] of the dtype in the name, both with k contiguous; out,
// bias, activation, gate and residual as common/epilogue.cuh has them. Products are of f32.
//
// Algorithm (common/gemm_few.cuh):
// 1. A warp owns four rows of rhs (with a gate two and the same two of the other matrix) and up to ROWS rows of lhs. A lane
//    takes every 32nd unit of 32 bytes of each row of rhs, 16 bytes at once and side by side with its neighbours'; the eight
//    k of lhs that they meet come from L1 and serve all four rows.
// 2. `k_warps` of the block's eight warps (1, 2, 4 or 8, chosen by the launch so that the GPU is full) share a group of
//    columns, each with its part of k.
// 3. Sums over the lanes by shuffles, over the warps through shared memory, in a fixed order.
//
// Budget: ROWS 8: 32 accumulators, 32 registers for rhs as it is loaded, 32 as values, 8 for lhs; 1 KiB of shared memory.
// Bound: memory (rhs, once): a lane has 128 bytes under way, a multiprocessor with two blocks 64 KiB, twice what 4.8 TB/s need
// at a latency of 800 ns. A byte of 16-bit weights costs ROWS / 2 bytes of f32 lhs from L1.
#include "common/gemm_few.cuh"

GEMM_FEW(gemm_few_f32__sm80, 1, PlainRhs<float>)
GEMM_FEW(gemm_few_f32__sm80_rows8, 8, PlainRhs<float>)
GEMM_FEW(gemm_few_f16__sm80, 1, PlainRhs<f16>)
GEMM_FEW(gemm_few_f16__sm80_rows8, 8, PlainRhs<f16>)
GEMM_FEW(gemm_few_bf16__sm80, 1, PlainRhs<bf16>)
GEMM_FEW(gemm_few_bf16__sm80_rows8, 8, PlainRhs<bf16>)
