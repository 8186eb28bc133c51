// Gradients of attention for heads of up to 256 columns: common/flash_bwd.cuh.
#include "common/flash_bwd.cuh"

FLASH_BWD(bf16, 256)
FLASH_BWD(f16, 256)
