// Attention of blocks of queries, for heads of up to 96 and of up to 128 columns: common/flash.cuh. Results as coarse as the
// operands, and finer ones.
#include "common/flash.cuh"

FLASH(bf16, 96, d96, false)
FLASH(bf16, 96, d96_fine, true)
FLASH(bf16, 128, d128, false)
FLASH(bf16, 128, d128_fine, true)
FLASH(f16, 96, d96, false)
FLASH(f16, 96, d96_fine, true)
FLASH(f16, 128, d128, false)
FLASH(f16, 128, d128_fine, true)
