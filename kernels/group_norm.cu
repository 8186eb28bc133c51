// Group norm: (x - mean) / √(variance + eps) · weight[c] + bias[c] over groups of channels, with SiLU if asked.
//
// Operands: x and out [batch, channels, inner], contiguous, out of `out_dtype`; weight and bias [channels] f32. Workspace, f32:
// mean and Σ(x - mean)² of each segment of each group.
//
// Algorithm: `common/rows.cuh`, the groups of all samples being the rows. `group_norm_moments_<dtype>`: a team goes over a
// segment of a group; it holds a tile in registers, of which it takes the mean and then the squares, and merges them with
// those of the tiles before (Chan, Golub and LeVeque 1979, eq. 2.1), so that no digits are lost where the mean is large.
// `group_norm_<dtype>`: a team merges the moments of its group's segments and computes a tile of the results.
//
// Tunables: those of `common/rows.cuh`, with 256 threads at most.
// Budget: 128 bytes of shared memory, 48 registers: 1280 threads on a multiprocessor, with 40 KiB (f32: 80) under way.
// Bound: bytes, two reads (the second from the cache where that holds x) and one write.
#include "common/rows.cuh"

struct GroupNorm {
    const void *x;
    const float *weight, *bias;
    void *out;
    float *moments;
    // Groups of all samples, elements of a group, elements of a segment, segments of a group, parts of `tile` elements.
    u32 groups, len, segment, segments, tiles;
    u32 inner, channels, lanes;
    float eps;
    u32 out_dtype, dtype, silu;
};

template <int V, int N, class T>
DEVICE void moments(const GroupNorm &p) {
    const Team team(p.lanes);
    const u32 group = team.index / p.segments, tile = p.lanes * N;
    const u32 begin = team.index % p.segments * p.segment;
    const u32 end = group < p.groups ? min(p.len, begin + p.segment) : 0;
    const T *x = static_cast<const T *>(p.x) + (u64)group * p.len;
    float count = 0.0f, mean = 0.0f, squares = 0.0f;
    // All teams of a block reduce the same number of times.
    for (u32 i = 0; i < p.segment; i += tile) {
        const u32 first = begin + i;
        float v[N], sum = 0.0f, around = 0.0f;
        load_tile<V>(v, x, team, first, end);
        const float here = first < end ? (float)min(tile, end - first) : 0.0f;
#pragma unroll
        for (int k = 0; k < N; k++) sum += v[k];
        const float center = team.reduce(sum, Add()) / fmaxf(here, 1.0f);
#pragma unroll
        for (int k = 0; k < N; k++) {
            const float d = v[k] - center;
            if (team.column<V>(first, k / V * V) < end) around += d * d;
        }
        around = team.reduce(around, Add());
        if (here == 0.0f) continue;
        const float both = count + here, away = center - mean;
        mean += away * (here / both);
        squares += around + away * away * (count * (here / both));
        count = both;
    }
    if (end == 0 || team.lane != 0) return;
    p.moments[2 * team.index] = mean;
    p.moments[2 * team.index + 1] = squares;
}

template <int V, int N, class T>
DEVICE void group_norm(const GroupNorm &p) {
    const Team team(p.lanes);
    const u32 group = team.index / p.tiles;
    const u32 first = team.index % p.tiles * p.lanes * N, end = group < p.groups ? p.len : 0;
    float v[N];
    load_tile<V>(v, static_cast<const T *>(p.x) + (u64)group * p.len, team, first, end);

    const float *moments = p.moments + 2 * (u64)group * p.segments;
    const u32 segments = group < p.groups ? p.segments : 0;
    auto count = [&](u32 s) { return (float)min(p.segment, p.len - s * p.segment); };
    float mean = 0.0f, squares = 0.0f;
    for (u32 s = team.lane; s < segments; s += p.lanes) mean += count(s) * moments[2 * s];
    mean = team.reduce(mean, Add()) / (float)p.len;
    for (u32 s = team.lane; s < segments; s += p.lanes) {
        const float away = moments[2 * s] - mean;
        squares += moments[2 * s + 1] + count(s) * away * away;
    }
    const float inverse = 1.0f / sqrtf(team.reduce(squares, Add()) / (float)p.len + p.eps);

    // Where V is more than 1, parts do not cross channels.
    const u64 element = (u64)group * p.len;
#pragma unroll
    for (int i = 0; i < N; i += V) {
        const u32 c = team.column<V>(first, i);
        if (c >= end) continue;
        float scale = inverse, shift = 0.0f;
        if (p.weight) {
            const u32 channel = (u32)((element + c) / p.inner % p.channels);
            scale *= p.weight[channel];
            shift = p.bias[channel];
        }
#pragma unroll
        for (int j = 0; j < V; j++) {
            float y = (v[i + j] - mean) * scale + shift;
            if (p.silu) y /= 1.0f + expf(-y);
            v[i + j] = y;
        }
    }
    store_tile_any<V>(p.out, element, p.out_dtype, team, first, end, v);
}

#define GROUP_NORM(T, NAME, MOMENTS) \
    KERNEL(256) MOMENTS(GroupNorm p) { moments<PER_VECTOR<T>, HELD, T>(p); } \
    KERNEL(256) NAME(GroupNorm p) { group_norm<PER_VECTOR<T>, HELD, T>(p); }
GROUP_NORM(float, group_norm_f32__sm80, group_norm_moments_f32)
GROUP_NORM(bf16, group_norm_bf16__sm80, group_norm_moments_bf16)
GROUP_NORM(f16, group_norm_f16__sm80, group_norm_moments_f16)

KERNEL(256) group_norm_moments_any(GroupNorm p) {
    with_float(p.dtype, [&](auto zero) { moments<1, HELD_SINGLE, decltype(zero)>(p); });
}
KERNEL(256) group_norm_any(GroupNorm p) {
    with_float(p.dtype, [&](auto zero) { group_norm<1, HELD_SINGLE, decltype(zero)>(p); });
}
