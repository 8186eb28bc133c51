// Tensor cores and asynchronous copies at the level of sm_80.
//
// Fragments of mma.m16n8k16 (16-bit elements, two to a register; lane = 4 * group + t):
//   A 16x16 row-major    a0 (row group, k 2t..) a1 (row group + 8, k 2t..) a2 (row group, k 2t + 8..) a3 (row group + 8, k 2t + 8..)
//   B 16x8  k by n       b0 (k 2t.., n group)   b1 (k 2t + 8.., n group)
//   C 16x8               c0 c1 (row group, n 2t, 2t + 1)   c2 c3 (row group + 8, n 2t, 2t + 1)
#pragma once
#include "common/base.cuh"

DEVICE u32 smem_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

// 16 bytes from global to shared memory, past L1; the last `16 - bytes` of them become zero without being read.
DEVICE void copy_async_16(u32 smem, const void *from, u32 bytes = 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(smem), "l"(from), "r"(bytes) : "memory");
}
// 4 bytes, or zeros.
DEVICE void copy_async_4(u32 smem, const void *from, u32 bytes = 4) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(smem), "l"(from), "r"(bytes) : "memory");
}
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N of this thread's groups are under way. Others see the copies after a barrier.
template <int N>
DEVICE void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four 8x8 matrices of 16-bit elements; lanes 8i..8i+7 give the addresses of the rows of matrix i.
DEVICE void load_matrix_4(u32 (&r)[4], u32 smem) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(smem)
                 : "memory");
}
DEVICE void load_matrix_4_transposed(u32 (&r)[4], u32 smem) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(smem)
                 : "memory");
}

// c += a * b.
template <class T>
DEVICE void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1);
template <>
DEVICE void mma<bf16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
DEVICE void mma<f16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The results n and n + 1 of each row of fragments += a * b, b being two fragments of 16x8.
template <class T, int TILES, int N>
DEVICE void mma_pair(float (&c)[TILES][N][4], const u32 (&a)[TILES][4], const u32 (&b)[4], int n) {
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        mma<T>(c[t][n], a[t], b[0], b[1]);
        mma<T>(c[t][n + 1], a[t], b[2], b[3]);
    }
}

// Results n and n + 1 of each row of fragments, rounded, as 16x16 operands A of the next product: they lie as those want them.
template <class T, int TILES, int N>
DEVICE void as_operands(u32 (&a)[TILES][4], const float (&c)[TILES][N][4], int n) {
#pragma unroll
    for (int t = 0; t < TILES; t++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float *two = &c[t][n + i / 2][i % 2 * 2];
            a[t][i] = pack<T>(two[0], two[1]);
        }
    }
}

// Where 16-byte chunk `chunk` of row `row` lies in a tile whose rows have CHUNKS chunks (a multiple of 4): chunks of a row
// change places by exclusive or so that eight neighbouring rows of one chunk lie in different banks. In bytes.
template <int CHUNKS>
DEVICE u32 swizzled(u32 row, u32 chunk) {
    static_assert(CHUNKS % 4 == 0, "rows of whole halves of all banks");
    // Rows of an odd number of such halves: two neighbours lie in different ones.
    constexpr int SHIFT = CHUNKS % 8 == 0 ? 0 : 1;
    constexpr int MASK = CHUNKS % 8 == 0 ? 7 : 3;
    return (row * CHUNKS + (chunk ^ (row >> SHIFT & MASK))) * 16;
}
