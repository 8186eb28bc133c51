// Rows of a table by their numbers.
//
// Operands: table [count, width] at any distances, or of quantised blocks; ids [n]; out [n, width] contiguous. An id beyond
// the table is reported, and its row is left as it is.
//
// Algorithm: the result is cut into units: words of up to 16 bytes where rows are taken as they are, four values where they
// are widened to f32, twice eight values of a block where they are dequantised. A thread finds row and id of each of its
// units, and has the loads of all of them under way.
//
// Budget: at most 64 registers, no shared memory; 64 bytes of a thread are under way. Bound: memory, reading the rows that
// are wanted and writing the result.
#include "common/quant.cuh"
#include "common/walk.cuh"

struct Rows {
    u64 stride;    // of the table's rows: in its units, or in bytes of blocks
    u32 step;      // from unit to unit of a row
    u32 total;     // units of the result, below 2^31
    Divisor units; // of a row
    u32 count;     // what ids must be below
    u32 first;     // the row of the whole result that this one begins with
};

// Reports the id of row i if it is beyond the table, once for the row.
DEVICE void report(const u32 *ids, u32 unit, const Rows &rows, Faults *faults, u32 fault_op) {
    const u32 i = split(unit, rows.units), id = ids[i];
    if (id >= rows.count && unit == 0) fault(faults, fault_op, id, rows.first + i, rows.count);
}

// A unit of the table as one of the result.
template <class Out, class In>
DEVICE Out unit_as(const In &x, u32 dtype) {
    if constexpr (sizeof(In) == sizeof(Out)) {
        return x;
    } else if constexpr (sizeof(In) == 2) {
        return dtype == BF16 ? value(bf16{x}) : value(f16{x});
    } else {
        Out y;
#pragma unroll
        for (int e = 0; e < Out::size; e++) y.at[e] = unit_as<float>(x.at[e], dtype);
        return y;
    }
}

template <class In, class Out>
DEVICE void gather(const In *table, const u32 *ids, Out *out, const Rows &rows, u32 dtype, Faults *faults, u32 fault_op) {
    constexpr int N = sizeof(Out) == 16 ? 4 : 8;
    const u32 first = blockIdx.x * N * WALKERS + threadIdx.x;
    u32 id[N];
#pragma unroll
    for (int k = 0; k < N; k++) {
        const u32 unit = first + k * WALKERS;
        if (unit < rows.total) id[k] = ids[unit / rows.units];
    }
    In v[N];
#pragma unroll
    for (int k = 0; k < N; k++) {
        const u32 unit = first + k * WALKERS;
        u32 j = unit;
        split(j, rows.units);
        if (unit < rows.total && id[k] < rows.count) v[k] = table[id[k] * rows.stride + (u64)j * rows.step];
    }
    bool all_sound = true;
#pragma unroll
    for (int k = 0; k < N; k++) {
        const u32 unit = first + k * WALKERS;
        const bool sound = unit < rows.total && id[k] < rows.count;
        if (sound) out[unit] = unit_as<Out>(v[k], dtype);
        all_sound &= sound;
    }
    if (all_sound) return;
#pragma unroll 1
    for (u32 unit = first; unit < min(first + N * WALKERS, rows.total); unit += WALKERS) {
        report(ids, unit, rows, faults, fault_op);
    }
}

KERNEL(WALKERS) gather_any__sm80(const void *table, const u32 *ids, void *out, u32 word, const Rows rows, Faults *faults,
                                 u32 fault_op) {
    switch (word) {
        case 16: gather((const Vec<u32, 4> *)table, ids, (Vec<u32, 4> *)out, rows, 0, faults, fault_op); break;
        case 8: gather((const Vec<u32, 2> *)table, ids, (Vec<u32, 2> *)out, rows, 0, faults, fault_op); break;
        case 4: gather((const u32 *)table, ids, (u32 *)out, rows, 0, faults, fault_op); break;
        default: gather((const u16 *)table, ids, (u16 *)out, rows, 0, faults, fault_op);
    }
}

KERNEL(WALKERS) gather_f32__sm80(const void *table, const u32 *ids, void *out, u32 quads, u32 dtype,
                                 const Rows rows, Faults *faults, u32 fault_op) {
    if (quads) {
        gather((const Vec<u16, 4> *)table, ids, (Vec<float, 4> *)out, rows, dtype, faults, fault_op);
    } else {
        gather((const u16 *)table, ids, (float *)out, rows, dtype, faults, fault_op);
    }
}

template <u32 Q>
DEVICE void dequantise(const u8 *row, float *out, u32 u, u32 width) {
    const QuantUnit x = Quant<Q>::load(row, u, width);
    const u32 k = first_of_unit<Quant<Q>::GAP>(u);
#pragma unroll
    for (u32 octet = 0; octet < 2; octet++) {
        const u32 at = k + octet * Quant<Q>::GAP;
        if (at >= width) return;
        float q[8];
        quant_octet<Q>(q, x, octet);
#pragma unroll
        for (int e = 0; e < 8; e++) q[e] = fmaf(q[e], x.factor[octet], x.offset[octet]);
        if (is_aligned(out + at)) {
            store_values(out + at, q);
        } else {
#pragma unroll
            for (int e = 0; e < 8; e++) out[at + e] = q[e];
        }
    }
}

KERNEL(WALKERS) gather_blocks__sm80(const u8 *table, const u32 *ids, float *out, u32 width, u32 quant,
                                    const Rows rows, Faults *faults, u32 fault_op) {
    const u32 unit = blockIdx.x * WALKERS + threadIdx.x;
    if (unit >= rows.total) return;
    u32 u = unit;
    const u32 i = split(u, rows.units), id = ids[i];
    if (id >= rows.count) {
        if (u == 0) fault(faults, fault_op, id, rows.first + i, rows.count);
        return;
    }
    table += id * rows.stride;
    out += (u64)i * width;
    switch (quant) {
        case Q8_0: dequantise<Q8_0>(table, out, u, width); break;
        case Q4_0: dequantise<Q4_0>(table, out, u, width); break;
        case Q4_1: dequantise<Q4_1>(table, out, u, width); break;
        case Q4_K: dequantise<Q4_K>(table, out, u, width); break;
        default: dequantise<Q6_K>(table, out, u, width);
    }
}
