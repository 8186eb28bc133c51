// Functions of one, two or three numbers, applied to each element.
//
// Operands: x, y, z of one dtype with any strides (0 where they repeat; y and z only where the function has them), out
// contiguous, of any float dtype.
//
// Algorithm: a thread has 64 bytes or more under way (four units of one operand, two of each where there are several), then
// computes four elements at a time in a loop whose code is there once: what is left moves up in its registers. The function
// is told at run time; all threads take the same branch. Entry points differ by the number of operands and by what a unit
// is: `16bit` takes and gives eight elements of 16 bits, `any` four of any width, so that the wider side moves 16 bytes.
//
// Budget: at most 64 registers, no shared memory, at least 8 blocks of 128 threads per multiprocessor. Bound: memory, as
// long as a function takes no more than about 20 operations an element of 16 bits, 40 of 32 (gelu_erf, sin and cos take
// more).
#include "common/activation.cuh"
#include "common/walk.cuh"

// The places in `elementwise::Kind`.
enum : u32 {
    NEG, ABS, SQRT, RSQRT, RECIP, SQUARE, EXP, LN, SIN, COS, TANH,
    SIGMOID, RELU, SILU, GELU_ERF, GELU_TANH, QUICK_GELU,
    AFFINE, CLAMP,
    ADD, SUB, MUL, DIV, MAX, MIN,
    MUL_ADD, IF_LESS,
    SIGMOID_GRAD, TANH_GRAD, SILU_GRAD, GELU_ERF_GRAD, GELU_TANH_GRAD, QUICK_GELU_GRAD,
};

struct Function {
    u32 kind;
    float a, b;
};

DEVICE float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

// Derivatives of the gates, σ + x·σ(u)·σ(-u)·u' for σ = σ(u). σ(-u), not 1 - σ(u): that would lose the digits that a large
// x multiplies. Beyond ±100 σ is 0 or 1 exactly.
DEVICE float slope(float x, float u, float du) {
    const float open = sigmoid(u);
    return open + x * open * sigmoid(-u) * du;
}
DEVICE float silu_slope(float v) {
    const float x = clamp(v, -100.0f, 100.0f);
    return slope(x, x, 1.0f);
}
DEVICE float quick_gelu_slope(float v) {
    const float x = clamp(v, -100.0f, 100.0f);
    return slope(x, 1.702f * x, 1.702f);
}
DEVICE float gelu_tanh_slope(float v) {
    const float x = clamp(v, -100.0f, 100.0f);
    return slope(x, x * (x * x * 0.071354814f + 1.595769f), x * x * 0.21406444f + 1.595769f);
}
DEVICE float gelu_erf_slope(float v) {
    const float x = clamp(v, -100.0f, 100.0f);
    return 0.5f + 0.5f * erff(x * 0.70710678f) + x * expf(x * x * -0.5f) * 0.3989423f;
}

template <int N>
DEVICE void apply(float (&out)[4], const float (&in)[N][4], const Function &f) {
#define EACH(kind, value)                                              \
    case kind:                                                         \
        _Pragma("unroll") for (int e = 0; e < 4; e++) {                \
            const float x = in[0][e], y = in[N / 2][e], z = in[N - 1][e]; \
            out[e] = value;                                            \
        }                                                              \
        break;
    if constexpr (N == 1) {
        switch (f.kind) {
            EACH(NEG, -x)
            EACH(ABS, fabsf(x))
            EACH(SQRT, sqrtf(x))
            EACH(RSQRT, rsqrtf(x))
            EACH(RECIP, 1.0f / x)
            EACH(SQUARE, x * x)
            EACH(EXP, expf(x))
            EACH(LN, logf(x))
            // Much code for angles beyond 10^5, so there once: numbers and results move through their registers.
            case SIN:
            case COS: {
                float x[4] = {in[0][0], in[0][1], in[0][2], in[0][3]};
#pragma unroll 1
                for (u32 e = 0; e < 4; e++) {
                    float sine, cosine;
                    sincosf(x[0], &sine, &cosine);
#pragma unroll
                    for (int k = 0; k < 3; k++) {
                        x[k] = x[k + 1];
                        out[k] = out[k + 1];
                    }
                    out[3] = f.kind == SIN ? sine : cosine;
                }
                break;
            }
            EACH(TANH, tanhf(x))
            EACH(SIGMOID, sigmoid(x))
            EACH(RELU, relu(x))
            EACH(SILU, silu(x))
            EACH(GELU_ERF, gelu_erf(x))
            EACH(GELU_TANH, gelu_tanh(x))
            EACH(QUICK_GELU, quick_gelu(x))
            EACH(AFFINE, fmaf(f.a, x, f.b))
            default: EACH(CLAMP, clamp(x, f.a, f.b))
        }
    } else if constexpr (N == 2) {
        switch (f.kind) {
            EACH(ADD, x + y)
            EACH(SUB, x - y)
            EACH(MUL, x * y)
            EACH(DIV, x / y)
            // Where neither comparison holds, one is NaN.
            EACH(MAX, x >= y ? x : x < y ? y : x + y)
            EACH(MIN, x <= y ? x : x > y ? y : x + y)
            EACH(SIGMOID_GRAD, y * x * (1.0f - x))
            EACH(TANH_GRAD, y * (1.0f - x * x))
            EACH(SILU_GRAD, y * silu_slope(x))
            EACH(GELU_ERF_GRAD, y * gelu_erf_slope(x))
            EACH(GELU_TANH_GRAD, y * gelu_tanh_slope(x))
            default: EACH(QUICK_GELU_GRAD, y * quick_gelu_slope(x))
        }
    } else {
        switch (f.kind) {
            EACH(MUL_ADD, fmaf(x, y, z))
            default: EACH(IF_LESS, x < y ? z : 0.0f)
        }
    }
#undef EACH
}

