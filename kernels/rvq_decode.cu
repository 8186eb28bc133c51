// Residual vector quantisation, decoding: the sums of the chosen vectors of all levels.
//
// codes [levels, n] u32, codebooks [levels, size, dim] f32, out [n, dim] f32, all contiguous.
//
// Algorithm: a thread sums V neighbouring values over the levels, in their order, in vectors of 16 bytes where dim allows; the
// loop is unrolled so that four levels' loads are under way. A code that does not exist adds nothing and is reported once.
//
// Budget: about 40 registers, full occupancy. Bound: memory, reading the chosen vectors (from the second cache, where
// codebooks fit) and writing the sums.
#include "common/base.cuh"

template <int V>
DEVICE void rvq_decode(const u32 *codes, const float *books, float *out, u32 n, u32 dim, u32 size, u32 levels,
                       Faults *faults, u32 fault_op) {
    const u32 pieces = dim / V;
    const u64 piece = (u64)blockIdx.x * 256 + threadIdx.x;
    const u32 i = (u32)(piece / pieces), j = (u32)(piece % pieces) * V;
    if (i >= n) return;
    float sum[V] = {};
#pragma unroll 4
    for (u32 level = 0; level < levels; level++) {
        const u32 place = level * n + i, code = codes[(u64)level * n + i];
        if (code < size) {
            const Vec<float, V> e = load_vec<float, V>(books + ((u64)level * size + code) * dim + j);
#pragma unroll
            for (int v = 0; v < V; v++) sum[v] += e.at[v];
        } else if (j == 0) {
            fault(faults, fault_op, code, place, size);
        }
    }
    store_values(out + (u64)i * dim + j, sum);
}

KERNEL(256)
rvq_decode_f32__sm80(const u32 *codes, const float *books, float *out, u32 n, u32 dim, u32 size, u32 levels, Faults *faults,
                     u32 fault_op) {
    rvq_decode<1>(codes, books, out, n, dim, size, levels, faults, fault_op);
}
KERNEL(256)
rvq_decode_f32_v4__sm80(const u32 *codes, const float *books, float *out, u32 n, u32 dim, u32 size, u32 levels,
                        Faults *faults, u32 fault_op) {
    rvq_decode<4>(codes, books, out, n, dim, size, levels, faults, fault_op);
}
