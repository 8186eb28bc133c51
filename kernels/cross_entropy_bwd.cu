// The gradient of cross-entropy: e^(x - lse)·(g + h) for each logit, less g at the label's place, where g is the row's
// weight times the gradient of its loss and h that of its log-sum-exp. Rows that do not count give zeros.
//
// Operands: logits [rows, classes] with contiguous rows at any distance; labels [rows] u32 or i32; weights, lse, grad_loss and
// grad_lse [rows] f32; out [rows, classes] f32, contiguous.
//
// Algorithm: a team computes a tile of a row (`common/rows.cuh`), so that few long rows keep the whole device busy.
//
// Tunables: those of `common/rows.cuh`, with 256 threads at most.
// Budget: no shared memory, 40 registers: 1536 threads on a multiprocessor, with 48 KiB (f32: 96) under way.
// Bound: bytes, one read and one write.
#include "common/labels.cuh"
#include "common/rows.cuh"

struct CrossEntropyBwd {
    const void *x;
    const float *weights, *lse, *grad_loss, *grad_lse;
    float *out;
    // Tiles of a row.
    u32 rows, tiles, x_stride, lanes, dtype, unused;
};

template <int V, int N, class T>
DEVICE void cross_entropy_bwd(const CrossEntropyBwd &p, const Labels &l, Faults *faults, u32 fault_op) {
    const Team team(p.lanes);
    const u32 row = team.index / p.tiles, tile = team.index % p.tiles, first = tile * p.lanes * N;
    if (row >= p.rows) return;
    const u32 label = l.labels[row];
    const bool counts = l.counts(label, row, tile == 0 && team.lane == 0, faults, fault_op);
    float v[N];
    load_tile<V>(v, static_cast<const T *>(p.x) + (u64)row * p.x_stride, team, first, counts ? l.classes : 0);
    const float g = p.grad_loss[row] * (p.weights ? p.weights[row] : 1.0f);
    const float both = p.grad_lse ? g + p.grad_lse[row] : g, lse = p.lse[row];
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] = expf(v[i] - lse) * both - (team.column<V>(first, i) == label ? g : 0.0f);
        if (!counts) v[i] = 0.0f;
    }
    store_tile<V>(p.out + (u64)row * l.classes, team, first, l.classes, v);
}

#define CROSS_ENTROPY_BWD(T, NAME) \
    KERNEL(256) NAME(CrossEntropyBwd p, Labels l, Faults *faults, u32 fault_op) { \
        cross_entropy_bwd<PER_VECTOR<T>, HELD, T>(p, l, faults, fault_op); \
    }
CROSS_ENTROPY_BWD(float, cross_entropy_bwd_f32__sm80)
CROSS_ENTROPY_BWD(bf16, cross_entropy_bwd_bf16__sm80)
CROSS_ENTROPY_BWD(f16, cross_entropy_bwd_f16__sm80)

KERNEL(256) cross_entropy_bwd_any(CrossEntropyBwd p, Labels l, Faults *faults, u32 fault_op) {
    with_float(p.dtype, [&](auto zero) {
        cross_entropy_bwd<1, HELD_SINGLE, decltype(zero)>(p, l, faults, fault_op);
    });
}
