// Loads that may be left out.
#pragma once
#include "common/base.cuh"

// 2, 4, 8 or 16 bytes if they are there, else zeros. Written so that it is no branch: in one, the compiler would use what a
// load brings before it begins the next.
template <class T, int W>
DEVICE Vec<T, W> load_if(bool there, const T *from) {
    constexpr int BYTES = W * sizeof(T);
    alignas(16) u32 r[4] = {0, 0, 0, 0};
    if (BYTES == 16) {
        asm volatile("{ .reg .pred p; setp.ne.u32 p, %4, 0; @p ld.global.v4.u32 {%0, %1, %2, %3}, [%5]; }"
                     : "+r"(r[0]), "+r"(r[1]), "+r"(r[2]), "+r"(r[3])
                     : "r"((u32)there), "l"(from));
    } else if (BYTES == 8) {
        asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; @p ld.global.v2.u32 {%0, %1}, [%3]; }"
                     : "+r"(r[0]), "+r"(r[1])
                     : "r"((u32)there), "l"(from));
    } else if (BYTES == 4) {
        asm volatile("{ .reg .pred p; setp.ne.u32 p, %1, 0; @p ld.global.u32 %0, [%2]; }"
                     : "+r"(r[0])
                     : "r"((u32)there), "l"(from));
    } else {
        u16 half = 0;
        asm volatile("{ .reg .pred p; setp.ne.u32 p, %1, 0; @p ld.global.u16 %0, [%2]; }"
                     : "+h"(half)
                     : "r"((u32)there), "l"(from));
        r[0] = half;
    }
    return reinterpret_cast<Vec<T, W> &>(r);
}

// The values of what a load brought; those of bf16 are halves of words, shifted or masked.
template <class T, int W>
DEVICE void values_of(float (&to)[W], const Vec<T, W> &got) {
#pragma unroll
    for (int i = 0; i < W; i++) to[i] = value(got.at[i]);
}
template <int W>
DEVICE void values_of(float (&to)[W], const Vec<bf16, W> &got) {
    if constexpr (W == 1) {
        to[0] = value(got.at[0]);
    } else {
        const Vec<u32, W / 2> &words = reinterpret_cast<const Vec<u32, W / 2> &>(got);
#pragma unroll
        for (int i = 0; i < W; i++) {
            const u32 word = words.at[i / 2];
            to[i] = __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xffff0000u);
        }
    }
}

// The values of V neighbouring elements, in loads of at most 16 bytes.
template <class T, int V>
DEVICE void load_values_if(float (&to)[V], bool there, const T *from) {
    constexpr int W = V < PER_VECTOR<T> ? V : PER_VECTOR<T>;
#pragma unroll
    for (int i = 0; i < V; i += W) {
        float values[W];
        values_of(values, load_if<T, W>(there, from + i));
#pragma unroll
        for (int j = 0; j < W; j++) to[i + j] = values[j];
    }
}
