// Another dtype. To a float: rounded to nearest even. To an integer: rounded towards zero, and what is out of range becomes
// the nearest value in range; NaN becomes 0.
//
// Operands: x with any strides, of dtype `from`; out contiguous, of dtype `to`.
//
// Algorithm: a thread has four units of four elements under way (16 bytes each of 4-byte elements, so that the wider side
// moves whole vectors), and turns them round one after the other.
//
// Budget: about 40 registers, no shared memory. Bound: memory, one read and one write; up to some 20 operations an element
// are hidden behind it.
#include "common/walk.cuh"

constexpr int QUAD = 4, UNITS = 4;

// An integer as a float that rounds to 16 bits as the integer does: cut off, with the last bit set where something was lost.
DEVICE float to_odd(u32 m) {
    const float f = __uint2float_rz(m);
    return __float2uint_rz(f) == m ? f : __uint_as_float(__float_as_uint(f) | 1);
}

DEVICE void of_floats(u32 (&bits)[QUAD], const float (&x)[QUAD], u32 to) {
#pragma unroll
    for (int e = 0; e < QUAD; e++) {
        switch (to) {
            case F32: bits[e] = __float_as_uint(x[e]); break;
            case F16: bits[e] = element<f16>(x[e]).bits; break;
            case BF16: bits[e] = element<bf16>(x[e]).bits; break;
            // These conversions keep to the range, and NaN gives 0.
            case U8: bits[e] = min(__float2uint_rz(x[e]), 255u); break;
            case I32: bits[e] = __float2int_rz(x[e]); break;
            default: bits[e] = __float2uint_rz(x[e]); break;
        }
    }
}

// Integers, as magnitudes and signs.
DEVICE void of_integers(u32 (&bits)[QUAD], bool is_signed, u32 to) {
#pragma unroll
    for (int e = 0; e < QUAD; e++) {
        const bool below = is_signed && (i32)bits[e] < 0;
        const u32 m = below ? 0 - bits[e] : bits[e];
        switch (to) {
            case U8: bits[e] = below ? 0 : min(m, 255u); break;
            case U32: bits[e] = below ? 0 : m; break;
            // Only an i32 lies below zero, and it fits.
            case I32: bits[e] = below ? bits[e] : min(m, 0x7fffffffu); break;
            default: {
                const float f = to == F32 ? __uint2float_rn(m) : to_odd(m), x = below ? -f : f;
                bits[e] = to == F32 ? __float_as_uint(x) : to == F16 ? element<f16>(x).bits : element<bf16>(x).bits;
            }
        }
    }
}

template <class T>
DEVICE void cast(const T *x, void *out, const Walk<1> &walk, u32 from, u32 to) {
    using Quad = Words<T, QUAD>;
    const u32 first = blockIdx.x * UNITS;
    Quad v[UNITS][1];
    load_units<T, QUAD>(v, {x}, walk, first);
    // One code for all units, which move up in their registers.
#pragma unroll 1
    for (u32 u = 0; u < UNITS; u++) {
        u32 bits[QUAD];
#pragma unroll
        for (int e = 0; e < QUAD; e++) {
            bits[e] = (T)(v[0][0].at[e / Quad::PER] >> (e % Quad::PER * 8 * sizeof(T)));
        }
        if (from != to) {
            if (from == F32 || from == F16 || from == BF16) {
                float value_of[QUAD];
#pragma unroll
                for (int e = 0; e < QUAD; e++) {
                    value_of[e] = from == F32    ? __uint_as_float(bits[e])
                                  : from == BF16 ? value(bf16{(u16)bits[e]})
                                                 : value(f16{(u16)bits[e]});
                }
                of_floats(bits, value_of, to);
            } else {
                of_integers(bits, from == I32, to);
            }
        }
        switch (to) {
            case U8:
                store_unit<u8, QUAD>((u8 *)out, walk, first + u,
                                     {bits[0] | bits[1] << 8 | bits[2] << 16 | bits[3] << 24});
                break;
            case F16:
            case BF16:
                store_unit<u16, QUAD>((u16 *)out, walk, first + u, {bits[0] | bits[1] << 16, bits[2] | bits[3] << 16});
                break;
            default: store_unit<u32, QUAD>((u32 *)out, walk, first + u, {bits[0], bits[1], bits[2], bits[3]});
        }
#pragma unroll
        for (int k = 0; k + 1 < UNITS; k++) v[k][0] = v[k + 1][0];
    }
}

KERNEL(WALKERS) cast__sm80(const void *x, void *out, const Walk<1> walk, u32 from, u32 to) {
    switch (from) {
        case U8: cast((const u8 *)x, out, walk, from, to); break;
        case F16:
        case BF16: cast((const u16 *)x, out, walk, from, to); break;
        default: cast((const u32 *)x, out, walk, from, to);
    }
}
