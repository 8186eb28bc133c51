// Numbers as whole numbers of the same order: NaN is the largest, and both zeros are one. No number gives 0.
#pragma once
#include "common/base.cuh"

DEVICE u32 order_key(float v) {
    const u32 bits = __float_as_uint(v), magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0xffffffffu;
    return (bits >> 31) != 0 && magnitude != 0 ? ~bits : bits | 0x80000000u;
}
// With its place, of which the lower is the larger: no two of a row are equal.
DEVICE u64 ordered(float v, u32 place) { return (u64)order_key(v) << 32 | ~place; }
DEVICE u32 place_of(u64 ordered) { return ~(u32)ordered; }
