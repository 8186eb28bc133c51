// The k largest values of each row in descending order, and their places: of equal values the one with the lower place
// first, NaN as the largest.
//
// Operands: x [rows, cols] with contiguous rows at any distance; out [rows, k] of the same dtype and indices [rows, k] u32,
// contiguous. Workspace: `found` [rows, kept] u64.
//
// Algorithm: a value and its place make one whole number of 64 bits (`common/order.cuh`) whose order is the wanted one, so that
// no two are equal. A block finds RANKS of the wanted ranks of a segment of a row: the numbers that the ranks begin and end
// with by a radix selection (eight bits at a time from the top, a histogram of those that agree so far; it stops as soon as
// all that agree are wanted), then all numbers between them, which are collected and sorted in shared memory by a bitonic
// network; a segment of no more than RANKS values is sorted whole. Numbers of a segment of 2048 stay in registers. Where a
// row has several segments, each leaves its k largest in the workspace, from which `topk_join` takes them.
//
// Tunables: RANKS, at most 2048 for 16 KiB. Budget: 10 KiB of shared memory, 64 registers: 1024 threads on a multiprocessor.
// Bound: one read of x; beside it the barriers of two to eight histograms and of the network, about 10 µs.
#include "common/order.cuh"
#include "common/rows.cuh"

constexpr u32 BLOCK = 256, RANKS = 1024;
constexpr int N = 8;

struct TopK {
    const void *x;
    void *out;
    u32 *indices;
    u64 *found;
    // `cols` counts the values of a row, or in the join the numbers that segments have left of it; `kept` what they leave.
    u32 rows, cols, k, segment, segments, blocks, kept, x_stride;
};

struct Scratch {
    u64 collected[RANKS];
    u32 bins[BLOCK];
    u32 of_warps[BLOCK / 32];
    u32 count;
    // The digit that was found, the rank that is left within it, and how many have it.
    u32 digit, left, have;
};

// The number of this rank (from 1 on), with zeros for digits that make no difference. `numbers.each(f)` calls f with the
// place of a tile in `n`, in which 0 stands for none.
template <class Numbers>
DEVICE u64 ranked(const Numbers &numbers, const u64 (&n)[N], u32 rank, Scratch &s) {
    const u32 thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    u64 prefix = 0;
    u32 left = rank;
    for (int shift = 56; shift >= 0; shift -= 8) {
        s.bins[thread] = 0;
        __syncthreads();
        numbers.each([&](u32) {
#pragma unroll
            for (int i = 0; i < N; i++) {
                if (n[i] != 0 && (n[i] ^ prefix) >> shift >> 8 == 0) atomicAdd(&s.bins[n[i] >> shift & 255], 1u);
            }
        });
        __syncthreads();
        // How many have this thread's digit or a larger one.
        const u32 mine = s.bins[thread];
        u32 above = mine;
#pragma unroll
        for (int d = 1; d < 32; d *= 2) {
            const u32 more = __shfl_down_sync(0xffffffffu, above, d);
            if (lane + d < 32) above += more;
        }
        if (lane == 0) s.of_warps[warp] = above;
        __syncthreads();
        for (u32 w = warp + 1; w < BLOCK / 32; w++) above += s.of_warps[w];
        if (above >= left && above - mine < left) {
            s.digit = thread;
            s.left = left - (above - mine);
            s.have = mine;
        }
        __syncthreads();
        prefix |= (u64)s.digit << shift;
        left = s.left;
        if (s.left == s.have) break;
    }
    // All have read what the next selection overwrites.
    __syncthreads();
    return prefix;
}

