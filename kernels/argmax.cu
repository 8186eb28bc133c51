// The place of the largest value of each row: the lowest of several, and NaN counts as the largest.
//
// Operands: x [rows, cols] with contiguous rows at any distance; out [rows] u32. Workspace: `found` [rows, segments] u64.
//
// Algorithm: a value and its place make one whole number (`common/order.cuh`) of which the largest is found, by a team for
// each segment of a row (`common/rows.cuh`). Where a row has several segments, each leaves its number in the workspace and
// `argmax_join` finds the largest of those: so one long row of logits keeps the whole device busy.
//
// Tunables: those of `common/rows.cuh`, with 256 threads at most.
// Budget: 256 bytes of shared memory, 32 registers: 2048 threads on a multiprocessor, with 64 KiB (f32: 128) under way.
// Bound: bytes, one read; about 8 instructions for each element.
#include "common/order.cuh"
#include "common/rows.cuh"

struct Larger {
    DEVICE u64 operator()(u64 a, u64 b) const { return a > b ? a : b; }
};

struct Argmax {
    const void *x;
    u64 *found;
    u32 *out;
    u32 rows, cols, x_stride, segment, segments, lanes, dtype, unused;
};

// Of the largest number of segment `index`, which all lanes have: the place, or where there are several segments all.
DEVICE void give(const Argmax &p, const Team &team, u64 best) {
    if (team.lane != 0) return;
    if (p.segments == 1) {
        p.out[team.index] = place_of(best);
    } else {
        p.found[team.index] = best;
    }
}

template <int V, int N, class T>
DEVICE void argmax(const Argmax &p) {
    const Team team(p.lanes);
    const u32 row = team.index / p.segments, begin = team.index % p.segments * p.segment;
    const u32 end = row < p.rows ? min(p.cols, begin + p.segment) : 0;
    const T *x = static_cast<const T *>(p.x) + (u64)row * p.x_stride;
    u32 best = 0, place = 0;
    for (u32 first = begin; first < end; first += p.lanes * N) {
        float v[N];
        load_tile<V>(v, x, team, first, end, -infinity());
#pragma unroll
        for (int i = 0; i < N; i++) {
            const u32 c = team.column<V>(first, i), key = order_key(v[i]);
            if (c < end && key > best) {
                best = key;
                place = c;
            }
        }
    }
    const u64 largest = team.reduce((u64)best << 32 | ~place, Larger());
    if (row < p.rows) give(p, team, largest);
}

#define ARGMAX(T, NAME) \
    KERNEL(256) NAME(Argmax p) { argmax<PER_VECTOR<T>, HELD, T>(p); }
ARGMAX(float, argmax_f32__sm80)
ARGMAX(bf16, argmax_bf16__sm80)
ARGMAX(f16, argmax_f16__sm80)

KERNEL(256) argmax_any(Argmax p) {
    with_float(p.dtype, [&](auto zero) { argmax<1, HELD_SINGLE, decltype(zero)>(p); });
}

KERNEL(256) argmax_join(const u64 *found, u32 *out, u32 rows, u32 segments, u32 lanes) {
    const Team team(lanes);
    const u32 count = team.index < rows ? segments : 0;
    u64 best = 0;
    for (u32 s = team.lane; s < count; s += lanes) best = Larger()(best, found[(u64)team.index * segments + s]);
    best = team.reduce(best, Larger());
    if (team.index < rows && team.lane == 0) out[team.index] = place_of(best);
}
