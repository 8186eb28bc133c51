// Gradients of convolutions' weights: weight[r, c, t] = sum over b, o of grad[b, r, o] * x[b, c, o * stride + t * dilation -
// before].
//
// Operands, all f32: x [batch, channels, depth, height, width] with contiguous lines at any distance; factor the gradient
// [batch, rows, positions], contiguous; out [rows, channels of a group, taps], contiguous.
//
// conv_bwd_weight_f32: the product's rows are the gradient's, its columns channels of x with their taps, its steps positions of
// all samples: what is a column and what a step of x is the other way round than in a convolution. Long sums over few weights
// are split. common/convolution_tiled.cuh has the algorithm, its tunables and its budget.
//
// conv_bwd_weight_f32_direct, for few rows in a group, depthwise ones among them: a block of 128 threads owns up to 8 taps of a
// line of taps of one row and one channel, and some lines of positions of all samples (a split). A thread takes four neighbouring
// positions at a time: it reads their gradients once and the points that all taps see there, each once where positions are as
// far from each other as taps (`slides`), and keeps a sum for each tap. The block's sums are added in the same order always.
// Budget: 64 registers. Bound: loads from the cache, 15 for 32 multiply-adds: x and grad are read by the blocks of all lines of
// taps.

#include "common/convolution_tiled.cuh"
#include "common/reduce.cuh"

struct ConvBwdWeight {
    const Product &p;

    struct Lhs {
        static constexpr bool ALONG_DEPTH = true;
        using Held = Place;
        const void *base;
        u32 dtype;
        const Product &p;
        u32 first;
        DEVICE Place line(u32 row) const { return {(i64)(first + row) * p.all_positions.by, 0, 0, 0}; }
        DEVICE Place step(u32 k) const {
            const u32 sample = split(k, p.all_positions);
            return {(i64)sample * (p.groups * p.rows) * p.all_positions.by + k, 0, 0, 0};
        }
        DEVICE bool find(const Place &row, const Place &step, i64 &at) const {
            at = row.at + step.at;
            return true;
        }
    };
    DEVICE Lhs lhs(u32 group) const { return {p.factor, F32, p, group * p.rows}; }

    struct Rhs {
        static constexpr bool ALONG_DEPTH = true;
        using Held = Place;
        const void *base;
        u32 dtype;
        Seen seen;
        DEVICE Place line(u32 col) const { return seen.tap(col); }
        DEVICE Place step(u32 k) const { return seen.position(k); }
        DEVICE bool find(const Place &col, const Place &step, i64 &at) const { return seen.find(col, step, at); }
    };
    DEVICE Rhs rhs(u32 group) const { return {p.x, F32, {p, group}}; }

    struct Out {
        const Product &p;
        u32 first;
        DEVICE Place line(u32 row) const { return {(i64)(first + row) * p.cols, 0, 0, 0}; }
        DEVICE Place column(u32 col) const { return {col, 0, 0, 0}; }
        DEVICE bool find(const Place &row, const Place &col, i64 &at) const {
            at = row.at + col.at;
            return true;
        }
        DEVICE u32 channel(u32 row) const { return first + row; }
    };
    DEVICE Out out(u32 group) const { return {p, group * p.rows}; }
};

template <int BM>
DEVICE void conv_bwd_weight(const Product &p) {
    const Share share(p);
    const ConvBwdWeight op{p};
    tiled<BM, true>(p, share, op.lhs(share.group), op.rhs(share.group), op.out(share.group));
}
KERNEL_OF(256, 2) conv_bwd_weight_f32__sm80_m128n128(const Product p) { conv_bwd_weight<128>(p); }
KERNEL_OF(256, 2) conv_bwd_weight_f32__sm80_m64n128(const Product p) { conv_bwd_weight<64>(p); }

constexpr int TAPS = 8, THREADS = 128;

// Quads, of `quads` in a line, are numbered through all lines of positions.
KERNEL(THREADS) conv_bwd_weight_f32_direct__sm80(const Product p, const Divisor quads, const u32 slides) {
    __shared__ float sums[THREADS / 32][TAPS];
    // Parts of a line of taps, such lines, channels, rows, splits.
    u32 index = blockIdx.x;
    const u32 first = index % p.col_blocks * TAPS;
    index /= p.col_blocks;
    const u32 tap_lines = p.taps[0].by * p.taps[1].by, tap_line = index % tap_lines;
    index /= tap_lines;
    const u32 c = index % p.channels;
    index /= p.channels;
    const u32 row = index % (p.rows * p.groups), part = index / (p.rows * p.groups);

    const Seen seen{p, row / p.rows};
    const u32 count = min((u32)TAPS, p.taps[2].by - first);
    const Place tap = seen.tap((c * tap_lines + tap_line) * p.taps[2].by + first);
    const u32 lines = p.depth / p.positions[2], begin = part * p.split_depth, end = min(begin + p.split_depth, lines);
    const float *grad = static_cast<const float *>(p.factor), *x = static_cast<const float *>(p.x);
    float acc[TAPS] = {};
#pragma unroll 1
    for (u32 i = begin * quads.by + threadIdx.x; i < end * quads.by; i += THREADS) {
        u32 w = i;
        const u32 line = split(w, quads);
        w *= 4;
        const u32 few = min(4u, p.positions[2].by - w);
        u32 position = line * p.positions[2].by + w;
        const Place o = seen.position(position);
        const u32 d = source(o.d + tap.d, p.size[0], p.padding), h = source(o.h + tap.h, p.size[1], p.padding);
        if (d >= p.size[0] || h >= p.size[1]) continue;
        const float *from = x + o.at + tap.at + seen.linear(d, h, 0);
        const u32 sample = split(position, p.all_positions);
        const float *g_from = grad + ((u64)sample * (p.groups * p.rows) + row) * p.all_positions.by + position;
        float g[4];
#pragma unroll
        for (u32 j = 0; j < 4; j++) g[j] = j < few ? g_from[j] : 0.0f;
        // The point at a step from the first position's first tap.
        auto point = [&](i32 step, bool wanted) {
            const u32 at = source(o.w + tap.w + step, p.size[2], p.padding);
            return wanted && at < p.size[2] ? from[at] : 0.0f;
        };
        if (slides) {
            float v[TAPS + 3];
#pragma unroll
            for (u32 j = 0; j < TAPS + 3; j++) v[j] = point((i32)j * p.dilation[2], j < few + count - 1);
#pragma unroll
            for (int t = 0; t < TAPS; t++)
#pragma unroll
                for (int j = 0; j < 4; j++) acc[t] = fmaf(g[j], v[t + j], acc[t]);
        } else {
#pragma unroll
            for (u32 t = 0; t < TAPS; t++)
#pragma unroll
                for (u32 j = 0; j < 4; j++) {
                    const i32 step = (i32)t * p.dilation[2] + (i32)j * p.stride[2];
                    acc[t] = fmaf(g[j], point(step, t < count && j < few), acc[t]);
                }
        }
    }

#pragma unroll
    for (int t = 0; t < TAPS; t++) {
        const float sum = warp_reduce(acc[t], Add());
        if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32][t] = sum;
    }
    __syncthreads();
    const u32 t = threadIdx.x;
    if (t >= count) return;
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < THREADS / 32; warp++) sum += sums[warp][t];
    float *to = p.partial ? p.partial + part * p.total : static_cast<float *>(p.out);
    to[((u64)(row * p.channels + c) * tap_lines + tap_line) * p.taps[2].by + first + t] = sum;
}
