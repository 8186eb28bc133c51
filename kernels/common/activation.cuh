// What is applied to each value of a product: the codes are the places in `ops::activation::Activation`. NaN gives NaN.
#pragma once
#include "common/base.cuh"

enum : u32 {
    ACTIVATION_NONE,
    ACTIVATION_RELU,
    ACTIVATION_GELU_ERF,
    ACTIVATION_GELU_TANH,
    ACTIVATION_QUICK_GELU,
    ACTIVATION_SILU,
    ACTIVATION_TANH,
    ACTIVATION_SIGMOID,
};

// 1 / (1 + e^-x), to 2 ulp: 0 below -88.
DEVICE float sigmoid(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }

DEVICE float relu(float x) { return x < 0.0f ? 0.0f : x; }
DEVICE float gelu_erf(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }
DEVICE float gelu_tanh(float x) { return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x))); }
DEVICE float quick_gelu(float x) { return x * sigmoid(1.702f * x); }
DEVICE float silu(float x) { return x * sigmoid(x); }

// The branch is the same for all threads. Kernels with many values in registers call this in a loop that is not unrolled.
DEVICE float activate(u32 activation, float x) {
    switch (activation) {
        case ACTIVATION_RELU: return relu(x);
        case ACTIVATION_GELU_ERF: return gelu_erf(x);
        case ACTIVATION_GELU_TANH: return gelu_tanh(x);
        case ACTIVATION_QUICK_GELU: return quick_gelu(x);
        case ACTIVATION_SILU: return silu(x);
        case ACTIVATION_TANH: return tanhf(x);
        case ACTIVATION_SIGMOID: return sigmoid(x);
        default: return x;
    }
}
