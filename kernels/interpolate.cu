// Resampling of planes: sums of weighted points.
//
// Operands: x [planes, from_h, from_w, inner] f32; out [planes, to_h, to_w, inner] f32. For each axis a table that the host has
// made in f64: where each output's taps begin and the last one's end [outputs + 1], points and weights.
//
// Algorithm: interpolate_f32 resamples one axis, [planes, points, inner] to [planes, outputs, inner]; two passes (rows, then
// columns, through the workspace) cost taps_h + taps_w products instead of their product. interpolate_f32_direct does both at
// once, which saves the way through the workspace where there are few taps: nearest, bilinear, bicubic. A thread computes 16
// bytes of neighbours behind one point where `inner` allows it, else one value; neighbouring threads read neighbours.
//
// Tunables: 256 threads, 32 to 256 of them along a plane. Budget: up to 40 registers, no shared memory. Bound: memory, most of it
// from the cache: a value is read once for each output that it takes part in.

#include "common/divide.cuh"

struct Axis {
    const u32 *starts, *points;
    const float *weights;
};

// Threads along y take planes, so that small ones fill a block.
DEVICE u32 first_plane() { return blockIdx.y * blockDim.y + threadIdx.y; }

template <int V>
DEVICE void add(float (&sum)[V], float weight, const float *from) {
    float v[V];
    load_values<float, V>(v, from);
#pragma unroll
    for (int j = 0; j < V; j++) sum[j] = fmaf(weight, v[j], sum[j]);
}

// `inner` counts vectors.
template <int V>
DEVICE void resample(const float *x, float *out, const Axis &axis, u32 planes, u32 points, u32 outputs, const Divisor &inner) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= outputs * inner.by) return;
    u32 behind = i;
    const u32 output = split(behind, inner);
    const u32 begin = axis.starts[output], end = axis.starts[output + 1];
    for (u32 plane = first_plane(); plane < planes; plane += gridDim.y * blockDim.y) {
        const float *from = x + ((u64)plane * points * inner.by + behind) * V;
        float sum[V] = {};
#pragma unroll 4
        for (u32 t = begin; t < end; t++) add<V>(sum, axis.weights[t], from + (u64)axis.points[t] * inner.by * V);
        store_values<float, V>(out + ((u64)plane * outputs * inner.by + i) * V, sum);
    }
}

KERNEL(256) interpolate_f32__sm80(const float *x, float *out, const Axis axis, u32 planes, u32 points, u32 outputs,
                                  const Divisor inner, u32 vectors) {
    if (vectors) resample<4>(x, out, axis, planes, points, outputs, inner);
    else resample<1>(x, out, axis, planes, points, outputs, inner);
}

template <int V>
DEVICE void resample_both(const float *x, float *out, const Axis &down, const Axis &across, u32 planes, u32 from_h, u32 from_w,
                          u32 to_h, const Divisor &to_w, const Divisor &inner) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x, outputs = to_h * to_w.by * inner.by;
    if (i >= outputs) return;
    u32 behind = i;
    u32 column = split(behind, inner);
    const u32 row = split(column, to_w);
    const u32 top = down.starts[row], bottom = down.starts[row + 1];
    const u32 left = across.starts[column], right = across.starts[column + 1];
    for (u32 plane = first_plane(); plane < planes; plane += gridDim.y * blockDim.y) {
        const float *from = x + ((u64)plane * from_h * from_w * inner.by + behind) * V;
        float sum[V] = {};
        for (u32 t = top; t < bottom; t++) {
            const float *line = from + (u64)down.points[t] * from_w * inner.by * V;
            float part[V] = {};
#pragma unroll 4
            for (u32 s = left; s < right; s++) add<V>(part, across.weights[s], line + across.points[s] * inner.by * V);
            const float weight = down.weights[t];
#pragma unroll
            for (int j = 0; j < V; j++) sum[j] = fmaf(weight, part[j], sum[j]);
        }
        store_values<float, V>(out + ((u64)plane * outputs + i) * V, sum);
    }
}

KERNEL_OF(256, 6) interpolate_f32_direct__sm80(const float *x, float *out, const Axis down, const Axis across, u32 planes,
                                               u32 from_h, u32 from_w, u32 to_h, const Divisor to_w, const Divisor inner,
                                               u32 vectors) {
    if (vectors) resample_both<4>(x, out, down, across, planes, from_h, from_w, to_h, to_w, inner);
    else resample_both<1>(x, out, down, across, planes, from_h, from_w, to_h, to_w, inner);
}
