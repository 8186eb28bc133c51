// Products with few rows of lhs and quantised weights: rhs is read once (for each eight rows of lhs).
//
// lhs [batch, m, k] of any float dtype with k contiguous, rhs [n or 2n] rows of the blocks in the name, as GGUF files have
// them; out, bias, activation, gate and residual as common/epilogue.cuh has them. Values of rhs are exact, lhs is not
// rounded, products and sums are f32.
//
// Algorithm: that of gemm_few.cu. A lane takes units of twice eight values (common/quant.cuh); it sums x * q over eight and
// only then multiplies by the group's factor, and adds the sum of x times the offset.
//
// Budget: as gemm_few.cu, with 8 registers for a unit. Bound: memory for Q8_0; the four-bit formats spend about four
// instructions on a value (taking the byte out, subtracting, the product, an eighth of reading lhs), which is what limits
// them on GPUs with more than 2 TB/s.
#include "common/gemm_few.cuh"

GEMM_FEW(gemm_few_q8_0__sm80, 1, QuantRhs<Q8_0>)
GEMM_FEW(gemm_few_q8_0__sm80_rows8, 8, QuantRhs<Q8_0>)
GEMM_FEW(gemm_few_q4_0__sm80, 1, QuantRhs<Q4_0>)
GEMM_FEW(gemm_few_q4_0__sm80_rows8, 8, QuantRhs<Q4_0>)
GEMM_FEW(gemm_few_q4_1__sm80, 1, QuantRhs<Q4_1>)
GEMM_FEW(gemm_few_q4_1__sm80_rows8, 8, QuantRhs<Q4_1>)
GEMM_FEW(gemm_few_q4_k__sm80, 1, QuantRhs<Q4_K>)
GEMM_FEW(gemm_few_q4_k__sm80_rows8, 8, QuantRhs<Q4_K>)
GEMM_FEW(gemm_few_q6_k__sm80, 1, QuantRhs<Q6_K>)
GEMM_FEW(gemm_few_q6_k__sm80_rows8, 8, QuantRhs<Q6_K>)
