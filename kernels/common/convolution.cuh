// What convolutions share: parameters, index arithmetic and the results' way out.
//
// A convolution is a product of matrices that are nowhere stored: of the weight, and of x as its window sees it, with columns
// (positions of all samples) and steps (channels of x with all taps of the window). Where an element of x stands is the sum
// of two places, the column's and the step's, each of points along depth, height and width and of a distance in elements for
// the sample and the channel. So is the place of an element of the other factor and of the result; what the components mean
// there is the op's.
//
// An op gives three structures, each of the group of a block:
//   lhs, rhs   Place line(u32 i), Place step(u32 k), bool find(line, step, i64 &at): the element at row or column i and step k,
//              or that it is zero; `base`, `dtype`; ALONG_DEPTH: whether steps, not lines, lie together in memory. If lines do,
//              Held hold(u32 i), Listed list(u32 k), find<MASKED>(held, listed, at) are the same with a line in registers, and
//              bool is_masked() says which
//   out        Place line(u32 row), Place column(u32 col), bool find(line, column, i64 &at); u32 channel(u32 row)
#pragma once
#include "common/activation.cuh"
#include "common/divide.cuh"

// Places in `ops::convolution::Padding`.
enum : u32 { ZEROS, REFLECT, REPLICATE, CIRCULAR };

// As `Product::pass` passes it. Axes are depth, height, width.
struct Product {
    const void *x, *factor;
    const float *bias;  // [channels of out] or null
    void *out;
    float *partial;  // sums of each split, one result behind the other; null where there is one split
    u64 x_sample;    // from a sample of x to the next one
    u64 total;       // elements of the result
    u32 x_strides[3];  // from a channel, a plane and a line of x to the next one
    u32 size[3];       // points of x
    // Position o reads the points o * stride + tap * dilation - before.
    i32 stride[3], dilation[3], before[3];
    Divisor positions[3], all_positions, taps[3], all_taps;
    // Channels of x and rows of the product are those of a group, columns those of all samples.
    u32 padding, channels, groups, rows, cols, depth;
    // Into how many blocks rows and columns are cut; steps (or channels, or lines of positions) of a split.
    u32 row_blocks, col_blocks, split_depth;
    u32 x_dtype, factor_dtype, out_dtype, activation;
    u32 out_vectors;   // whether four neighbours from a multiple of four on can be written at once
    u32 factor_pitch;  // from a row of a packed factor to the next one
};

struct Place {
    i64 at;
    i32 d, h, w;
};
// A place of 16 bytes, in shared memory. None: at < 0.
struct alignas(16) Listed {
    i32 at, d, h, w;
};
DEVICE Listed listed(const Place &p) { return {(i32)p.at, p.d, p.h, p.w}; }
DEVICE Place placed(const Listed &p) { return {p.at, p.d, p.h, p.w}; }
DEVICE Listed nowhere() { return {-1, 0, 0, 0}; }

// Where number i of a box stands along its axes.
DEVICE void unravel(u32 i, const Divisor (&box)[3], i32 &d, i32 &h, i32 &w) {
    u32 rest = i;
    u32 line = split(rest, box[2]);
    w = rest;
    d = split(line, box[1]);
    h = line;
}

// The point of an axis whose value stands at a place, up to an extent before the first and after the last; one that is not below
// `size` where that is zero. No branches: beyond the ends it is at * sign + low or high, numbers that all threads share.
DEVICE u32 source(i32 at, i32 size, u32 padding) {
    const i32 sign = padding == REPLICATE ? 0 : padding == REFLECT ? -1 : 1;
    const i32 low = padding == CIRCULAR ? size : 0;
    const i32 high = padding == ZEROS ? 0 : padding == CIRCULAR ? -size : padding == REFLECT ? 2 * (size - 1) : size - 1;
    return (u32)at < (u32)size ? at : at * sign + (at < 0 ? low : high);
}

// x as its window sees it.
struct Seen {
    const Product &p;
    u32 group;

    DEVICE Place position(u32 n) const {
        Place o;
        const u32 sample = split(n, p.all_positions);
        unravel(n, p.positions, o.d, o.h, o.w);
        o.d = o.d * p.stride[0] - p.before[0];
        o.h = o.h * p.stride[1] - p.before[1];
        o.w = o.w * p.stride[2] - p.before[2];
        o.at = sample * p.x_sample + (u64)(group * p.channels) * p.x_strides[0];
        return o;
    }
    // Of channel and tap, numbered together.
    DEVICE Place tap(u32 n) const {
        Place t;
        t.at = (u64)split(n, p.all_taps) * p.x_strides[0];
        unravel(n, p.taps, t.d, t.h, t.w);
        t.d *= p.dilation[0];
        t.h *= p.dilation[1];
        t.w *= p.dilation[2];
        return t;
    }
    // A sample reaches over less than 2^29 elements.
    DEVICE i32 linear(u32 d, u32 h, u32 w) const { return (i32)(d * p.x_strides[1] + h * p.x_strides[2] + w); }
    DEVICE bool find(const Place &a, const Place &b, i64 &at) const {
        const u32 d = source(a.d + b.d, p.size[0], p.padding), h = source(a.h + b.h, p.size[1], p.padding);
        const u32 w = source(a.w + b.w, p.size[2], p.padding);
        at = a.at + b.at + linear(d, h, w);
        return (d < p.size[0]) & (h < p.size[1]) & (w < p.size[2]);  // without branches
    }
};

