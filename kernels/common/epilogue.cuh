// What follows the sums of a product, for four neighbouring results of a row:
//   out = activation(sum + bias) + residual,  gated: out = activation(gate + bias) * (up + bias of up) + residual
#pragma once
#include "common/activation.cuh"

// Passed by value: three pointers and six words, 48 bytes.
struct Epilogue {
    const float *bias;      // [cols], gated [2 * cols]; null for none
    const float *residual;  // [rows, cols]; null for none
    void *out;              // [rows, cols] of out_dtype
    u32 rows, cols;         // rows of one product of a batch
    u32 out_dtype, activation, gated;
    u32 vectors;            // whether four neighbours from a multiple of four on can be read and written at once
};

// Four floats of which `count` exist; the others are zeros.
DEVICE void load_4(float (&to)[4], const float *from, u32 count, bool vectors) {
    if (vectors) return load_values<float, 4>(to, from);
#pragma unroll
    for (u32 i = 0; i < 4; i++) to[i] = i < count ? from[i] : 0.0f;
}

// Writes `count` (1 to 4) values from element `place` on.
DEVICE void store_4(const Epilogue &e, u64 place, u32 count, const float (&x)[4]) {
    if (e.vectors) {
        switch (e.out_dtype) {
            case F32: return store_values<float, 4>(static_cast<float *>(e.out) + place, x);
            case F16: return store_values<f16, 4>(static_cast<f16 *>(e.out) + place, x);
            default: return store_values<bf16, 4>(static_cast<bf16 *>(e.out) + place, x);
        }
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++)
        if (i < count) store_any(e.out, place + i, e.out_dtype, x[i]);
}

// Writes what becomes of the sums of `count` columns from `column` on (a multiple of four where there are vectors); `row`
// counts those of all products of a batch. `ups` are what a gate is multiplied by.
DEVICE void finish_4(const Epilogue &e, u64 row, u32 column, u32 count, const float (&sums)[4], const float (&ups)[4]) {
    const u64 place = row * e.cols + column;
    float x[4], extra[4];
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = sums[i];
    if (e.bias) {
        load_4(extra, e.bias + column, count, e.vectors);
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] += extra[i];
    }
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = activate(e.activation, x[i]);
    if (e.gated) {
#pragma unroll
        for (int i = 0; i < 4; i++) extra[i] = 0.0f;
        if (e.bias) load_4(extra, e.bias + e.cols + column, count, e.vectors);
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] *= ups[i] + extra[i];
    }
    if (e.residual) {
        load_4(extra, e.residual + place, count, e.vectors);
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] += extra[i];
    }
    store_4(e, place, count, x);
}
