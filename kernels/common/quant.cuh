// Values of quantised blocks (`ops::quant` has the definition; formats by their places in `dtype::Quant::ALL`).
//
// A value is factor * (q - ZERO) + offset with a byte q; factor and offset belong to groups of 32 values, of Q6_K of 16.
// Blocks are read eight values (an octet) or twice eight at a time: the two octets of a unit share their bytes where a
// format keeps one value in a byte's lower and another in its upper half. A row begins at an even address, the first at a
// multiple of 16.
#pragma once
#include "common/base.cuh"

enum : u32 { Q8_0, Q4_0, Q4_1, Q4_K, Q6_K };

// Eight bytes from an even address on. Words with none of them are not read, but for two bytes before the first.
DEVICE void load_8_bytes(u32 (&to)[2], const u8 *p) {
    const bool odd = reinterpret_cast<u64>(p) & 2;
    const u32 *words = reinterpret_cast<const u32 *>(p - (odd ? 2 : 0));
    const u32 a = words[0], b = words[1];
    const u32 c = odd ? *reinterpret_cast<const u16 *>(p + 6) : 0;
    to[0] = odd ? __funnelshift_r(a, b, 16) : a;
    to[1] = odd ? __funnelshift_r(b, c, 16) : b;
}
DEVICE float half_at(const u8 *p) { return value(*reinterpret_cast<const f16 *>(p)); }

// Byte j of four as a float, less `zero`: exact, and cheaper than a conversion.
DEVICE float byte_value(u32 bytes, u32 j, float zero) {
    return __uint_as_float(__byte_perm(bytes, 0x4b000000, 0x7540 | j)) - (8388608.0f + zero);
}

// One unit: bytes as loaded, factors and offsets of its two octets.
struct QuantUnit {
    u32 low[2], high[2];
    float factor[2], offset[2];
};

// Of each format: BYTES of a block and its VALUES, ZERO, whether there are offsets, and GAP, by how many k the second octet
// of a unit is behind the first. `load` brings unit u of a row of k values, `bytes` are four of an octet.
template <u32 Q>
struct Quant;

// Formats of 32 values with nibbles: the low ones of 16 bytes are the first half, the high ones the second.
template <u32 BYTES_, u32 DATA, u32 ZERO_>
struct Nibbles {
    static constexpr u32 VALUES = 32, BYTES = BYTES_, ZERO = ZERO_, GAP = 16;
    static constexpr bool HAS_OFFSET = DATA == 4;
    DEVICE static QuantUnit load(const u8 *row, u32 u, u32) {
        const u8 *block = row + u / 2 * BYTES;
        QuantUnit x;
        load_8_bytes(x.low, block + DATA + u % 2 * 8);
        x.factor[0] = x.factor[1] = half_at(block);
        x.offset[0] = x.offset[1] = HAS_OFFSET ? half_at(block + 2) : 0.0f;
        return x;
    }
    DEVICE static u32 bytes(const QuantUnit &x, u32 octet, u32 word) { return (x.low[word] >> 4 * octet) & 0x0f0f0f0f; }
};
template <>
struct Quant<Q4_0> : Nibbles<18, 2, 8> {};
template <>
struct Quant<Q4_1> : Nibbles<20, 4, 0> {};

// The second octet of a unit is that of another block.
template <>
struct Quant<Q8_0> {
    static constexpr u32 VALUES = 32, BYTES = 34, ZERO = 128, GAP = 32;
    static constexpr bool HAS_OFFSET = false;
    // The last unit of an odd number of blocks has one octet.
    DEVICE static QuantUnit load(const u8 *row, u32 u, u32 k) {
        const u8 *block = row + u / 4 * 2 * BYTES;
        QuantUnit x = {};
        load_8_bytes(x.low, block + 2 + u % 4 * 8);
        x.factor[0] = half_at(block);
        if (u / 4 * 64 + 32 < k) {
            load_8_bytes(x.high, block + BYTES + 2 + u % 4 * 8);
            x.factor[1] = half_at(block + BYTES);
        }
        return x;
    }
    DEVICE static u32 bytes(const QuantUnit &x, u32 octet, u32 word) {
        return (octet == 0 ? x.low[word] : x.high[word]) ^ 0x80808080;
    }
};

