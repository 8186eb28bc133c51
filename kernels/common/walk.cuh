// Walking up to three operands of one shape together, in the order of the result (`ops::walk` makes the structs).
//
// A result of `total` elements is cut into units of E elements, 16 bytes or fewer. Where the launch found that units lie in
// one row of the innermost dimension each (`units`), a thread's unit is E neighbours, which operands without gaps read as one
// vector (`vectors`) and others element by element from one place. Where it did not, a unit's elements are a block's width
// apart, so that the threads of a warp still touch neighbours.
#pragma once
#include "common/divide.cuh"

constexpr int MAX_DIMS = 8;
// Threads of a block of every kernel here.
constexpr u32 WALKERS = 128;

template <int N>
struct Walk {
    u32 total; // below 2^31
    u32 rank;
    u32 units;
    u32 vectors[N];
    struct {
        Divisor extent;
        u32 strides[N];
    } dims[MAX_DIMS]; // innermost first
};

// Where element i lies in each operand.
template <int N>
DEVICE void places(u64 (&at)[N], const Walk<N> &walk, u32 i) {
#pragma unroll
    for (int n = 0; n < N; n++) at[n] = 0;
    const u32 last = walk.rank - 1;
#pragma unroll 1
    for (u32 d = 0; d < last; d++) {
        u32 here = i;
        i = split(here, walk.dims[d].extent);
#pragma unroll
        for (int n = 0; n < N; n++) at[n] += (u64)here * walk.dims[d].strides[n];
    }
#pragma unroll
    for (int n = 0; n < N; n++) at[n] += (u64)i * walk.dims[last].strides[n];
}

// The elements of a thread's unit: `first`, and E - 1 more `step` apart.
struct Unit {
    u32 first, step;
};
template <int E, int N>
DEVICE Unit unit_of(const Walk<N> &walk, u32 unit) {
    const u32 tile = unit * WALKERS * E;
    return walk.units ? Unit{tile + threadIdx.x * E, 1} : Unit{tile + threadIdx.x, WALKERS};
}
template <int E, int N>
DEVICE bool is_whole(const Walk<N> &walk, u32 first) { return walk.units && first + E <= walk.total; }

// A unit of elements as words, the first element in the lowest bits of the first word.
template <class T, int E>
struct alignas(E * sizeof(T)) Words {
    static constexpr int SIZE = E * sizeof(T) / 4, PER = 4 / sizeof(T);
    u32 at[SIZE];
};

// A unit of every operand, of whatever kind; what is beyond the total is 0.
template <class T, int E, int N>
DEVICE void load_unit(Words<T, E> (&v)[N], const T *const (&x)[N], const Walk<N> &walk, const Unit &unit) {
    const bool whole = is_whole<E>(walk, unit.first);
    u64 at[N];
    if (whole) places(at, walk, unit.first);
#pragma unroll
    for (int n = 0; n < N; n++) {
        if (whole && walk.vectors[n]) v[n] = *reinterpret_cast<const Words<T, E> *>(x[n] + at[n]);
    }
#pragma unroll
    for (int e = 0; e < E; e++) {
        const u32 i = unit.first + e * unit.step;
        if (!whole && i < walk.total) places(at, walk, i);
#pragma unroll
        for (int n = 0; n < N; n++) {
            if (whole && walk.vectors[n]) continue;
            constexpr int PER = Words<T, E>::PER;
            const u64 here = whole ? at[n] + (u64)e * walk.dims[0].strides[n] : at[n];
            const u32 bits = i < walk.total ? x[n][here] : 0;
            u32 &word = v[n].at[e / PER];
            word = e % PER == 0 ? bits : word | bits << (e % PER * 8 * sizeof(T));
        }
    }
}

// Units `first` to `first + UNITS - 1` of every operand: all loads are under way before the first is used.
template <class T, int E, int N, int UNITS>
DEVICE void load_units(Words<T, E> (&v)[UNITS][N], const T *const (&x)[N], const Walk<N> &walk, u32 first) {
    bool vectors = is_whole<E>(walk, (first + UNITS) * WALKERS * E - E);
#pragma unroll
    for (int n = 0; n < N; n++) vectors &= walk.vectors[n] != 0;
    if (vectors) {
#pragma unroll
        for (int u = 0; u < UNITS; u++) {
            u64 at[N];
            places(at, walk, unit_of<E>(walk, first + u).first);
#pragma unroll
            for (int n = 0; n < N; n++) v[u][n] = *reinterpret_cast<const Words<T, E> *>(x[n] + at[n]);
        }
        return;
    }
    // One code for all units, which move up in their registers.
#pragma unroll 1
    for (u32 u = 0; u < UNITS; u++) {
        Words<T, E> w[N];
        load_unit<T, E>(w, x, walk, unit_of<E>(walk, first + u));
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int k = 0; k + 1 < UNITS; k++) v[k][n] = v[k + 1][n];
            v[UNITS - 1][n] = w[n];
        }
    }
}

template <class T, int E, int N>
DEVICE void store_unit(T *out, const Walk<N> &walk, u32 unit, const Words<T, E> &v) {
    const Unit at = unit_of<E>(walk, unit);
    if (is_whole<E>(walk, at.first)) {
        *reinterpret_cast<Words<T, E> *>(out + at.first) = v;
        return;
    }
#pragma unroll
    for (int e = 0; e < E; e++) {
        const u32 i = at.first + e * at.step;
        if (i < walk.total) out[i] = (T)(v.at[e / (4 / sizeof(T))] >> (e % (4 / sizeof(T)) * 8 * sizeof(T)));
    }
}
