// Convolutions with few rows in a group, depthwise ones among them, computed straight from lines of x in shared memory.
//
// Algorithm: a block of 128 threads owns a piece of a plane of positions (`lines` lines of `along` positions, at most 512), up to
// R rows of a group, and the channels of a split. For each channel and each plane of the window it brings the lines that its
// positions see to shared memory, padding and all, and the weights. A thread computes four positions of a line. Where positions
// are as far from each other as taps (`slides`), what a tap sees is what the tap before saw one position further: the four
// positions lie together, and a thread reads each point once for four taps. Else they lie a line's threads apart, so that
// neighbouring threads read neighbours.
//
// Tunables: R = 1, 4. Budget: up to 80 registers; the lines and the weights in dynamic shared memory, up to 32 KiB where one line of
// positions needs no more. Bound: memory for depthwise kernels up to about 7x7; else shared memory, 2 vectors for 16 multiply-adds.
#pragma once
#include "common/convolution.cuh"

constexpr int DIRECT_THREADS = 128;

// As `Product::direct` passes it. Lines and points in shared memory are `line_every` and `point_every` of x apart; from one
// position to the next there are `line_step` and `point_step` of them, from one tap to the next `line_tap` and `point_tap`.
struct Pieces {
    u32 along, lines, quads;   // positions of a line, lines, threads of a line
    u32 along_blocks, line_blocks;
    u32 slots, pitch;  // lines in shared memory, points of each
    i32 line_every, point_every;
    u32 line_step, line_tap, point_step, point_tap;
    u32 weight_pitch, slides;
};

// What `count` taps (at most four) of four neighbouring positions add; the positions' points are those of a, then b.
DEVICE void four_taps(float (&acc)[4], const float (&w)[4], const float (&a)[4], const float (&b)[4], u32 count) {
    const float seen[8] = {a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]};
#pragma unroll
    for (u32 t = 0; t < 4; t++)
        if (t < count)
#pragma unroll
            for (int j = 0; j < 4; j++) acc[j] = fmaf(w[t], seen[t + j], acc[j]);
}

// The share of a block: a piece of a plane, rows, a group, a sample, channels.
struct Piece {
    u32 first, first_line, plane;  // positions
    u32 along, lines;              // of them
    u32 first_row, group, sample, part;

    DEVICE Piece(const Product &p, const Pieces &q, u32 rows_each) {
        u32 index = blockIdx.x;
        first = index % q.along_blocks * q.along;
        index /= q.along_blocks;
        first_line = index % q.line_blocks * q.lines;
        index /= q.line_blocks;
        plane = index % p.positions[0].by;
        index /= p.positions[0].by;
        first_row = index % p.row_blocks * rows_each;
        index /= p.row_blocks;
        group = index % p.groups;
        index /= p.groups;
        const u32 batch = p.cols / p.all_positions;
        sample = index % batch;
        part = index / batch;
        along = min(q.along, p.positions[2].by - first);
        lines = min(q.lines, p.positions[1].by - first_line);
    }
};

