// Row normalisation: layer norm and rms norm, with residual, weight and bias, and adaptive modulation.
//
// Operands: x [rows, cols], residual [rows, cols] f32, scale and shift [groups, cols] f32 with contiguous rows at any
// distance; weight and bias [cols] f32; out of `out_dtype` and sum f32, both contiguous.
//
// Algorithm: `common/rows.cuh`. A row of one tile is read once; the mean, then the sum of (x - mean)² (rms norm: of x²), so
// that no digits are lost where the mean is large, then the results come from registers. A longer row is read for each of
// these steps.
//
// Tunables: those of `common/rows.cuh`, with 512 threads at most: rows of 16384 values of 16 bits (8192 of 32) stay in
// registers.
// Budget: 128 bytes of shared memory, 96 registers: 640 threads on a multiprocessor, with 40 KiB under way. The bandwidth of an
// H200 times its latency asks for about 13 KiB of reads.
// Bound: bytes, one read and one write; weights come from the first-level cache. About 17 instructions for each element are
// well below the 29 that fit beside them.
#include "common/rows.cuh"

struct Norm {
    const void *x;
    const float *weight, *bias, *residual, *scale, *shift;
    void *out;
    float *sum;
    u32 rows, cols, group_rows, x_stride, residual_stride, scale_stride, shift_stride, lanes;
    float eps;
    u32 out_dtype, x_dtype, centred;
};

template <int V, int N, class T>
DEVICE void norm(const Norm &p, bool centred) {
    const Team team(p.lanes);
    const u64 row = team.index;
    const u32 cols = row < p.rows ? p.cols : 0;
    float v[N];
    // v = f(v, the operand's values of the same columns).
    auto with = [&](const float *operand, u32 first, auto f) {
        float o[N];
        load_tile<V>(o, operand, team, first, cols);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = f(v[i], o[i]);
    };
    auto load = [&](u32 first) {
        load_tile<V>(v, static_cast<const T *>(p.x) + row * p.x_stride, team, first, cols);
        if (p.residual) with(p.residual + row * p.residual_stride, first, Add());
    };
    const Tiles tiles(cols, p.lanes * N, load);
    float mean = 0.0f, squares = 0.0f;
    if (centred) {
        tiles.each([&](u32) {
#pragma unroll
            for (int i = 0; i < N; i++) mean += v[i];
        });
        mean = team.reduce(mean, Add()) / (float)p.cols;
    }
    tiles.each([&](u32 first) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float d = v[i] - mean;
            if (!centred || team.column<V>(first, i / V * V) < cols) squares += d * d;
        }
    });
    const float inverse = 1.0f / sqrtf(team.reduce(squares, Add()) / (float)p.cols + p.eps);

    const u64 group = row / p.group_rows;
    tiles.each([&](u32 first) {
        if (p.sum) store_tile<V>(p.sum + row * p.cols, team, first, cols, v);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = (v[i] - mean) * inverse;
        if (p.weight) with(p.weight, first, [](float a, float b) { return a * b; });
        if (p.bias) with(p.bias, first, Add());
        if (p.scale) {
            with(p.scale + group * p.scale_stride, first, [](float a, float b) { return a * (1.0f + b); });
            with(p.shift + group * p.shift_stride, first, Add());
        }
        store_tile_any<V>(p.out, row * p.cols, p.out_dtype, team, first, cols, v);
    });
}

// As many threads as leave 96 registers to each.
#define NORM(T, CENTRED, NAME) \
    KERNEL(640) NAME(Norm p) { norm<PER_VECTOR<T>, HELD_ALONE<T>, T>(p, CENTRED); }
NORM(float, false, rms_norm_f32__sm80)
NORM(bf16, false, rms_norm_bf16__sm80)
NORM(f16, false, rms_norm_f16__sm80)
NORM(float, true, layer_norm_f32__sm80)
NORM(bf16, true, layer_norm_bf16__sm80)
NORM(f16, true, layer_norm_f16__sm80)

KERNEL(640) norm_any(Norm p) {
    with_float(p.x_dtype, [&](auto zero) { norm<1, HELD_SINGLE, decltype(zero)>(p, p.centred); });
}
