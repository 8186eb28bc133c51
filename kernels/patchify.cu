// Pictures and clips to rows of patches and back: the elements of a view of up to eight dimensions in row-major order, in another
// dtype, and with `mean` as (pixel * scale - mean[c]) / deviation[c].
//
// Operands: x with any strides; mean and deviation [channels] or null; out contiguous.
//
// Algorithm: a thread writes 16 bytes of the result. Their places in x come from the dimensions that are left when neighbours
// which x walks in one run are merged; a channel's place from the same dimensions with strides of 0 but for the channel's.
// Elements of a unit (1, 2, or as many as a thread writes) lie in one row of the innermost dimension, so that one place is
// computed for them; where x has them side by side and aligned they are one load.
//
// Tunables: 256 threads. Budget: up to 40 registers, no shared memory: 6 blocks of a multiprocessor. Bound: memory; 5
// instructions for each dimension of a unit, and as many loads in flight as a thread has units.

#include "common/walk.cuh"

struct Pixels {
    u32 unit, vectors;
    float scale;
    Walk<2> walk; // of pixels and of channels
};

// UNIT elements from `place` on, `step` apart; VECTORS: side by side and aligned.
template <bool VECTORS, int UNIT, class T>
DEVICE void load_pixels(float *to, const T *x, u64 place, u32 step) {
    if constexpr (VECTORS) {
        float v[UNIT];
        load_values<T, UNIT>(v, x + place);
#pragma unroll
        for (int i = 0; i < UNIT; i++) to[i] = v[i];
    } else {
#pragma unroll
        for (int i = 0; i < UNIT; i++) to[i] = value(x[place + (u64)i * step]);
    }
}

template <bool VECTORS, int UNIT, class T, class O>
DEVICE void patches(const T *x, const float *mean, const float *deviation, O *out, const Pixels &p) {
    constexpr int N = PER_VECTOR<O>;
    const u32 i = (blockIdx.x * 256 + threadIdx.x) * N;
    if (i >= p.walk.total) return;
    float v[N];
    u32 channels[N / UNIT];
#pragma unroll
    for (int u = 0; u < N / UNIT; u++) {
        u64 at[2];
        places(at, p.walk, min(i + u * UNIT, p.walk.total - UNIT));
        load_pixels<VECTORS, UNIT>(v + u * UNIT, x, at[0], p.walk.dims[0].strides[0]);
        channels[u] = at[1];
    }
    if (mean) {
        const u32 step = p.walk.dims[0].strides[1];
#pragma unroll
        for (int j = 0; j < N; j++) {
            const u32 c = channels[j / UNIT] + j % UNIT * step;
            v[j] = (v[j] * p.scale - mean[c]) / deviation[c];
        }
    }
    if (i + N <= p.walk.total && is_aligned(out)) return store_values<O, N>(out + i, v);
#pragma unroll
    for (int j = 0; j < N; j++)
        if (i + j < p.walk.total) out[i + j] = element<O>(v[j]);
}

template <class T, class O>
DEVICE void patches(const T *x, const float *mean, const float *deviation, O *out, const Pixels &p) {
    constexpr int N = PER_VECTOR<O>;
    if (p.unit >= N && p.vectors) return patches<true, N>(x, mean, deviation, out, p);
    if (p.unit >= N) return patches<false, N>(x, mean, deviation, out, p);
    if (p.unit >= 2 && p.vectors) return patches<true, 2>(x, mean, deviation, out, p);
    if (p.unit >= 2) return patches<false, 2>(x, mean, deviation, out, p);
    patches<false, 1>(x, mean, deviation, out, p);
}

#define PATCHIFY(name, T, O)                                                                            \
    KERNEL(256) name(const T *x, const float *mean, const float *deviation, O *out, const Pixels p) { \
        patches(x, mean, deviation, out, p);                                                            \
    }
PATCHIFY(patchify_f32_f32__sm80, float, float)
PATCHIFY(patchify_f32_bf16__sm80, float, bf16)
PATCHIFY(patchify_f32_f16__sm80, float, f16)
PATCHIFY(patchify_u8_f32__sm80, u8, float)
PATCHIFY(patchify_u8_bf16__sm80, u8, bf16)
PATCHIFY(patchify_u8_f16__sm80, u8, f16)

#define UNPATCHIFY(name, T)                                                                    \
    KERNEL(256) name(const T *x, float *out, const Pixels p) {                                \
        patches<T, float>(x, nullptr, nullptr, out, p);                                        \
    }
UNPATCHIFY(unpatchify_f32__sm80, float)
UNPATCHIFY(unpatchify_bf16__sm80, bf16)
UNPATCHIFY(unpatchify_f16__sm80, f16)
