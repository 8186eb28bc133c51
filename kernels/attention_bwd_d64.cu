// Gradients of attention for heads of up to 64 columns: common/flash_bwd.cuh.
#include "common/flash_bwd.cuh"

FLASH_BWD(bf16, 64)
FLASH_BWD(f16, 64)