// Leaves the sums in shared memory, [R, lines, 4 * quads].
template <int R, class T, class Lhs>
DEVICE void sum_piece(const Product &p, const Pieces &q, const Piece &piece, const Lhs &lhs, float *points) {
    float *weights = points + q.slots * q.pitch;
    const u32 tid = threadIdx.x, line = tid / q.quads, quad = tid % q.quads;
    const u32 rows_apart = p.taps[1].by * q.weight_pitch;
    const i32 d0 = (i32)piece.plane * p.stride[0] - p.before[0];
    const i32 h0 = (i32)piece.first_line * p.stride[1] - p.before[1], w0 = (i32)piece.first * p.stride[2] - p.before[2];
    const T *x =
        static_cast<const T *>(p.x) + piece.sample * p.x_sample + (u64)(piece.group * p.channels) * p.x_strides[0];
    float acc[R][4] = {};

    const u32 end = min((piece.part + 1) * p.split_depth, p.channels);
#pragma unroll 1
    for (u32 c = piece.part * p.split_depth; c < end; c++) {
#pragma unroll 1
        for (u32 t = 0; t < p.taps[0].by; t++) {
            const u32 d = source(d0 + (i32)t * p.dilation[0], p.size[0], p.padding);
            if (d >= p.size[0]) continue;
            __syncthreads();
            const T *from = x + (u64)c * p.x_strides[0] + (u64)d * p.x_strides[1];
            for (u32 slot = tid / 32; slot < q.slots; slot += DIRECT_THREADS / 32) {
                const u32 h = source(h0 + (i32)slot * q.line_every, p.size[1], p.padding);
#pragma unroll 4
                for (u32 i = tid % 32; i < q.pitch; i += 32) {
                    const u32 w = source(w0 + (i32)i * q.point_every, p.size[2], p.padding);
                    const bool there = h < p.size[1] && w < p.size[2];
                    points[slot * q.pitch + i] = there ? value(from[(u64)h * p.x_strides[2] + w]) : 0.0f;
                }
            }
            for (u32 i = tid; i < R * rows_apart; i += DIRECT_THREADS) {
                const u32 w = i % q.weight_pitch, h = i / q.weight_pitch % p.taps[1].by, row = piece.first_row + i / rows_apart;
                const u32 step = ((c * p.taps[0].by + t) * p.taps[1].by + h) * p.taps[2].by + w;
                i64 place;
                const bool there =
                    w < p.taps[2].by && row < p.rows && lhs.find(lhs.line(row), lhs.step(step), place);
                weights[i] = there ? load_any(lhs.base, place, lhs.dtype) : 0.0f;
            }
            __syncthreads();
            if (line >= q.lines) continue;
#pragma unroll 1
            for (u32 h = 0; h < p.taps[1].by; h++) {
                const float *seen = points + (line * q.line_step + h * q.line_tap) * q.pitch;
                const float *factors = weights + h * q.weight_pitch;
                if (q.slides) {
                    float a[4], b[4], w[4];
                    load_values<float, 4>(a, seen + quad * 4);
#pragma unroll 1
                    for (u32 k = 0; k < p.taps[2].by; k += 4) {
                        load_values<float, 4>(b, seen + quad * 4 + k + 4);
#pragma unroll
                        for (int r = 0; r < R; r++) {
                            load_values<float, 4>(w, factors + r * rows_apart + k);
                            four_taps(acc[r], w, a, b, p.taps[2].by - k);
                        }
#pragma unroll
                        for (int j = 0; j < 4; j++) a[j] = b[j];
                    }
                } else {
#pragma unroll 1
                    for (u32 k = 0; k < p.taps[2].by; k++) {
#pragma unroll
                        for (int j = 0; j < 4; j++) {
                            const float v = seen[(quad + j * q.quads) * q.point_step + k * q.point_tap];
#pragma unroll
                            for (int r = 0; r < R; r++) acc[r][j] = fmaf(factors[r * rows_apart + k], v, acc[r][j]);
                        }
                    }
                }
            }
        }
    }
    __syncthreads();
    if (line >= q.lines) return;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            points[(r * q.lines + line) * q.quads * 4 + (q.slides ? quad * 4 + j : quad + j * q.quads)] = acc[r][j];
}

template <class T, class Op>
DEVICE void direct(const Product &p, const Pieces &q, const Op &op) {
    extern __shared__ float4 shared[];
    float *points = reinterpret_cast<float *>(shared);
    const u32 rows_each = p.rows == 1 ? 1 : 4;
    const Piece piece(p, q, rows_each);
    if (rows_each == 1) sum_piece<1, T>(p, q, piece, op.lhs(piece.group), points);
    else sum_piece<4, T>(p, q, piece, op.lhs(piece.group), points);
    __syncthreads();

    const auto out = op.out(piece.group);
    const u32 base = piece.sample * p.all_positions.by +
                     (piece.plane * p.positions[1].by + piece.first_line) * p.positions[2].by + piece.first;
#pragma unroll 1
    for (u32 i = threadIdx.x; i < rows_each * q.lines * q.quads; i += DIRECT_THREADS) {
        const u32 k = i % q.quads * 4, line = i / q.quads % q.lines, row = piece.first_row + i / q.quads / q.lines;
        if (row >= p.rows || line >= piece.lines || k >= piece.along) continue;
        leave(p, out, piece.part, row, base + line * p.positions[2].by + k, min(4u, piece.along - k), points + i * 4);
    }
}
