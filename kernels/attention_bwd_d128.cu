// Gradients of attention for heads of up to 96 and of up to 128 columns: common/flash_bwd.cuh.
#include "common/flash_bwd.cuh"

FLASH_BWD(bf16, 96)
FLASH_BWD(bf16, 128)
FLASH_BWD(f16, 96)
FLASH_BWD(f16, 128)
