// Elements moved as they are, from one walk to another, in the widest words that both allow (`Walk::in_words`).
#pragma once
#include "common/walk.cuh"

template <class W>
constexpr int IN_FLIGHT = sizeof(W) == 16 ? 4 : 8; // `Word::in_flight`

// Block `block` of those that move operand 0 of the walk, whose elements are words W, to operand 1.
template <class W>
DEVICE void move(const W *from, W *to, const Walk<2> &walk, u32 block) {
    constexpr int N = IN_FLIGHT<W>;
    const u32 first = block * N * WALKERS + threadIdx.x;
    W v[N];
    u64 at[N][2];
#pragma unroll
    for (int k = 0; k < N; k++) {
        const u32 i = first + k * WALKERS;
        if (i < walk.total) {
            places(at[k], walk, i);
            v[k] = from[at[k][0]];
        }
    }
#pragma unroll
    for (int k = 0; k < N; k++) {
        if (first + k * WALKERS < walk.total) to[at[k][1]] = v[k];
    }
}

// The same with words of as many bytes as are told at run time.
DEVICE void move_words(const void *from, void *to, const Walk<2> &walk, u32 word, u32 block) {
    switch (word) {
        case 16: move((const Vec<u32, 4> *)from, (Vec<u32, 4> *)to, walk, block); break;
        case 8: move((const Vec<u32, 2> *)from, (Vec<u32, 2> *)to, walk, block); break;
        case 4: move((const u32 *)from, (u32 *)to, walk, block); break;
        case 2: move((const u16 *)from, (u16 *)to, walk, block); break;
        default: move((const u8 *)from, (u8 *)to, walk, block); break;
    }
}
