// A step of AdamW, in place.
//
// Operands: grad [n], step_params [4] (learning rate, corrections of both means, factor of the gradient); param, m, v [n],
// all f32, updated; weight [n] bf16, written if there is one.
//
// Algorithm: a thread owns four parameters next to each other. Operations are in PyTorch's order.
//
// Budget: no shared memory, 40 registers: 1536 threads on a multiprocessor, with 96 KiB under way.
// Bound: bytes, 28 (with `weight` 30) for each parameter, against about 60 instructions.
#include "common/base.cuh"

struct AdamW {
    const float *grad, *step_params;
    float *param, *m, *v;
    bf16 *weight;
    u32 n, aligned;
    // 1 - beta1, beta2, 1 - beta2.
    float rest1, beta2, rest2, eps, weight_decay;
    u32 unused;
};

// V parameters from number i on.
template <int V>
DEVICE void update(const AdamW &p, u32 i) {
    const float lr = p.step_params[0], grad_scale = p.step_params[3];
    const float keep = 1.0f - lr * p.weight_decay, rate = lr / p.step_params[1], root = sqrtf(p.step_params[2]);
    float grad[V], param[V], m[V], v[V];
    load_values(grad, p.grad + i);
    load_values(param, p.param + i);
    load_values(m, p.m + i);
    load_values(v, p.v + i);
#pragma unroll
    for (int k = 0; k < V; k++) {
        const float g = grad_scale * grad[k];
        m[k] += p.rest1 * (g - m[k]);
        v[k] = p.beta2 * v[k] + p.rest2 * g * g;
        const float divisor = sqrtf(v[k]) / root + p.eps;
        param[k] = param[k] * keep - rate * (m[k] / divisor);
    }
    store_values(p.param + i, param);
    store_values(p.m + i, m);
    store_values(p.v + i, v);
    if (p.weight) store_values(p.weight + i, param);
}

KERNEL(256) adamw_f32__sm80(AdamW p) {
    const u32 i = (blockIdx.x * 256 + threadIdx.x) * 4;
    if (i >= p.n) return;
    if (p.aligned && p.n - i >= 4) {
        update<4>(p, i);
    } else {
        const u32 end = min(p.n - i, 4u);
        for (u32 k = 0; k < end; k++) update<1>(p, i + k);
    }
}
