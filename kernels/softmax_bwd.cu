// The gradient of softmax: dx = y · (dy - Σ y·dy) for each row.
//
// Operands: y [rows, cols] of any float dtype and dy [rows, cols] f32 with contiguous rows at any distance; dx f32, contiguous.
//
// Algorithm: `common/rows.cuh`. A row of one tile is read once and stays in registers; a longer one is read twice.
//
// Tunables: those of `common/rows.cuh`: rows of 16384 values stay in registers.
// Budget: 128 bytes of shared memory, 64 registers: 1024 threads on a multiprocessor, with 96 KiB (f32: 128) under way.
// Bound: bytes, two reads and one write.
#include "common/rows.cuh"

struct SoftmaxBwd {
    const void *y;
    const float *dy;
    float *dx;
    u32 rows, cols, y_stride, dy_stride, lanes, dtype;
};

template <int V, int N, class T>
DEVICE void softmax_bwd(const SoftmaxBwd &p) {
    const Team team(p.lanes);
    const u64 row = team.index;
    const u32 cols = row < p.rows ? p.cols : 0;
    float y[N], dy[N];
    auto load = [&](u32 first) {
        load_tile<V>(y, static_cast<const T *>(p.y) + row * p.y_stride, team, first, cols);
        load_tile<V>(dy, p.dy + row * p.dy_stride, team, first, cols);
    };
    const Tiles tiles(cols, p.lanes * N, load);
    float sum = 0.0f;
    tiles.each([&](u32) {
#pragma unroll
        for (int i = 0; i < N; i++) sum += y[i] * dy[i];
    });
    sum = team.reduce(sum, Add());
    tiles.each([&](u32 first) {
#pragma unroll
        for (int i = 0; i < N; i++) dy[i] = y[i] * (dy[i] - sum);
        store_tile<V>(p.dx + row * p.cols, team, first, cols, dy);
    });
}

#define SOFTMAX_BWD(T, NAME) \
    KERNEL(1024) NAME(SoftmaxBwd p) { softmax_bwd<PER_VECTOR<T>, HELD, T>(p); }
SOFTMAX_BWD(float, softmax_bwd_f32__sm80)
SOFTMAX_BWD(bf16, softmax_bwd_bf16__sm80)
SOFTMAX_BWD(f16, softmax_bwd_f16__sm80)

KERNEL(1024) softmax_bwd_any(SoftmaxBwd p) {
    with_float(p.dtype, [&](auto zero) { softmax_bwd<1, HELD_SINGLE, decltype(zero)>(p); });
}
