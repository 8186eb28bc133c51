// Σ e^x over values that come one after the other (online softmax, Milakov and Gimelshein, arXiv 1805.02867): the largest so
// far, and the sum of e^(x - largest), which is scaled where a larger one comes.
#pragma once
#include "common/rows.cuh"

// e^x to 2 ulp and the rounding of x · log2 e, in two instructions; for x of at most 0, of which the large ones count.
DEVICE float exponential(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504f));
    return y;
}

struct Exponentials {
    float largest = -infinity(), sum = 0.0f;

    // What is subtracted: as long as there are only infinities they are to count as zeros, not as NaN.
    DEVICE float shift() const { return largest == -infinity() ? 0.0f : largest; }

    template <int N>
    DEVICE void take(const float (&x)[N]) {
        float most = x[0];
#pragma unroll
        for (int i = 1; i < N; i++) most = fmaxf(most, x[i]);
        if (most > largest) {
            sum *= exponential(largest - most);
            largest = most;
        }
        const float m = shift();
#pragma unroll
        for (int i = 0; i < N; i++) sum += exponential(x[i] - m);
    }

    // That of all lanes.
    DEVICE void join(const Team &team) {
        const float most = team.reduce(largest, Max());
        if (largest != most) sum *= exponential(largest - most);
        largest = most;
        sum = team.reduce(sum, Add());
    }
};
