// Adding up rows by the numbers of those that they go to, without float atomics: the same bits every time.
//
// Operands: x [n, width] with contiguous rows at any distance; ids [n]; out [count, width] f32. Workspace, 4-byte words:
// for each row of out the last row of x that put itself into its list [count] and how many did [count], for each row of x
// the one before it in the list [n].
//
// Algorithm: `clear` empties the lists; in `link` every row of x puts itself into the list of its row of out, in whatever
// order. Then a block takes a row of out, each warp of it four columns per lane. A warp brings the members into order: up
// to 32 by ranking them against each other, longer lists by looking through all ids from the first on, 128 at a time, which
// happens for at most n/32 rows. Members are added up in the order of i, with the loads of four of them under way.
//
// Budget: at most 64 registers, 2560 bytes of shared memory. Bound: memory, one read of x and one write of out.
#include "common/walk.cuh"

constexpr u32 NONE = 0xffffffffu, LANES = 32, COLUMNS = 4;
constexpr u32 ALL_LANES = 0xffffffffu;
constexpr u32 LOOK = 4 * LANES; // ids that a warp looks at together

KERNEL(WALKERS) scatter_add_clear(u32 *last, u32 *members, u32 count) {
    const u32 r = blockIdx.x * WALKERS + threadIdx.x;
    if (r >= count) return;
    last[r] = NONE;
    members[r] = 0;
}

KERNEL(WALKERS) scatter_add_link(const u32 *ids, u32 *last, u32 *members, u32 *before, u32 n, u32 limit, Faults *faults,
                                 u32 fault_op) {
    const u32 i = blockIdx.x * WALKERS + threadIdx.x;
    if (i >= n) return;
    // A negative id reads as one above 2^31.
    const u32 id = ids[i];
    if (id >= limit) {
        fault(faults, fault_op, id, i, limit);
        return;
    }
    before[i] = atomicExch(&last[id], i);
    atomicAdd(&members[id], 1u);
}

// A lane's columns of a row of out: neighbours that are loaded at once, or a warp's width apart.
struct Lane {
    u32 column, step, width;
};

// Adds the rows of a list, in its order.
template <class T>
DEVICE void add(float (&sum)[COLUMNS], const T *x, u64 stride, const u32 *list, u32 size, const Lane &lane) {
    if (lane.step == 1) {
        // Lanes beyond the width add up the first columns.
        const u32 column = lane.column < lane.width ? lane.column : 0;
#pragma unroll 4
        for (u32 k = 0; k < size; k++) {
            const Vec<T, COLUMNS> v = load_vec<T, COLUMNS>(x + list[k] * stride + column);
#pragma unroll
            for (u32 c = 0; c < COLUMNS; c++) sum[c] += value(v.at[c]);
        }
    } else {
        for (u32 k = 0; k < size; k++) {
#pragma unroll
            for (u32 c = 0; c < COLUMNS; c++) {
                const u32 column = lane.column + c * lane.step;
                if (column < lane.width) sum[c] += value(x[list[k] * stride + column]);
            }
        }
    }
}

// The list of a row of at most 32 members: walked, and ordered by how many are smaller.
DEVICE void rank(u32 *list, u32 members, u32 last, const u32 *before) {
    const u32 lane = threadIdx.x % LANES;
    u32 mine = NONE, smaller = 0;
    for (u32 k = 0; k < members; k++) {
        mine = lane == k ? last : mine;
        last = before[last];
    }
    for (u32 k = 0; k < members; k++) smaller += __shfl_sync(ALL_LANES, mine, k) < mine;
    if (lane < members) list[smaller] = mine;
}

// Members among LOOK ids from `first` on, added to the list; its new size.
DEVICE u32 look(u32 *list, u32 size, const u32 *ids, u32 row, u32 first, u32 n) {
    const u32 lane = threadIdx.x % LANES;
    bool is_member[LOOK / LANES];
#pragma unroll
    for (u32 k = 0; k < LOOK / LANES; k++) {
        const u32 i = first + k * LANES + lane;
        is_member[k] = i < n && ids[i] == row;
    }
#pragma unroll
    for (u32 k = 0; k < LOOK / LANES; k++) {
        const u32 found = __ballot_sync(ALL_LANES, is_member[k]);
        if (is_member[k]) list[size + __popc(found & ((1u << lane) - 1))] = first + k * LANES + lane;
        size += __popc(found);
    }
    return size;
}

template <class T>
DEVICE void add_row(float (&sum)[COLUMNS], const T *x, u64 stride, const u32 *ids, u32 row, u32 last, u32 members,
                    const u32 *before, u32 n, u32 *list, const Lane &columns) {
    u32 first = members <= LANES ? n : 0;
    do {
        u32 size = 0;
        if (members <= LANES) {
            rank(list, members, last, before);
            size = members;
        }
        for (; first < n && size < LANES; first += LOOK) size = look(list, size, ids, row, first, n);
        __syncwarp();
        add(sum, x, stride, list, size, columns);
        __syncwarp();
    } while (first < n);
}

template <class T>
DEVICE void scatter_add(const T *x, const u32 *ids, float *out, const u32 *last, const u32 *members, const u32 *before,
                        u64 stride, u32 n, u32 width, u32 quads, const Divisor &tiles) {
    __shared__ u32 lists[WALKERS / LANES][LANES + LOOK];
    const u32 warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    u32 tile = blockIdx.x;
    const u32 row = split(tile, tiles), column = (tile * (blockDim.x / LANES) + warp) * LANES * COLUMNS;
    const Lane columns = quads ? Lane{column + lane * COLUMNS, 1, width} : Lane{column + lane, LANES, width};
    float sum[COLUMNS] = {};
    const u32 size = members[row];
    if (size > 0) add_row(sum, x, stride, ids, row, last[row], size, before, n, lists[warp], columns);
    out += (u64)row * width;
    if (quads) {
        if (columns.column < width) store_values(out + columns.column, sum);
        return;
    }
#pragma unroll
    for (u32 c = 0; c < COLUMNS; c++) {
        if (columns.column + c * LANES < width) out[columns.column + c * LANES] = sum[c];
    }
}

#define ENTRY(name, T)                                                                                          \
    KERNEL_OF(WALKERS, 8) scatter_add_##name##__sm80(const T *x, const u32 *ids, float *out, const u32 *last,         \
                                               const u32 *members, const u32 *before, u64 stride, u32 n,        \
                                               u32 width, u32 quads, const Divisor tiles) {                     \
        scatter_add(x, ids, out, last, members, before, stride, n, width, quads, tiles);                        \
    }
ENTRY(f32, float)
ENTRY(bf16, bf16)
ENTRY(f16, f16)
