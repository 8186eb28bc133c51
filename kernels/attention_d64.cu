// Attention of blocks of queries, for heads of up to 32 and of up to 64 columns: common/flash.cuh. Results as coarse as the
// operands, and finer ones.
#include "common/flash.cuh"

FLASH(bf16, 32, d32, false)
FLASH(bf16, 32, d32_fine, true)
FLASH(bf16, 64, d64, false)
FLASH(bf16, 64, d64_fine, true)
FLASH(f16, 32, d32, false)
FLASH(f16, 32, d32_fine, true)
FLASH(f16, 64, d64, false)
FLASH(f16, 64, d64_fine, true)
