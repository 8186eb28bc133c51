// Points added around the last three dimensions, and the reverse: what was added summed into where it came from.
//
// Operands: x [outer, depth, height, width] at any distances; out contiguous, of one dtype. One of them has the padded
// extents, to fold x.
//
// Algorithm: a group of lanes, a warp or fewer where rows are short, takes a stretch of a row of the result: plane and
// height are found once for all, and lanes are neighbours in the row. To pad, an element is one of x or zero, and eight of
// a lane are under way. To fold, it is the sum of all places where its point stands, which are few along each axis and
// found by the padding's rule, always in the same order.
//
// Budget: at most 48 registers, no shared memory. Bound: memory, one read and one write.
#include "common/walk.cuh"

// The places in `Padding::ALL`.
enum : u32 { ZEROS, REFLECT, REPLICATE, CIRCULAR };

constexpr u32 IN_ROW = 8; // elements of a lane
constexpr u32 NOWHERE = 0xffffffffu;

struct Pad {
    u64 x_strides[4];
    u32 size[3], before[3], padded[3];
    u32 padding, bytes; // of an element
    u32 lanes, stretches; // lanes of a group, and groups of the launch
    Divisor along, rows, planes; // groups of a row of the result, its rows and planes
};

// The point that stands at a padded place; one beyond the axis for none.
DEVICE u32 source(const Pad &p, u32 axis, u32 place) {
    const i32 at = (i32)(place - p.before[axis]), size = p.size[axis];
    switch (p.padding) {
        case ZEROS: return at;
        case REFLECT: return at < 0 ? -at : at >= size ? 2 * (size - 1) - at : at;
        case REPLICATE: return min(max(at, 0), size - 1);
        default: return at < 0 ? at + size : at >= size ? at - size : at;
    }
}

// How many places a point may stand at, and each of them; one beyond the padded axis for none.
DEVICE u32 standing(const Pad &p, u32 axis, u32 point) {
    switch (p.padding) {
        case ZEROS: return 1;
        case REPLICATE:
            return 1 + (point == 0 ? p.before[axis] : 0) +
                   (point == p.size[axis] - 1 ? p.padded[axis] - p.before[axis] - p.size[axis] : 0);
        default: return 3;
    }
}
DEVICE u32 place_of(const Pad &p, u32 axis, u32 point, u32 k) {
    const u32 here = p.before[axis] + point, size = p.size[axis];
    switch (p.padding) {
        case ZEROS: return here;
        case REPLICATE: return k + (point == 0 ? 0 : here);
        case REFLECT:
            if (k == 0) return here;
            if (k == 1) return point > 0 ? p.before[axis] - point : NOWHERE;
            return point < size - 1 ? p.before[axis] + 2 * (size - 1) - point : NOWHERE;
        default: return k == 0 ? here - size : here + (k - 1) * size;
    }
}

// What a group's lane has of the result: elements `lanes` apart, from `first` to the row's end.
struct Stretch {
    u32 outer, plane, row, first;
    u64 at; // where the row begins in the result
};
DEVICE bool find(Stretch &s, const Pad &p, u32 width) {
    const u32 thread = blockIdx.x * WALKERS + threadIdx.x, group = thread / p.lanes;
    if (group >= p.stretches) return false;
    u32 along = group;
    s.row = split(along, p.along);
    s.first = along * p.lanes * IN_ROW + thread % p.lanes;
    s.at = (u64)s.row * width;
    s.plane = split(s.row, p.rows);
    s.outer = split(s.plane, p.planes);
    return true;
}

template <class T>
DEVICE void pad(const T *x, T *out, const Pad &p) {
    Stretch s;
    if (!find(s, p, p.padded[2])) return;
    const u32 z = source(p, 0, s.plane), y = source(p, 1, s.row);
    const bool exists = z < p.size[0] && y < p.size[1];
    x += s.outer * p.x_strides[0] + z * p.x_strides[1] + y * p.x_strides[2];
    T v[IN_ROW];
#pragma unroll
    for (u32 k = 0; k < IN_ROW; k++) {
        const u32 place = s.first + k * p.lanes, point = source(p, 2, place);
        v[k] = exists && place < p.padded[2] && point < p.size[2] ? x[point * p.x_strides[3]] : T(0);
    }
#pragma unroll
    for (u32 k = 0; k < IN_ROW; k++) {
        const u32 place = s.first + k * p.lanes;
        if (place < p.padded[2]) out[s.at + place] = v[k];
    }
}

KERNEL(WALKERS) pad_any__sm80(const void *x, void *out, const Pad p) {
    if (p.bytes == 4) {
        pad((const u32 *)x, (u32 *)out, p);
    } else {
        pad((const u16 *)x, (u16 *)out, p);
    }
}

KERNEL(WALKERS) pad_fold_f32__sm80(const float *x, float *out, const Pad p) {
    Stretch s;
    if (!find(s, p, p.size[2])) return;
    x += s.outer * p.x_strides[0];
    const u32 planes = standing(p, 0, s.plane), rows = standing(p, 1, s.row);
#pragma unroll 1
    for (u32 place = s.first, k = 0; k < IN_ROW && place < p.size[2]; k++, place += p.lanes) {
        const u32 points = standing(p, 2, place);
        float sum = 0.0f;
        // Counts on like a clock: places along the axis, then along the height, then along the depth.
        for (u32 a = 0, b = 0, c = 0; a < planes;) {
            const u32 z = place_of(p, 0, s.plane, a), y = place_of(p, 1, s.row, b), at = place_of(p, 2, place, c);
            if (z < p.padded[0] && y < p.padded[1] && at < p.padded[2]) {
                sum += x[z * p.x_strides[1] + y * p.x_strides[2] + at * p.x_strides[3]];
            }
            c++;
            b += c == points;
            c = c == points ? 0 : c;
            a += b == rows;
            b = b == rows ? 0 : b;
        }
        out[s.at + place] = sum;
    }
}