// The values of two elements of 16 bits, and back.
DEVICE void unpack(float &lo, float &hi, u32 word, u32 dtype) {
    if (dtype == BF16) {
        lo = __uint_as_float(word << 16);
        hi = __uint_as_float(word & 0xffff0000u);
    } else {
        lo = value(f16{(u16)word});
        hi = value(f16{(u16)(word >> 16)});
    }
}
DEVICE u32 pack_any(float lo, float hi, u32 dtype) { return dtype == BF16 ? pack<bf16>(lo, hi) : pack<f16>(lo, hi); }

template <int N>
constexpr int UNITS = N == 1 ? 4 : 2;

template <int N>
struct Operands {
    const void *at[N];
};

template <int N>
DEVICE void of_16bit(const Operands<N> &x, u16 *out, const Walk<N> &walk, const Function &f, u32 dtype, u32 out_dtype) {
    using Eight = Words<u16, 8>;
    const u32 first = blockIdx.x * UNITS<N>;
    const u16 *from[N];
    for (int n = 0; n < N; n++) from[n] = static_cast<const u16 *>(x.at[n]);
    Eight v[UNITS<N>][N], r = {};
    load_units<u16, 8>(v, from, walk, first);
#pragma unroll 1
    for (u32 quad = 0; quad < 2 * UNITS<N>; quad++) {
        float in[N][4], y[4];
#pragma unroll
        for (int n = 0; n < N; n++) {
            unpack(in[n][0], in[n][1], v[0][n].at[0], dtype);
            unpack(in[n][2], in[n][3], v[0][n].at[1], dtype);
        }
        apply<N>(y, in, f);
        r = {r.at[2], r.at[3], pack_any(y[0], y[1], out_dtype), pack_any(y[2], y[3], out_dtype)};
        if (quad % 2 == 1) store_unit<u16, 8>(out, walk, first + quad / 2, r);
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int u = 0; u < UNITS<N>; u++) {
                const int next = u + 1 < UNITS<N> ? u + 1 : u;
                v[u][n] = {v[u][n].at[2], v[u][n].at[3], v[next][n].at[0], v[next][n].at[1]};
            }
        }
    }
}

template <int N>
DEVICE void of_any(const Operands<N> &x, void *out, const Walk<N> &walk, const Function &f, u32 dtype, u32 out_dtype) {
    const u32 first = blockIdx.x * UNITS<N>;
    Words<u32, 4> v[UNITS<N>][N];
    if (dtype == F32) {
        const u32 *from[N];
        for (int n = 0; n < N; n++) from[n] = static_cast<const u32 *>(x.at[n]);
        load_units<u32, 4>(v, from, walk, first);
    } else {
        const u16 *from[N];
        for (int n = 0; n < N; n++) from[n] = static_cast<const u16 *>(x.at[n]);
        Words<u16, 4> half[UNITS<N>][N];
        load_units<u16, 4>(half, from, walk, first);
#pragma unroll
        for (int u = 0; u < UNITS<N>; u++) {
#pragma unroll
            for (int n = 0; n < N; n++) v[u][n] = {half[u][n].at[0], half[u][n].at[1], 0, 0};
        }
    }
#pragma unroll 1
    for (u32 u = 0; u < UNITS<N>; u++) {
        float in[N][4], y[4];
#pragma unroll
        for (int n = 0; n < N; n++) {
            const u32(&words)[4] = v[0][n].at;
            if (dtype == F32) {
#pragma unroll
                for (int e = 0; e < 4; e++) in[n][e] = __uint_as_float(words[e]);
            } else {
                unpack(in[n][0], in[n][1], words[0], dtype);
                unpack(in[n][2], in[n][3], words[1], dtype);
            }
        }
        apply<N>(y, in, f);
        if (out_dtype == F32) {
            store_unit<u32, 4>((u32 *)out, walk, first + u,
                               {__float_as_uint(y[0]), __float_as_uint(y[1]), __float_as_uint(y[2]), __float_as_uint(y[3])});
        } else {
            store_unit<u16, 4>((u16 *)out, walk, first + u,
                               {pack_any(y[0], y[1], out_dtype), pack_any(y[2], y[3], out_dtype)});
        }
#pragma unroll
        for (int k = 0; k + 1 < UNITS<N>; k++) {
#pragma unroll
            for (int n = 0; n < N; n++) v[k][n] = v[k + 1][n];
        }
    }
}

#define ENTRIES(N, suffix)                                                                                       \
    KERNEL(WALKERS) elementwise_16bit##suffix(const Operands<N> x, void *out, const Walk<N> walk, const Function f,       \
                                              u32 dtype, u32 out_dtype) {                                                 \
        of_16bit<N>(x, (u16 *)out, walk, f, dtype, out_dtype);                                                            \
    }                                                                                                                     \
    KERNEL(WALKERS) elementwise_any##suffix(const Operands<N> x, void *out, const Walk<N> walk, const Function f,         \
                                            u32 dtype, u32 out_dtype) {                                                   \
        of_any<N>(x, out, walk, f, dtype, out_dtype);                                                                     \
    }
ENTRIES(1, __sm80)
ENTRIES(2, _binary)
ENTRIES(3, _ternary)
