// Rotary embeddings (Su et al., arXiv 2104.09864): pairs of values of each head turned by angles that grow with the
// position.
//
// Operands: x [batch, len, heads, head_dim] with contiguous rows at any distances; positions [axes, batch or 1, len] of
// `positions_dtype`; inv_freq [rotary_dim / 2] f32; out contiguous, of any float dtype.
//
// Algorithm: a block takes some places with all their heads. First its threads compute the cosines and sines of those
// places, one each, into shared memory, so that they are there once for all heads; then each turns E pairs at a time, whose
// values are two vectors of x: half a rotary_dim apart, or neighbours where pairs are. Values that are not turned are units
// of one vector. Where rows or halves are not of whole vectors, E is 1.
//
// Budget: at most 64 registers, 8 bytes of shared memory for each pair of a place, 2 KiB as a rule. Bound: memory, one read
// and one write.
#include "common/walk.cuh"

constexpr u32 THREADS = 256;

struct Rope {
    u64 x_strides[3];
    u32 places, per_block; // places of the problem, of a block
    Divisor len, heads, units;
    u32 head_dim, half; // half: pairs of a head
    u32 positions_batch, positions_dtype;
    u32 axis_1, axis_2; // where the pairs of the second and of the third axis begin
    float factor, sine_factor;
    u32 interleaved;
    u32 vectors;
    u32 out_dtype;
};

// Where pair j stands in a row of the tables: of eight pairs that a thread reads, the first four lie beside those of its
// neighbours, and so do the others, so that the lanes of a warp hit all banks.
template <int E>
DEVICE u32 slot(u32 j, u32 half) {
    return E == 8 ? j % 8 / 4 * (half / 2) + j / 8 * 4 + j % 4 : j;
}

// Cosines and sines of the pairs of each place of the block.
template <int E>
DEVICE void table(float *cosines, float *sines, const void *positions, const float *inv_freq, const Rope &r, u32 place,
                  u32 places) {
    for (u32 t = threadIdx.x; t < places * r.half; t += THREADS) {
        const u32 here = t / r.half, j = t - here * r.half;
        u32 i = place + here;
        const u32 batch = split(i, r.len);
        const u32 axis = (j >= r.axis_1) + (j >= r.axis_2), b = r.positions_batch == 1 ? 0 : batch;
        const u64 where = ((u64)axis * r.positions_batch + b) * r.len.by + i;
        float s, c;
        sincosf(load_any(positions, where, r.positions_dtype) * inv_freq[j], &s, &c);
        const u32 to = here * r.half + (r.vectors ? slot<E>(j, r.half) : j);
        cosines[to] = c * r.factor;
        sines[to] = s * r.sine_factor;
    }
}

template <int E>
DEVICE void store_floats(void *out, u64 at, u32 dtype, const float (&v)[E]) {
    switch (dtype) {
        case F32: store_values(static_cast<float *>(out) + at, v); break;
        case F16: store_values(static_cast<f16 *>(out) + at, v); break;
        default: store_values(static_cast<bf16 *>(out) + at, v);
    }
}

template <class T, int E>
DEVICE void turn(const T *x, void *out, const float *cosines, const float *sines, const Rope &r, u32 first, u32 places) {
    constexpr int STEP = E < 4 ? E : 4;
    const u32 all = places * r.heads.by * r.units.by, turned = r.half / E;
    for (u32 t = threadIdx.x; t < all; t += THREADS) {
        u32 u = t;
        u32 head = split(u, r.units);
        const u32 here = split(head, r.heads), place = first + here;
        u32 i = place;
        const u32 batch = split(i, r.len);
        const T *from = x + batch * r.x_strides[0] + i * r.x_strides[1] + head * r.x_strides[2];
        const u64 to = ((u64)place * r.heads.by + head) * r.head_dim;
        if (u >= turned) {
            const u32 d = 2 * r.half + (u - turned) * E;
            float v[E];
            load_values(v, from + d);
            store_floats(out, to + d, r.out_dtype, v);
            continue;
        }
        // Pairs u·E to u·E + E - 1.
        const u32 a = r.interleaved ? 2 * u * E : u * E, b = r.interleaved ? a + E : a + r.half;
        float v[2][E], y[2][E], c[E], s[E];
        load_values(v[0], from + a);
        load_values(v[1], from + b);
        const u32 row = here * r.half;
#pragma unroll
        for (int e = 0; e < E; e += STEP) {
            const u32 at = row + slot<E>(u * E + e, r.half);
            const Vec<float, STEP> cosine = load_vec<float, STEP>(cosines + at), sine = load_vec<float, STEP>(sines + at);
#pragma unroll
            for (int k = 0; k < STEP; k++) {
                c[e + k] = cosine.at[k];
                s[e + k] = sine.at[k];
            }
        }
        if (r.interleaved) {
#pragma unroll
            for (int e = 0; e < E; e++) {
                const int k = 2 * e, l = k + 1;
                y[k / E][k % E] = v[k / E][k % E] * c[e] - v[l / E][l % E] * s[e];
                y[l / E][l % E] = v[l / E][l % E] * c[e] + v[k / E][k % E] * s[e];
            }
        } else {
#pragma unroll
            for (int e = 0; e < E; e++) {
                y[0][e] = v[0][e] * c[e] - v[1][e] * s[e];
                y[1][e] = v[1][e] * c[e] + v[0][e] * s[e];
            }
        }
        store_floats(out, to + a, r.out_dtype, y[0]);
        store_floats(out, to + b, r.out_dtype, y[1]);
    }
}

template <class T>
DEVICE void rope(const T *x, const void *positions, const float *inv_freq, void *out, const Rope &r) {
    extern __shared__ float4 smem[];
    float *cosines = reinterpret_cast<float *>(smem), *sines = cosines + (r.per_block * r.half + 3) / 4 * 4;
    const u32 first = blockIdx.x * r.per_block, places = min(r.per_block, r.places - first);
    table<PER_VECTOR<T>>(cosines, sines, positions, inv_freq, r, first, places);
    __syncthreads();
    if (r.vectors) {
        turn<T, PER_VECTOR<T>>(x, out, cosines, sines, r, first, places);
    } else {
        turn<T, 1>(x, out, cosines, sines, r, first, places);
    }
}

#define ENTRY(name, T)                                                                                              \
    KERNEL(THREADS) rope_##name##__sm80(const T *x, const void *positions, const float *inv_freq, void *out,       \
                                        const Rope r) {                                                             \
        rope<T>(x, positions, inv_freq, out, r);                                                                    \
    }
ENTRY(f32, float)
ENTRY(bf16, bf16)
ENTRY(f16, f16)
