// Attention of blocks of queries, for heads of up to 192 and of up to 256 columns: common/flash.cuh. Results as coarse as the
// operands, and finer ones.
#include "common/flash.cuh"

FLASH(bf16, 192, d192, false)
FLASH(bf16, 192, d192_fine, true)
FLASH(bf16, 256, d256, false)
FLASH(bf16, 256, d256_fine, true)
FLASH(f16, 192, d192, false)
FLASH(f16, 192, d192_fine, true)
FLASH(f16, 256, d256, false)
FLASH(f16, 256, d256_fine, true)
