// Softmax over rows.
//
// Operands: x [rows, cols] with contiguous rows at any distance; out [rows, cols] of the same dtype, contiguous.
//
// Algorithm: `common/rows.cuh`. A row of one tile is read once: its maximum, e^(x - m) in the place of the values, their
// sum, a scaling. A longer row is read twice: the maximum and the sum at once (`common/online.cuh`), then the results.
//
// Tunables: those of `common/rows.cuh`, with 512 threads at most: rows of 16384 values of 16 bits (8192 of 32) stay in
// registers.
// Budget: 256 bytes of shared memory, 64 registers: 1024 threads on a multiprocessor, with 64 KiB under way. The bandwidth of
// an H200 times its latency asks for about 13 KiB of reads.
// Bound: bytes, one read and one write. About 16 instructions for each element are well below the 29 that fit beside them.
#include "common/online.cuh"

struct Softmax {
    const void *x;
    void *out;
    u32 rows, cols, x_stride, lanes, dtype, unused;
};

template <int V, int N, class T>
DEVICE void softmax(const Softmax &p) {
    const Team team(p.lanes);
    const u32 cols = team.index < p.rows ? p.cols : 0, tile = p.lanes * N;
    const T *x = static_cast<const T *>(p.x) + (u64)team.index * p.x_stride;
    T *out = static_cast<T *>(p.out) + (u64)team.index * p.cols;
    float v[N];
    Exponentials e;
    // Of a row of -inf alone the results are zeros.
    auto scale = [&] { return e.largest == -infinity() ? 0.0f : 1.0f / e.sum; };
    if (p.cols <= tile) {
        load_tile<V>(v, x, team, 0, cols, -infinity());
#pragma unroll
        for (int i = 0; i < N; i++) e.largest = fmaxf(e.largest, v[i]);
        e.largest = team.reduce(e.largest, Max());
#pragma unroll
        for (int i = 0; i < N; i++) {
            v[i] = exponential(v[i] - e.shift());
            e.sum += v[i];
        }
        e.sum = team.reduce(e.sum, Add());
        const float factor = scale();
#pragma unroll
        for (int i = 0; i < N; i++) v[i] *= factor;
        store_tile<V>(out, team, 0, cols, v);
        return;
    }
    for (u32 first = 0; first < cols; first += tile) {
        load_tile<V>(v, x, team, first, cols, -infinity());
        e.take(v);
    }
    e.join(team);
    const float factor = scale();
    for (u32 first = 0; first < cols; first += tile) {
        load_tile<V>(v, x, team, first, cols, -infinity());
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = exponential(v[i] - e.shift()) * factor;
        store_tile<V>(out, team, first, cols, v);
    }
}

#define SOFTMAX(T, NAME) \
    KERNEL(512) NAME(Softmax p) { softmax<PER_VECTOR<T>, HELD_ALONE<T>, T>(p); }
SOFTMAX(float, softmax_f32__sm80)
SOFTMAX(bf16, softmax_bf16__sm80)
SOFTMAX(f16, softmax_f16__sm80)

KERNEL(512) softmax_any(Softmax p) {
    with_float(p.dtype, [&](auto zero) { softmax<1, HELD_SINGLE, decltype(zero)>(p); });
}
