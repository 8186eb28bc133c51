// The gradient of row normalisations: with respect to their rows, and the sums over rows for weight, bias, scale and shift.
//
// Operands: x [rows, cols] of any float dtype, dout and dsum [rows, cols] and scale [groups, cols] f32 with contiguous rows at
// any distance; weight [cols] f32; dx [rows, cols], products and sums [groups, cols] f32, contiguous. Workspace, f32: mean
// and 1/deviation of each row, then [2, groups, segments, cols] partial products and sums.
//
// Algorithm, for a row: the mean; Σ(x - mean)², Σ h and Σ h·(x - mean) with h = dout·gain, reduced together; dx.
// `norm_bwd_<dtype>`: a team goes over a segment of the rows of a group, holds a row in registers and adds its dout·x̂ and
// dout to those of the rows before, which stay in registers, too: all is read once.
// Where rows are longer than a tile or not aligned, `norm_bwd_rows` leaves the statistics of each row in the workspace, and
// `norm_bwd_columns` reads x and dout again. In both cases `norm_bwd_join` adds up what segments gave, in their order.
//
// Tunables: those of `common/rows.cuh`, with 512 threads at most: rows of 8192 values stay in registers.
// Budget: 384 bytes of shared memory, 128 registers: 512 threads on a multiprocessor, with 48 KiB (f32: 64) under way.
// Bound: bytes, two reads and one write.
#include "common/columns.cuh"
#include "common/rows.cuh"

struct NormBwd {
    const void *x;
    const float *dout, *weight, *scale, *dsum;
    float *dx, *statistics, *partial;
    u32 rows, cols, groups, x_stride, dout_stride, scale_stride, dsum_stride, lanes;
    float eps;
    u32 dtype, centred, products, sums;
    // Rows of a segment, and segments of a group.
    u32 segment, segments, group_rows;
};

// One row of a group, of which `cols` columns are there (all or none). each(i, dout, x̂) is called for the values of a tile, i
// the number of the value among the thread's; returned are the mean and 1/deviation.
template <int V, int N, class T, class Each>
DEVICE float2 row_gradient(const NormBwd &p, const Team &team, u32 group, u64 row, u32 cols, Each each) {
    float x[N], dout[N];
    const Tiles tiles(cols, p.lanes * N, [&](u32 first) {
        load_tile<V>(x, static_cast<const T *>(p.x) + row * p.x_stride, team, first, cols);
        load_tile<V>(dout, p.dout + row * p.dout_stride, team, first, cols);
    });
    const float *scale = p.scale ? p.scale + (u64)group * p.scale_stride : nullptr;
    // What the values of a tile were multiplied by.
    auto gains = [&](float (&gain)[N], u32 first) {
#pragma unroll
        for (int i = 0; i < N; i++) gain[i] = 1.0f;
        if (p.weight) load_tile<V>(gain, p.weight, team, first, cols);
        if (!scale) return;
        float s[N];
        load_tile<V>(s, scale, team, first, cols);
#pragma unroll
        for (int i = 0; i < N; i++) gain[i] *= 1.0f + s[i];
    };
    const float count = (float)p.cols;
    float mean = 0.0f;
    if (p.centred) {
        tiles.each([&](u32) {
#pragma unroll
            for (int i = 0; i < N; i++) mean += x[i];
        });
        mean = team.reduce(mean, Add()) / count;
    }
    // Of squares, h·(x - mean) and h.
    float all[3] = {0.0f, 0.0f, 0.0f};
    tiles.each([&](u32 first) {
        float gain[N];
        gains(gain, first);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const bool there = team.column<V>(first, i / V * V) < cols;
            const float away = there ? x[i] - mean : 0.0f, h = dout[i] * gain[i];
            all[0] += away * away;
            all[1] += h * away;
            all[2] += h;
        }
    });
    team.reduce(all, Add());
    const float inverse = 1.0f / sqrtf(all[0] / count + p.eps);
    const float along = all[1] / count * inverse, h_mean = p.centred ? all[2] / count : 0.0f;
    tiles.each([&](u32 first) {
        float dx[N];
        gains(dx, first);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float normed = (x[i] - mean) * inverse;
            each(i, dout[i], normed);
            dx[i] = (dout[i] * dx[i] - h_mean - normed * along) * inverse;
        }
        if (p.dsum) {
            float dsum[N];
            load_tile<V>(dsum, p.dsum + row * p.dsum_stride, team, first, cols);
#pragma unroll
            for (int i = 0; i < N; i++) dx[i] += dsum[i];
        }
        store_tile<V>(p.dx + row * p.cols, team, first, cols, dx);
    });
    return {mean, inverse};
}

