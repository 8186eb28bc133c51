// New rows written behind those that a cache holds.
//
// Operands: x [batch, len, width] with contiguous rows at any distances, index [batch] u32; out, the cache [batch,
// capacity, width]: of one dtype, or x f32 and the cache of 16 bits.
//
// Algorithm: the rows of a sequence are one run of the cache. Each sequence has as many blocks as its rows need; an index
// that is too far leaves its sequence as it is. Rows of the cache's dtype move in words of up to 16 bytes, others are
// rounded in units of four.
//
// Budget: at most 48 registers, no shared memory; 64 bytes of a thread are under way. Bound: memory, one read and one
// write; for a token or few, the launch.
#include "common/move.cuh"

// Where the sequences lie, in bytes.
struct Sequences {
    u64 x_distance, cache_distance, row;
    Divisor blocks; // of each
    u32 limit;      // what the index must be below
};

// Where a block's sequence begins in x and in the cache; whether its index is sound.
DEVICE bool find(const u8 *&x, u8 *&out, u32 &block, const u32 *index, const Sequences &s, Faults *faults, u32 fault_op) {
    block = blockIdx.x;
    const u32 b = split(block, s.blocks), place = index[b];
    if (place >= s.limit) {
        if (block == 0 && threadIdx.x == 0) fault(faults, fault_op, place, b, s.limit);
        return false;
    }
    x += b * s.x_distance;
    out += b * s.cache_distance + place * s.row;
    return true;
}

KERNEL(WALKERS) cache_append_any__sm80(const u8 *x, const u32 *index, u8 *out, const Sequences sequences,
                                       const Walk<2> walk, u32 word, Faults *faults, u32 fault_op) {
    u32 block;
    if (find(x, out, block, index, sequences, faults, fault_op)) move_words(x, out, walk, word, block);
}

constexpr int QUAD = 4, UNITS = 4;

KERNEL(WALKERS) cache_append_f32__sm80(const u8 *x, const u32 *index, u8 *out, const Sequences sequences,
                                       const Walk<1> walk, u32 out_dtype, Faults *faults, u32 fault_op) {
    u32 block;
    if (!find(x, out, block, index, sequences, faults, fault_op)) return;
    Words<u32, QUAD> v[UNITS][1];
    load_units<u32, QUAD>(v, {(const u32 *)x}, walk, block * UNITS);
#pragma unroll
    for (int u = 0; u < UNITS; u++) {
        float f[QUAD];
#pragma unroll
        for (int e = 0; e < QUAD; e++) f[e] = __uint_as_float(v[u][0].at[e]);
        const Words<u16, QUAD> bits = out_dtype == BF16
            ? Words<u16, QUAD>{pack<bf16>(f[0], f[1]), pack<bf16>(f[2], f[3])}
            : Words<u16, QUAD>{pack<f16>(f[0], f[1]), pack<f16>(f[2], f[3])};
        store_unit<u16, QUAD>((u16 *)out, walk, block * UNITS + u, bits);
    }
}