// Groups of 32 in pairs, one in the lower and one in the upper nibbles of 32 bytes.
template <>
struct Quant<Q4_K> {
    static constexpr u32 VALUES = 256, BYTES = 144, ZERO = 0, GAP = 32;
    static constexpr bool HAS_OFFSET = true;
    DEVICE static QuantUnit load(const u8 *row, u32 u, u32) {
        const u8 *block = row + u / 16 * BYTES;
        const u32 pair = u / 4 % 4;
        QuantUnit x;
        const Vec<u32, 2> data = load_vec<u32, 2>(reinterpret_cast<const u32 *>(block + 16 + pair * 32 + u % 4 * 8));
        x.low[0] = data.at[0];
        x.low[1] = data.at[1];
        const Vec<u32, 4> head = load_vec<u32, 4>(reinterpret_cast<const u32 *>(block));
        const float d = value(f16{(u16)head.at[0]}), dmin = value(f16{(u16)(head.at[0] >> 16)});
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            // Six-bit scale and minimum of eight groups; the last four's upper bits lie above the first four's numbers.
            const u32 shift = (2 * pair + i) % 4 * 8;
            const u32 a = head.at[1] >> shift, b = head.at[2] >> shift, c = head.at[3] >> shift;
            const bool late = pair >= 2;
            const u32 scale = late ? (c & 15) | (a >> 2 & 48) : a & 63, min = late ? (c >> 4 & 15) | (b >> 2 & 48) : b & 63;
            x.factor[i] = d * (float)scale;
            x.offset[i] = -dmin * (float)min;
        }
        return x;
    }
    DEVICE static u32 bytes(const QuantUnit &x, u32 octet, u32 word) { return (x.low[word] >> 4 * octet) & 0x0f0f0f0f; }
};

// Halves of 128 values; in each, four runs of 32 share 64 bytes of low and 32 bytes of high bits. A unit is of runs r and
// r + 2, which share nibbles.
template <>
struct Quant<Q6_K> {
    static constexpr u32 VALUES = 256, BYTES = 210, ZERO = 32, GAP = 64;
    static constexpr bool HAS_OFFSET = false;
    DEVICE static QuantUnit load(const u8 *row, u32 u, u32) {
        const u8 *block = row + u / 16 * BYTES;
        const u32 half = u / 8 % 2, run = u / 4 % 2, i = half * 128 + u % 8 * 8;
        QuantUnit x;
        u32 high[2];
        load_8_bytes(x.low, block + half * 64 + u % 8 * 8);
        load_8_bytes(high, block + 128 + half * 32 + u % 4 * 8);
        x.high[0] = high[0] >> 2 * run;
        x.high[1] = high[1] >> 2 * run;
        const float d = half_at(block + 208);
#pragma unroll
        for (u32 o = 0; o < 2; o++) {
            x.factor[o] = d * (float)*reinterpret_cast<const signed char *>(block + 192 + i / 16 + 4 * o);
            x.offset[o] = 0.0f;
        }
        return x;
    }
    DEVICE static u32 bytes(const QuantUnit &x, u32 octet, u32 word) {
        return ((x.low[word] >> 4 * octet) & 0x0f0f0f0f) | ((x.high[word] >> 4 * octet & 0x03030303) << 4);
    }
};

// The first k of unit u of a row; and the unit and octet that begin with a k.
template <u32 GAP>
DEVICE u32 first_of_unit(u32 u) { return u / (GAP / 8) * (2 * GAP) + u % (GAP / 8) * 8; }
template <u32 GAP>
DEVICE u32 unit_of(u32 k) { return k / (2 * GAP) * (GAP / 8) + k % GAP / 8; }
template <u32 GAP>
DEVICE u32 octet_of(u32 k) { return k % (2 * GAP) / GAP; }

// The integers of an octet, less ZERO.
template <u32 Q>
DEVICE void quant_octet(float (&q)[8], const QuantUnit &x, u32 octet) {
#pragma unroll
    for (u32 word = 0; word < 2; word++) {
        const u32 bytes = Quant<Q>::bytes(x, octet, word);
#pragma unroll
        for (u32 j = 0; j < 4; j++) q[4 * word + j] = byte_value(bytes, j, (float)Quant<Q>::ZERO);
    }
}
