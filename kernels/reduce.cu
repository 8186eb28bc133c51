// Reductions: sum, sum of squares, largest, smallest; over rows, or over columns.
//
// Operands: x [outer, len, inner], contiguous; out [outer, segments, inner] f32. With inner = 1 the rows are reduced.
//
// Algorithm: rows by teams (`common/rows.cuh`), columns as in `common/columns.cuh`, each a segment of what is reduced. Where
// there are several segments, their results are the x of a second launch (squares are then only added), so that even one
// row keeps the whole device busy; the last launch divides by the number or takes the root. Always in the same order.
//
// Tunables: those of the two files; teams have 512 threads at most.
// Budget: rows 128 bytes of shared memory, 32 registers: 2048 threads on a multiprocessor, with 64 KiB (f32: 128) under way;
// columns 8 KiB (f32: 4) and 64 (f32: 40) registers: 1024 (1536) threads, with 64 KiB (f32: 96) under way.
// Bound: bytes, one read; three operations for each element.
#include "common/columns.cuh"
#include "common/rows.cuh"

// What becomes of values, and what follows.
enum : u32 { SUM = 0, SQUARES = 1, LARGEST = 2, SMALLEST = 3 };
enum : u32 { NOTHING = 0, MEAN = 1, ROOT = 2 };

struct Fold {
    u32 kind, finish;
    float count;
    u32 dtype;

    // The smallest is the largest of the negative values.
    DEVICE float taken(float v) const { return v * (kind == SQUARES ? v : kind == SMALLEST ? -1.0f : 1.0f); }
    DEVICE float start() const { return kind <= SQUARES ? 0.0f : -infinity(); }
    // A value that makes no difference.
    DEVICE float beyond() const { return kind == SMALLEST ? infinity() : start(); }
    // Of extremes NaN, if one of them is.
    DEVICE float operator()(float a, float b) const {
        const float sum = a + b, larger = a >= b || a != a ? a : b;
        return kind <= SQUARES ? sum : larger;
    }
    DEVICE float finished(float v) const {
        if (kind == SMALLEST) v = -v;
        return finish == MEAN ? v / count : finish == ROOT ? sqrtf(v) : v;
    }
};

struct ReduceRows {
    const void *x;
    float *out;
    u32 rows, cols, segment, segments, lanes, unused;
};

template <int V, int N, class T>
DEVICE void reduce_rows(const ReduceRows &p, const Fold &fold) {
    const Team team(p.lanes);
    const u32 row = team.index / p.segments, begin = team.index % p.segments * p.segment;
    const u32 end = row < p.rows ? min(p.cols, begin + p.segment) : 0;
    const T *x = static_cast<const T *>(p.x) + (u64)row * p.cols;
    float all = fold.start();
    for (u32 first = begin; first < end; first += p.lanes * N) {
        float v[N];
        load_tile<V>(v, x, team, first, end, fold.beyond());
#pragma unroll
        for (int i = 0; i < N; i++) all = fold(all, fold.taken(v[i]));
    }
    all = team.reduce(all, fold);
    if (row < p.rows && team.lane == 0) p.out[team.index] = fold.finished(all);
}

template <int V, class T>
DEVICE void reduce_columns(const void *x, float *out, const Columns &c, const Fold &fold) {
    auto load = [&](float (&v)[V], u32 o, u32 j, u32 column, bool there) {
        load_values_if(v, there, static_cast<const T *>(x) + ((u64)o * c.len + j) * c.inner + column);
    };
    auto take = [&](float all, float v) { return fold(all, fold.taken(v)); };
    auto give = [&](u32 o, u32 segment, u32 column, const float (&all)[V]) {
        float *to = out + ((u64)o * c.segments + segment) * c.inner + column;
#pragma unroll
        for (int k = 0; k < V; k++) to[k] = fold.finished(all[k]);
    };
    reduce_columns<V>(c, fold.start(), load, take, fold, give);
}

#define REDUCE(T, ROWS, COLUMNS) \
    KERNEL(512) ROWS(ReduceRows p, Fold fold) { reduce_rows<PER_VECTOR<T>, HELD, T>(p, fold); } \
    KERNEL(256) COLUMNS(const void *x, float *out, Columns c, Fold fold) { \
        reduce_columns<PER_VECTOR<T>, T>(x, out, c, fold); \
    }
REDUCE(float, reduce_f32__sm80, reduce_f32_columns__sm80)
REDUCE(bf16, reduce_bf16__sm80, reduce_bf16_columns__sm80)
REDUCE(f16, reduce_f16__sm80, reduce_f16_columns__sm80)

KERNEL(512) reduce_any(ReduceRows p, Fold fold) {
    with_float(fold.dtype, [&](auto zero) { reduce_rows<1, HELD_SINGLE, decltype(zero)>(p, fold); });
}
KERNEL(256) reduce_any_columns(const void *x, float *out, Columns c, Fold fold) {
    with_float(fold.dtype, [&](auto zero) { reduce_columns<1, decltype(zero)>(x, out, c, fold); });
}
