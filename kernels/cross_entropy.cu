// The loss of each row of logits for its label, and the logarithm of the sum of the row's exponentials.
//
// Operands: logits [rows, classes] with contiguous rows at any distance; labels [rows] u32 or i32; weights [rows] f32; loss and
// lse [rows] f32.
//
// Algorithm: `common/rows.cuh`; each row is read once, tile by tile, by online softmax (`common/online.cuh`). With m the
// largest logit and s the sum of e^(x - m) the loss is m - x[label] + ln s: that loses no digits where the sum of m and
// ln s would. Rows that do not count are not read.
//
// Tunables: those of `common/rows.cuh`, with 512 threads at most.
// Budget: 256 bytes of shared memory, 32 registers: 2048 threads on a multiprocessor, with 64 KiB (f32: 128) under way.
// Bound: bytes, one read; about 15 instructions for each logit.
#include "common/labels.cuh"
#include "common/online.cuh"

struct CrossEntropy {
    const void *x;
    const float *weights;
    float *loss, *lse;
    u32 rows, x_stride, lanes, dtype;
};

template <int V, int N, class T>
DEVICE void cross_entropy(const CrossEntropy &p, const Labels &l, Faults *faults, u32 fault_op) {
    const Team team(p.lanes);
    const u32 row = team.index;
    const bool there = row < p.rows;
    const u32 label = there ? l.labels[row] : 0;
    const bool counts = there && l.counts(label, row, team.lane == 0, faults, fault_op);
    const u32 classes = counts ? l.classes : 0;
    const T *x = static_cast<const T *>(p.x) + (u64)row * p.x_stride;
    Exponentials e;
    for (u32 first = 0; first < classes; first += p.lanes * N) {
        float v[N];
        load_tile<V>(v, x, team, first, classes, -infinity());
        e.take(v);
    }
    e.join(team);
    if (!there || team.lane != 0) return;
    const float log_sum = logf(e.sum), weight = p.weights ? p.weights[row] : 1.0f;
    p.loss[row] = counts ? weight * (e.largest - value(x[label]) + log_sum) : 0.0f;
    p.lse[row] = counts ? e.largest + log_sum : 0.0f;
}

#define CROSS_ENTROPY(T, NAME) \
    KERNEL(512) NAME(CrossEntropy p, Labels l, Faults *faults, u32 fault_op) { \
        cross_entropy<PER_VECTOR<T>, HELD, T>(p, l, faults, fault_op); \
    }
CROSS_ENTROPY(float, cross_entropy_f32__sm80)
CROSS_ENTROPY(bf16, cross_entropy_bf16__sm80)
CROSS_ENTROPY(f16, cross_entropy_f16__sm80)

KERNEL(512) cross_entropy_any(CrossEntropy p, Labels l, Faults *faults, u32 fault_op) {
    with_float(p.dtype, [&](auto zero) {
        cross_entropy<1, HELD_SINGLE, decltype(zero)>(p, l, faults, fault_op);
    });
}