// x [batch, channels, depth, height, width], with contiguous lines at any distance, as the right side of a product. Where the
// padding is zeros and a window has at most 32 taps, which of them see a point is one word for each column, computed once:
// then a column's place is where its first tap would be, and `d` of a step is the tap's bit.
struct Window {
    static constexpr bool ALONG_DEPTH = false;
    const void *base;
    u32 dtype;
    Seen seen;

    struct Held {
        Place place;
        u32 mask;
    };
    DEVICE bool is_masked() const { return seen.p.padding == ZEROS && seen.p.all_taps.by <= 32; }
    DEVICE Held hold(u32 col) const {
        Held held = {seen.position(col), 0};
        Place &o = held.place;
        if (!is_masked()) return held;
        for (u32 t = 0; t < seen.p.all_taps.by; t++) {
            i64 at;
            held.mask |= (u32)seen.find(o, seen.tap(t), at) << t;
        }
        o.at += seen.linear(o.d, o.h, o.w);
        return held;
    }
    DEVICE Listed list(u32 k) const {
        const Place s = seen.tap(k);
        if (!is_masked()) return listed(s);
        return {(i32)s.at + seen.linear(s.d, s.h, s.w), 1 << (k - k / seen.p.all_taps * seen.p.all_taps.by), 0, 0};
    }
    template <bool MASKED>
    DEVICE bool find(const Held &col, const Listed &step, i64 &at) const {
        if constexpr (!MASKED) return seen.find(col.place, placed(step), at) & (step.at >= 0);
        at = col.place.at + step.at;
        return col.mask & step.d;
    }
};

// What a block computes: numbers of row blocks run first, so that blocks that follow one another share columns of x.
struct Share {
    u32 row_block, group, col_block, part;

    DEVICE explicit Share(const Product &p) {
        u32 index = blockIdx.x;
        row_block = index % p.row_blocks;
        index /= p.row_blocks;
        group = index % p.groups;
        index /= p.groups;
        col_block = index % p.col_blocks;
        part = index / p.col_blocks;
    }
};

DEVICE void store_4(void *to, u64 place, u32 dtype, const float (&x)[4]) {
    switch (dtype) {
        case F32: return store_values<float, 4>(static_cast<float *>(to) + place, x);
        case F16: return store_values<f16, 4>(static_cast<f16 *>(to) + place, x);
        default: return store_values<bf16, 4>(static_cast<bf16 *>(to) + place, x);
    }
}

// `count` (1 to 4) neighbouring sums of a row, in shared memory at a multiple of 16 bytes, on their way out. They are
// overwritten by the results. Neighbouring threads have neighbouring ones.
template <class Out>
DEVICE void leave(const Product &p, const Out &out, u32 part, u32 row, u32 col, u32 count, float *sums) {
    const Place line = out.line(row);
    void *to = p.partial ? p.partial + part * p.total : p.out;
    const u32 dtype = p.partial ? (u32)F32 : p.out_dtype;
    const bool vectors = p.out_vectors && count == 4 && col % 4 == 0;
    const float bias = p.bias && !p.partial ? p.bias[out.channel(row)] : 0.0f;
    i64 place;
    // Threads whose sums lie in the same banks begin with different ones.
#pragma unroll 1
    for (u32 i = 0; i < 4; i++) {
        const u32 j = (i + threadIdx.x / 8) % 4;
        if (j >= count) continue;
        const float v = p.partial ? sums[j] : activate(p.activation, sums[j] + bias);
        if (vectors) sums[j] = v;
        else if (out.find(line, out.column(col + j), place)) store_any(to, place, dtype, v);
    }
    if (!vectors || !out.find(line, out.column(col), place)) return;
    float v[4];
    load_values<float, 4>(v, sums);
    store_4(to, place, dtype, v);
}

// A tile of 64 rows by 128 columns of sums, in shared memory, on its way out. The pitch keeps the stores of sums by
// neighbouring rows in different banks.
constexpr int LEAVE_ROWS = 64, LEAVE_COLS = 128, LEAVE_PITCH = LEAVE_COLS + 8;
template <class Out>
DEVICE void leave_tile(const Product &p, const Out &out, u32 part, u32 first_row, u32 first_col, float *tile) {
#pragma unroll 1
    for (u32 i = threadIdx.x; i < LEAVE_ROWS * LEAVE_COLS / 4; i += blockDim.x) {
        const u32 r = i / (LEAVE_COLS / 4), c = i % (LEAVE_COLS / 4) * 4;
        const u32 row = first_row + r, col = first_col + c;
        if (row < p.rows && col < p.cols) leave(p, out, part, row, col, min(4u, p.cols - col), tile + r * LEAVE_PITCH + c);
    }
}