// Sorts `count` numbers, at most RANKS, in descending order.
DEVICE void sort(u64 *numbers, u32 count) {
    u32 size = 1;
    while (size < count) size *= 2;
    // The network takes a power of two; no number is as small as what fills it up.
    for (u32 i = count + threadIdx.x; i < size; i += BLOCK) numbers[i] = 0;
    for (u32 run = 2; run <= size; run *= 2) {
        for (u32 step = run / 2; step > 0; step /= 2) {
            __syncthreads();
            for (u32 i = threadIdx.x; i < size / 2; i += BLOCK) {
                const u32 a = 2 * i - (i & (step - 1));
                const u64 u = numbers[a], v = numbers[a + step];
                if ((v > u) == ((a & run) == 0)) {
                    numbers[a] = v;
                    numbers[a + step] = u;
                }
            }
        }
    }
    __syncthreads();
}

// `load(n, team, row, first, end)` reads a tile of a row's numbers.
template <bool LAST, class T, class Load>
DEVICE void topk(const TopK &p, Load load) {
    __shared__ Scratch s;
    const Team team(BLOCK);
    const u32 block = blockIdx.x % p.blocks, segment = blockIdx.x / p.blocks % p.segments;
    const u64 row = blockIdx.x / p.blocks / p.segments;
    const u32 begin = segment * p.segment, length = min(p.cols - begin, p.segment);
    u64 n[N];
    const Tiles numbers(length, BLOCK * N, [&](u32 first) { load(n, team, row, begin + first, begin + length); });

    // Ranks `low` to `high`; a last segment may be shorter than k.
    const u32 low = block * RANKS, high = min(min(p.k, length), low + RANKS), count = high - low;
    if (threadIdx.x == 0) s.count = 0;
    const bool whole = length <= RANKS;
    u64 last = 0, before = ~0ull;
#pragma unroll 1
    for (u32 rank = whole ? low : high; rank > 0; rank = rank == high ? low : 0) {
        const u64 found = ranked(numbers, n, rank, s);
        if (rank == high) {
            last = found;
        } else {
            before = found;
        }
    }
    __syncthreads();
    numbers.each([&](u32) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (n[i] == 0 || n[i] < last || n[i] >= before) continue;
            const u32 slot = atomicAdd(&s.count, 1u);
            if (slot < RANKS) s.collected[slot] = n[i];
        }
    });
    __syncthreads();
    sort(s.collected, whole ? length : count);

    for (u32 i = threadIdx.x; i < count; i += BLOCK) {
        const u64 number = s.collected[i];
        if (!LAST && p.segments > 1) {
            p.found[row * p.kept + (u64)segment * p.k + i] = number;
            continue;
        }
        const u64 at = row * p.k + low + i;
        p.indices[at] = place_of(number);
        static_cast<T *>(p.out)[at] = static_cast<const T *>(p.x)[row * p.x_stride + place_of(number)];
    }
}

#define TOPK(T, NAME) \
    KERNEL_OF(256, 4) NAME(TopK p) { \
        topk<false, T>(p, [&](u64 (&n)[N], const Team &team, u64 row, u32 first, u32 end) { \
            float v[N]; \
            load_tile<1>(v, static_cast<const T *>(p.x) + row * p.x_stride, team, first, end); \
            for (int i = 0; i < N; i++) { \
                const u32 c = team.column<1>(first, i); \
                n[i] = c < end ? ordered(v[i], c) : 0; \
            } \
        }); \
    }
TOPK(float, topk_f32__sm80)
TOPK(bf16, topk_bf16__sm80)
TOPK(f16, topk_f16__sm80)

// Values are of 2 or 4 bytes.
template <class T>
DEVICE void topk_join(const TopK &p) {
    topk<true, T>(p, [&](u64 (&n)[N], const Team &team, u64 row, u32 first, u32 end) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            const u32 c = team.column<1>(first, i);
            n[i] = c < end ? p.found[row * p.cols + c] : 0;
        }
    });
}
KERNEL_OF(256, 4) topk_join_2(TopK p) { topk_join<u16>(p); }
KERNEL_OF(256, 4) topk_join_4(TopK p) { topk_join<u32>(p); }