template <class T>
DEVICE void norm_bwd(const NormBwd &p) {
    constexpr int V = PER_VECTOR<T>, N = HELD;
    const Team team(p.lanes);
    const u32 group = team.index / p.segments;
    float products[N], sums[N];
#pragma unroll
    for (int i = 0; i < N; i++) products[i] = sums[i] = 0.0f;
    // All teams of a warp reduce the same number of times, those with fewer rows nothing.
    for (u32 r = 0; r < p.segment; r++) {
        const u32 in_group = team.index % p.segments * p.segment + r;
        const u32 cols = group < p.groups && in_group < p.group_rows ? p.cols : 0;
        const u64 row = (u64)group * p.group_rows + in_group;
        // Rows that do not fit are not given to this kernel.
        __builtin_assume(cols <= p.lanes * N);
        row_gradient<V, N, T>(p, team, group, row, cols, [&](int i, float dout, float normed) {
            products[i] += dout * normed;
            sums[i] += dout;
        });
    }
    if (group >= p.groups) return;
    float *partial = p.partial + (u64)team.index * p.cols;
    if (p.products) store_tile<V>(partial, team, 0, p.cols, products);
    if (p.sums) store_tile<V>(partial + (u64)p.groups * p.segments * p.cols, team, 0, p.cols, sums);
}

#define NORM_BWD(T, NAME) \
    KERNEL(512) NAME(NormBwd p) { norm_bwd<T>(p); }
NORM_BWD(float, norm_bwd_f32__sm80)
NORM_BWD(bf16, norm_bwd_bf16__sm80)
NORM_BWD(f16, norm_bwd_f16__sm80)

KERNEL(512) norm_bwd_rows(NormBwd p) {
    const Team team(p.lanes);
    const u32 row = team.index, cols = row < p.rows ? p.cols : 0, group = row / p.group_rows;
    with_float(p.dtype, [&](auto zero) {
        auto nothing = [](int, float, float) {};
        const float2 found = row_gradient<1, HELD_SINGLE, decltype(zero)>(p, team, group, row, cols, nothing);
        if (cols == 0 || team.lane != 0 || !p.statistics) return;
        p.statistics[2 * (u64)row] = found.x;
        p.statistics[2 * (u64)row + 1] = found.y;
    });
}

// Partial products (the first half of `outer`) and sums of one column for each thread.
KERNEL(256) norm_bwd_columns(NormBwd p, Columns c) {
    auto load = [&](float (&v)[1], u32 o, u32 j, u32 column, bool there) {
        const bool sums = o >= p.groups;
        const u64 row = (u64)(sums ? o - p.groups : o) * c.len + j;
        load_values_if(v, there, p.dout + row * p.dout_stride + column);
        if (sums || !there) return;
        const float x = load_any(p.x, row * p.x_stride + column, p.dtype);
        v[0] *= (x - p.statistics[2 * row]) * p.statistics[2 * row + 1];
    };
    auto give = [&](u32 o, u32 segment, u32 column, const float (&all)[1]) {
        p.partial[((u64)o * c.segments + segment) * c.inner + column] = all[0];
    };
    reduce_columns<1>(c, 0.0f, load, Add(), Add(), give);
}

// Products or sums, either of which may not be wanted, from partial ones.
template <int V>
DEVICE void norm_bwd_join(const float *partial, float *products, float *sums, const Columns &c) {
    auto load = [&](float (&v)[V], u32 o, u32 j, u32 column, bool there) {
        load_values_if(v, there, partial + ((u64)o * c.len + j) * c.inner + column);
    };
    auto give = [&](u32 o, u32, u32 column, const float (&all)[V]) {
        float *to = o < c.outer / 2 ? products + (u64)o * c.inner : sums + (u64)(o - c.outer / 2) * c.inner;
        store_values(to + column, all);
    };
    const bool second = blockIdx.x >= gridDim.x / 2;
    if (second ? sums != nullptr : products != nullptr) reduce_columns<V>(c, 0.0f, load, Add(), Add(), give);
}
KERNEL(256) norm_bwd_join_4(const float *partial, float *products, float *sums, Columns c) {
    norm_bwd_join<4>(partial, products, sums, c);
}
KERNEL(256) norm_bwd_join_1(const float *partial, float *products, float *sums, Columns c) {
    norm_bwd_join<1>(partial, products, sums, c);
}
