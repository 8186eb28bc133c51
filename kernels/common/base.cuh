// What every kernel uses: names of types, conversions of elements, vectors of 16 bytes, the report of a bad index.
//
// Conventions of all kernels. Pointers are those of an operand's first element (the launch has added its offset); an absent
// operand is a null pointer. Sizes and strides count elements. Grids are flat or the launch says how they fold. No headers
// of CUDA are included: NVRTC needs none, and what is used of them stands here.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

#define DEVICE __device__ __forceinline__
// A kernel under its catalog name, for at most this many threads in a block.
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
// The same with registers for this many blocks on a multiprocessor.
#define KERNEL_OF(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)

// Codes of dtypes that are told at run time; those of src/backend/cuda/launch.rs.
enum : u32 { F32 = 0, F16 = 1, BF16 = 2, U8 = 3, I32 = 4, U32 = 5 };

// 16-bit floats: storage only, arithmetic is in float.
struct f16 {
    u16 bits;
};
struct bf16 {
    u16 bits;
};

// The value of an element.
DEVICE float value(float x) { return x; }
DEVICE float value(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
DEVICE float value(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
DEVICE float value(u8 x) { return (float)x; }
DEVICE float value(i32 x) { return (float)x; }
DEVICE float value(u32 x) { return (float)x; }

// The element nearest to a value; ties to even.
template <class T>
DEVICE T element(float x);
template <>
DEVICE float element<float>(float x) { return x; }
template <>
DEVICE f16 element<f16>(float x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
template <>
DEVICE bf16 element<bf16>(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
template <>
DEVICE u8 element<u8>(float x) { return (u8)__float2uint_rn(fminf(fmaxf(x, 0.0f), 255.0f)); }

// Two elements in a word, the first in the lower half.
template <class T>
DEVICE u32 pack(float lo, float hi);
template <>
DEVICE u32 pack<f16>(float lo, float hi) {
    u32 y;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
    return y;
}
template <>
DEVICE u32 pack<bf16>(float lo, float hi) {
    u32 y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
    return y;
}

// N elements that are read or written at once: at most 16 bytes, at a multiple of their size.
template <class T, int N>
struct alignas(N * sizeof(T)) Vec {
    T at[N];
    static constexpr int size = N;
};
template <class T>
constexpr int PER_VECTOR = 16 / sizeof(T);

template <class T, int N>
DEVICE Vec<T, N> load_vec(const T *from) {
    return *reinterpret_cast<const Vec<T, N> *>(from);
}
template <class T, int N>
DEVICE void store_vec(T *to, const Vec<T, N> &v) {
    *reinterpret_cast<Vec<T, N> *>(to) = v;
}
template <class T>
DEVICE bool is_aligned(const T *p) {
    return (reinterpret_cast<u64>(p) & 15) == 0;
}

// N values from N neighbouring elements of 2 or 4 bytes (or fewer), in vectors of 16 bytes where the pointer is aligned so.
template <class T, int N>
DEVICE void load_values(float (&to)[N], const T *from) {
    constexpr int V = N < PER_VECTOR<T> ? N : PER_VECTOR<T>;
#pragma unroll
    for (int i = 0; i < N; i += V) {
        Vec<T, V> v = load_vec<T, V>(from + i);
#pragma unroll
        for (int j = 0; j < V; j++) to[i + j] = value(v.at[j]);
    }
}
template <class T, int N>
DEVICE void store_values(T *to, const float (&from)[N]) {
    constexpr int V = N < PER_VECTOR<T> ? N : PER_VECTOR<T>;
#pragma unroll
    for (int i = 0; i < N; i += V) {
        Vec<T, V> v;
#pragma unroll
        for (int j = 0; j < V; j++) v.at[j] = element<T>(from[i + j]);
        store_vec<T, V>(to + i, v);
    }
}

// Elements whose dtype is told at run time: for operands that are small beside the one that a kernel streams, and for rows
// that take every dtype. The branch is the same for all threads.
DEVICE float load_any(const void *from, u64 i, u32 dtype) {
    switch (dtype) {
        case F32: return static_cast<const float *>(from)[i];
        case F16: return value(static_cast<const f16 *>(from)[i]);
        case BF16: return value(static_cast<const bf16 *>(from)[i]);
        case U8: return value(static_cast<const u8 *>(from)[i]);
        case I32: return value(static_cast<const i32 *>(from)[i]);
        default: return value(static_cast<const u32 *>(from)[i]);
    }
}
// Of the float dtypes.
DEVICE void store_any(void *to, u64 i, u32 dtype, float x) {
    switch (dtype) {
        case F32: static_cast<float *>(to)[i] = x; break;
        case F16: static_cast<f16 *>(to)[i] = element<f16>(x); break;
        default: static_cast<bf16 *>(to)[i] = element<bf16>(x); break;
    }
}

// The report of an index out of range: the host reads it with the next result and makes an error of it. One fault is told,
// any of them; the kernel leaves out what it cannot do.
struct Faults {
    u32 count, value, place, limit, op;
};
DEVICE void fault(Faults *faults, u32 op, u32 value, u32 place, u32 limit) {
    if (atomicAdd(&faults->count, 1u) == 0) {
        faults->value = value;
        faults->place = place;
        faults->limit = limit;
        faults->op = op;
    }
}

DEVICE float infinity() { return __uint_as_float(0x7f800000u); }
DEVICE u32 ceil_div(u32 a, u32 b) { return (a + b - 1) / b; }
