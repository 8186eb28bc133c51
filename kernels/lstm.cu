// One step of the recurrence of an LSTM.
//
// gates [batch, len, 4·hidden] f32 and w_hh [4·hidden, hidden] with contiguous rows at any distance; h0 and c0 [batch, hidden]
// f32 or null; out [batch, len, hidden] f32, whose row of the step before is h; h and c [batch, hidden] f32, of which c is the
// state between steps. All but the first two are contiguous.
//
// Algorithm: a launch for each step, because a step needs all of the last one, and blocks that wait for each other are safe
// only if all of them run at once. A warp owns a unit: its four rows of w_hh, 16 bytes to a lane and load, meet h of up to
// four sequences at a time; the sums are reduced together, and a lane for each sequence computes the gates.
//
// Budget: 64 registers, no shared memory, 4 units to a block so that a small state still fills the device. Bound: reading w_hh
// once a step and four sequences from the second cache, which holds it; with few units the time between two launches.
#include "common/reduce.cuh"

struct Step {
    const float *gates, *h0, *c0;
    float *out, *h, *c;
    u64 gates_stride, step_stride, w_stride;
    // This step, the one before (for the first one: itself), and what they are.
    u32 batch, len, hidden, t, before, first, last, idle;
    // Whether rows of w_hh and of the states can be read in vectors.
    u32 whole, unused;
};

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Of `count` sequences, at most B, from `b0` on; V elements to a load.
template <class T, int B, int V>
DEVICE void lstm_unit(const Step &s, const T *w_hh, u32 unit, u32 b0, u32 count) {
    const u32 lane = threadIdx.x % 32;
    // h before this step; null for zeros.
    const float *before = s.first ? s.h0 : s.out + (u64)s.before * s.hidden;
    const u64 stride = s.first ? s.hidden : (u64)s.len * s.hidden;
    float sums[4][B] = {};
    if (before) {
#pragma unroll 2
        for (u32 k = lane * V; k < s.hidden; k += 32 * V) {
            float w[4][V];
#pragma unroll
            for (int gate = 0; gate < 4; gate++) load_values<T, V>(w[gate], w_hh + (gate * s.hidden + unit) * s.w_stride + k);
#pragma unroll
            for (int b = 0; b < B; b++) {
                if (b >= count) break;
                float h[V];
                load_values<float, V>(h, before + (b0 + b) * stride + k);
#pragma unroll
                for (int i = 0; i < 4 * V; i++) sums[i / V][b] = fmaf(w[i / V][i % V], h[i % V], sums[i / V][b]);
            }
        }
    }
#pragma unroll
    for (int b = 0; b < B; b++) {
        if (b >= count) break;
#pragma unroll
        for (int gate = 0; gate < 4; gate++) sums[gate][b] = warp_reduce(sums[gate][b], Add());
    }
    float mine[4];
#pragma unroll
    for (int i = 0; i < 4 * B; i++)
        if (i % B == 0 || i % B == lane) mine[i / B] = sums[i / B][i % B];
    if (lane >= count) return;
    const u32 b = b0 + lane;
    const u64 at = (u64)b * s.hidden + unit;
    const float *gates = s.gates + b * s.gates_stride + s.t * s.step_stride + unit;
#pragma unroll
    for (int gate = 0; gate < 4; gate++) mine[gate] += gates[gate * s.hidden];
    const float had = !s.first ? s.c[at] : s.c0 ? s.c0[at] : 0.0f;
    const float cell = fmaf(sigmoid(mine[1]), had, sigmoid(mine[0]) * tanhf(mine[2]));
    const float value = sigmoid(mine[3]) * tanhf(cell);
    s.c[at] = cell;
    s.out[((u64)b * s.len + s.t) * s.hidden + unit] = value;
    if (s.last) s.h[at] = value;
}

template <class T>
DEVICE void lstm(const Step &s, const T *w_hh) {
    const u32 unit = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (unit >= s.hidden) return;
    // Without a step the state is handed on.
    for (u32 b = lane; s.idle && b < s.batch; b += 32) {
        const u64 at = (u64)b * s.hidden + unit;
        s.h[at] = s.h0 ? s.h0[at] : 0.0f;
        s.c[at] = s.c0 ? s.c0[at] : 0.0f;
    }
    constexpr int MANY = 4;
    for (u32 b = 0; !s.idle && b < s.batch; b += MANY) {
        const u32 count = min(s.batch - b, (u32)MANY);
        if (s.whole && count == 1) {
            lstm_unit<T, 1, PER_VECTOR<T>>(s, w_hh, unit, b, count);
        } else if (s.whole) {
            lstm_unit<T, MANY, PER_VECTOR<T>>(s, w_hh, unit, b, count);
        } else {
            lstm_unit<T, MANY, 1>(s, w_hh, unit, b, count);
        }
    }
}

#define LSTM(T)                                                                                                             \
    KERNEL(128) lstm_##T##__sm80(Step step, const T *w_hh) { lstm<T>(step, w_hh); }
typedef float f32;
LSTM(f32)
LSTM(f16)
LSTM(bf16)
