// Division of indices by numbers that the host knows: a multiplication and a shift (Granlund and Montgomery 1994, section 4).
#pragma once
#include "common/base.cuh"

// As `Call::divisor` passes it. Dividends are below 2^31.
struct Divisor {
    u32 by, factor, shift;
};

DEVICE u32 operator/(u32 n, const Divisor &d) { return (u32)((u64)n * d.factor >> d.shift); }

// The quotient; n becomes the remainder.
DEVICE u32 split(u32 &n, const Divisor &d) {
    const u32 q = n / d;
    n -= q * d.by;
    return q;
}
