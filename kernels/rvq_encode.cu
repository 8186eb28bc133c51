// Residual vector quantisation, encoding: all levels of a block of vectors in one kernel.
//
// x [n, dim], books [levels, size, dim], all f32 and contiguous; codes [levels, n] u32, quantized [n, dim], measure [levels, n].
//
// Algorithm. `prepare` makes of each entry e an f16 image, scaled by a power of two, and of ‖e‖² the other terms of its score
// r·e - ‖e‖²/2 (of cosines r·e/‖e‖). Then a block takes its vectors through all levels; at each one
// 1. the residuals lose the entries of the level before. They lie in `quantized`, which stays in the second cache, and as an
//    f16 image, scaled by one power of two for the block, in shared memory;
// 2. the tensor cores multiply the images; scores stay in registers. A row's largest score so far is kept, and in shared
//    memory the entries within `window` of it: twice what the score can err by, bounded by the inequality of Cauchy and
//    Schwarz (two roundings to 11 bits, so that seldom one vector in ten has a second entry there);
// 3. where there is more than one such entry, each is weighed again in f64 by the direct form Σ(r - e)² (or the cosine), of
//    equals the lowest first; if there were more than CAPACITY, all entries are. So codes are those of exact scores.
// What f32 on the FMA pipes would need at the peak (dim 128: 2 flops a product at 1/15 of the rate) is more than all of this,
// and splitting f32 in three products of halves costs three times step 2 to avoid step 3.
//
// Tunables: rows of a block and how warps share them; 128 codes to a tile, 64 columns to a stage of 17 KiB, 3 stages.
// Budget: m128: 256 threads, 128 registers, 94 KiB of shared memory with 128 columns: two blocks on a multiprocessor. m32, for
// few vectors or wide ones (up to 1600 columns): 128 threads, 110 registers, 64 KiB. Bound: tensor cores, 2·n·size·dim per
// level, and four instructions of a lane for each score; a block reads the images of all entries from the second cache.
#include "common/matrix.cuh"
#include "common/reduce.cuh"

constexpr u32 TILE = 128;
constexpr u32 COLUMNS = 64;
constexpr u32 IMAGE_BYTES = TILE * COLUMNS * 2;
constexpr u32 STAGE_BYTES = IMAGE_BYTES + TILE * 8;
constexpr u32 STAGES = 3;
// Entries near the largest score that a row can note.
constexpr u32 CAPACITY = 8;
constexpr float SHORTEST = 1e-12f;

// What turns a product of images into a score: product * scale - half.
struct alignas(8) Terms {
    float scale, half;
};

// 2^e with x * 2^-e below 2^15, for any finite x; both it and its inverse are normal numbers.
DEVICE i32 exponent_of(float x) { return min(max((i32)(__float_as_uint(x) >> 23) - 127 - 14, -120), 120); }
DEVICE float power_of_two(i32 e) { return __uint_as_float((u32)(e + 127) << 23); }

DEVICE double warp_sum(double x) {
#pragma unroll
    for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
    return x;
}

// A warp for each entry, also for those that fill the last tile up: they get scores of -infinity.
KERNEL(256)
rvq_encode_prepare__sm80(const float *books, f16 *image, Terms *terms, float *lengths, u32 levels, u32 size, u32 dim,
                         u32 cosine) {
    const u32 tiles = ceil_div(size, TILE), chunks = ceil_div(dim, COLUMNS), lane = threadIdx.x % 32;
    const u32 entry = blockIdx.x * 8 + threadIdx.x / 32;
    if (entry >= levels * tiles * TILE) return;
    const u32 level = entry / (tiles * TILE), k = entry % (tiles * TILE);
    const bool there = k < size;
    const float *e = books + ((u64)level * size + k) * dim;
    float largest = 0.0f, square = 0.0f;
    for (u32 j = lane; there && j < dim; j += 32) {
        largest = fmaxf(largest, fabsf(e[j]));
        square += e[j] * e[j];
    }
    largest = warp_reduce(largest, Max());
    square = warp_reduce(square, Add());
    const i32 exponent = exponent_of(largest);
    const float inverse = power_of_two(-exponent), length = fmaxf(sqrtf(square), SHORTEST);
    u8 *tile = reinterpret_cast<u8 *>(image) + (u64)(entry / TILE) * chunks * IMAGE_BYTES;
    for (u32 chunk = 0; chunk < chunks; chunk++) {
        const u32 j = chunk * COLUMNS + 2 * lane;
        const float lo = there && j < dim ? e[j] * inverse : 0.0f, hi = there && j + 1 < dim ? e[j + 1] * inverse : 0.0f;
        const u32 at = chunk * IMAGE_BYTES + swizzled<8>(entry % TILE, lane / 4) + lane % 4 * 4;
        *reinterpret_cast<u32 *>(tile + at) = pack<f16>(lo, hi);
    }
    if (lane == 0) {
        const float scale = power_of_two(exponent);
        terms[entry] = Terms{cosine ? scale / length : scale, there ? (cosine ? 0.0f : 0.5f * square) : infinity()};
        lengths[entry] = there ? length : 0.0f;
    }
}

// What the exact comparison minimises: Σ(r - e)², or of cosines -r·e/‖e‖. The warp's lanes share the columns.
DEVICE double weigh(const float *r, const float *e, u32 dim, bool cosine) {
    double sum = 0.0, square = 0.0;
    for (u32 j = threadIdx.x % 32; j < dim; j += 32) {
        const double a = r[j], b = e[j];
        sum += cosine ? -a * b : (a - b) * (a - b);
        square += b * b;
    }
    sum = warp_sum(sum);
    if (!cosine) return sum;
    square = warp_sum(square);
    // 1/√square by Newton's steps from 24 bits: no division of doubles, which would be a call.
    double inverse = fminf(rsqrtf((float)square), 1.0f / SHORTEST);
    if (inverse < 1.0f / SHORTEST) {
#pragma unroll
        for (int i = 0; i < 2; i++) inverse *= 1.5 - 0.5 * square * inverse * inverse;
    }
    return sum * inverse;
}

struct Nearest {
    double least = infinity();
    u32 code = 0;
    DEVICE void take(double value, u32 k) {
        if (value < least || (value == least && k < code)) {
            least = value;
            code = k;
        }
    }
};
DEVICE u32 nearest_of_all(const float *r, const float *book, u32 size, u32 dim, bool cosine) {
    Nearest best;
    for (u32 k = 0; k < size; k++) best.take(weigh(r, book + (u64)k * dim, dim, cosine), k);
    return best.code;
}

// The problem, and what one warp does with one vector.
struct Problem {
    const float *x, *books;
    u32 *codes;
    float *quantized, *measure;
    u32 n, dim, size, levels, cosine, unused;

    DEVICE const float *entry(u32 level, u32 code) const { return books + ((u64)level * size + code) * dim; }
    DEVICE float *residual(u32 i) const { return quantized + (u64)i * dim; }
    DEVICE void begin(u32 i) const {
        for (u32 j = threadIdx.x % 32; j < dim; j += 32) residual(i)[j] = x[(u64)i * dim + j];
        __syncwarp();
    }
    // What of an entry is handed on: itself, or its unit vector.
    DEVICE float part(float e, float length) const { return cosine ? e / length : e; }
    DEVICE float divisor(const float *e) const {
        if (!cosine) return 1.0f;
        float square = 0.0f;
        for (u32 j = threadIdx.x % 32; j < dim; j += 32) square += e[j] * e[j];
        return fmaxf(sqrtf(warp_reduce(square, Add())), SHORTEST);
    }
    // The residual loses an entry; the code and the measure are written. `length` is ‖r‖ and becomes that of what is left.
    DEVICE void lose(u32 i, u32 level, u32 code, float &length) const {
        float *r = residual(i);
        const float *e = entry(level, code);
        const float by = divisor(e);
        float product = 0.0f, square = 0.0f;
        for (u32 j = threadIdx.x % 32; j < dim; j += 32) {
            const float had = r[j], loses = part(e[j], by), left = had - loses;
            product += had * loses;
            square += left * left;
            r[j] = left;
        }
        const float cosine_of = warp_reduce(product, Add()) / fmaxf(length, SHORTEST);
        length = sqrtf(warp_reduce(square, Add()));
        if (threadIdx.x % 32 == 0) {
            codes[(u64)level * n + i] = code;
            measure[(u64)level * n + i] = cosine ? cosine_of : length;
        }
        __syncwarp();
    }
    // The sum of the chosen entries, level by level, takes the residual's place.
    DEVICE void end(u32 i) const {
        constexpr u32 EACH = 4;
        for (u32 first = 0; first < dim; first += 32 * EACH) {
            float sum[EACH] = {};
            for (u32 level = 0; level < levels; level++) {
                const float *e = entry(level, codes[(u64)level * n + i]);
                const float by = divisor(e);
#pragma unroll
                for (u32 x = 0; x < EACH; x++) {
                    const u32 j = first + 32 * x + threadIdx.x % 32;
                    if (j < dim) sum[x] += part(e[j], by);
                }
            }
#pragma unroll
            for (u32 x = 0; x < EACH; x++) {
                const u32 j = first + 32 * x + threadIdx.x % 32;
                if (j < dim) residual(i)[j] = sum[x];
            }
        }
    }
    DEVICE float length(u32 i) const {
        float square = 0.0f;
        for (u32 j = threadIdx.x % 32; j < dim; j += 32) square += residual(i)[j] * residual(i)[j];
        return sqrtf(warp_reduce(square, Add()));
    }
};

// A warp for each vector, all scores exact: for vectors too wide for shared memory.
KERNEL_OF(256, 4)
rvq_encode_f32_direct__sm80(Problem p) {
    const u32 i = blockIdx.x * 8 + threadIdx.x / 32;
    if (i >= p.n) return;
    p.begin(i);
    float length = p.length(i);
    for (u32 level = 0; level < p.levels; level++) {
        const u32 code = nearest_of_all(p.residual(i), p.entry(level, 0), p.size, p.dim, p.cosine);
        p.lose(i, level, code, length);
    }
    p.end(i);
}

// MT x NT fragments of 16 x 8 scores for a warp, WARPS_M x WARPS_N warps.
template <int MT, int NT, int WARPS_M, int WARPS_N>
DEVICE void rvq_encode(const Problem &p, const u8 *image, const Terms *terms, const float *lengths) {
    constexpr u32 ROWS = 16 * MT * WARPS_M, WARPS = WARPS_M * WARPS_N, THREADS = 32 * WARPS, NEAR_LISTS = WARPS_N * ROWS;
    static_assert(8 * NT * WARPS_N == TILE, "warps cover a tile");
    extern __shared__ __align__(128) u8 smem[];
    const u32 thread = threadIdx.x, lane = thread % 32, warp = thread / 32, warp_m = warp / WARPS_N, warp_n = warp % WARPS_N;
    const u32 chunks = ceil_div(p.dim, COLUMNS), tiles = ceil_div(p.size, TILE), first = blockIdx.x * ROWS;
    u8 *stages = smem, *residuals = smem + STAGES * STAGE_BYTES;
    u32 *near = reinterpret_cast<u32 *>(residuals + chunks * ROWS * COLUMNS * 2), *near_count = near + NEAR_LISTS * CAPACITY;
    float *tops = reinterpret_cast<float *>(near_count + NEAR_LISTS), *windows = tops + NEAR_LISTS, *norms = windows + ROWS,
          *scratch = norms + ROWS;

    // Stages follow each other through tiles and levels alike; a tile's terms come with its last columns.
    const u32 steps = p.levels * tiles * chunks;
    u32 next = 0, next_chunk = 0, next_tile = 0;
    auto load = [&] {
        if (next < steps) {
            const u32 to = smem_address(stages + next % STAGES * STAGE_BYTES);
            const u8 *from = image + (u64)next * IMAGE_BYTES;
#pragma unroll
            for (u32 c = 0; c < IMAGE_BYTES / 16; c += THREADS) copy_async_16(to + (c + thread) * 16, from + (c + thread) * 16);
            next++;
            if (++next_chunk == chunks) {
                if (thread < TILE / 2) copy_async_16(to + IMAGE_BYTES + thread * 16, terms + next_tile * TILE + thread * 2);
                next_chunk = 0;
                next_tile++;
            }
        }
        copy_commit();
    };
#pragma unroll
    for (u32 i = 0; i + 1 < STAGES; i++) load();

    for (u32 row = warp; row < ROWS; row += WARPS) {
        float length = 0.0f;
        if (first + row < p.n) {
            p.begin(first + row);
            length = p.length(first + row);
        }
        if (lane == 0) norms[row] = length;
    }
    u32 step = 0;
    for (u32 level = 0; level < p.levels; level++) {
        // The block's scale, and the windows.
        float longest = 0.0f, largest = 0.0f;
        for (u32 k = thread; k < tiles * TILE; k += THREADS) longest = fmaxf(longest, lengths[level * tiles * TILE + k]);
        longest = block_reduce(longest, scratch, Max());
        if (p.cosine) longest = 1.0f;
        for (u32 row = warp; row < ROWS && first + row < p.n; row += WARPS) {
            const float *r = p.residual(first + row);
            for (u32 j = lane; j < p.dim; j += 32) largest = fmaxf(largest, fabsf(r[j]));
        }
        largest = block_reduce(largest, scratch, Max());
        const i32 exponent = exponent_of(largest);
        const float scale = power_of_two(exponent), inverse = power_of_two(-exponent);
        for (u32 row = warp; row < ROWS; row += WARPS) {
            const bool there = first + row < p.n;
            const float *r = p.residual(first + row);
            for (u32 chunk = 0; chunk < chunks; chunk++) {
                const u32 j = chunk * COLUMNS + 2 * lane;
                const float lo = there && j < p.dim ? r[j] * inverse : 0.0f,
                            hi = there && j + 1 < p.dim ? r[j + 1] * inverse : 0.0f;
                const u32 at = chunk * ROWS * COLUMNS * 2 + swizzled<8>(row, lane / 4) + lane % 4 * 4;
                *reinterpret_cast<u32 *>(residuals + at) = pack<f16>(lo, hi);
            }
        }
        for (u32 row = thread; row < ROWS; row += THREADS) {
            // Roundings of both images (2^-11 each, and 2^-25 absolute where an image is below the normal numbers) and of f32,
            // whose sums the tensor cores cut instead of rounding, in an order of their own.
            const float sums = (float)(p.dim + 16) * 0x1p-22f, wide = sqrtf((float)p.dim);
            const float product = longest * (norms[row] * (0x1.04p-10f + sums) + wide * scale * 0x1p-24f);
            windows[row] = 2.0f * (product + (p.cosine ? 0.0f : 0.5f * longest * longest * sums));
        }
        for (u32 list = thread; list < NEAR_LISTS; list += THREADS) near_count[list] = 0;
        __syncthreads();

        float top[2 * MT];
        float window[2 * MT];
#pragma unroll
        for (int i = 0; i < 2 * MT; i++) {
            top[i] = -infinity();
            window[i] = windows[warp_m * 16 * MT + i * 8 + lane / 4];
        }
        for (u32 tile = 0; tile < tiles; tile++) {
            float acc[MT][NT][4] = {};
            u32 stage = 0;
            for (u32 chunk = 0; chunk < chunks; chunk++, step++) {
                copy_wait<STAGES - 2>();
                __syncthreads();
                load();
                stage = step % STAGES * STAGE_BYTES;
                const u32 b_at = smem_address(stages + stage), a_at = smem_address(residuals + chunk * ROWS * COLUMNS * 2);
                const u32 parts = min(COLUMNS / 16, ceil_div(p.dim - chunk * COLUMNS, 16));
                for (u32 part = 0; part < parts; part++) {
                    u32 a[MT][4], b[2][4];
                    auto load_b = [&](int n) {
                        const u32 row = warp_n * NT * 8 + n * 16 + lane / 16 * 8 + lane % 8;
                        load_matrix_4(b[n % 2], b_at + swizzled<8>(row, 2 * part + lane / 8 % 2));
                    };
#pragma unroll
                    for (int m = 0; m < MT; m++)
                        load_matrix_4(a[m], a_at + swizzled<8>((warp_m * MT + m) * 16 + lane % 16, 2 * part + lane / 16));
                    load_b(0);
#pragma unroll
                    for (int n = 0; n < NT / 2; n++) {
                        if (n + 1 < NT / 2) load_b(n + 1);
#pragma unroll
                        for (int half = 0; half < 2; half++)
#pragma unroll
                            for (int m = 0; m < MT; m++)
                                mma<f16>(acc[m][2 * n + half], a[m], b[n % 2][2 * half], b[n % 2][2 * half + 1]);
                    }
                }
            }
            // Scores, and the largest of each row in this tile.
            const u32 column = warp_n * NT * 8 + lane % 4 * 2;
            const Terms *of = reinterpret_cast<const Terms *>(stages + stage + IMAGE_BYTES) + column;
            float here[2 * MT];
#pragma unroll
            for (int i = 0; i < 2 * MT; i++) here[i] = -infinity();
#pragma unroll
            for (int n = 0; n < NT; n++) {
                const float4 two = *reinterpret_cast<const float4 *>(of + n * 8);
                const float scales[2] = {two.x * scale, two.z * scale}, halves[2] = {two.y, two.w};
#pragma unroll
                for (int m = 0; m < MT; m++)
#pragma unroll
                    for (int c = 0; c < 4; c++) {
                        acc[m][n][c] = acc[m][n][c] * scales[c % 2] - halves[c % 2];
                        here[2 * m + c / 2] = fmaxf(here[2 * m + c / 2], acc[m][n][c]);
                    }
            }
#pragma unroll
            for (int i = 0; i < 2 * MT; i++) {
                here[i] = group_reduce(here[i], 4, Max());
                if (!__any_sync(0xffffffffu, here[i] >= top[i] - window[i])) continue;
                const u32 list = warp_n * ROWS + warp_m * 16 * MT + i * 8 + lane / 4;
                // What was near the largest before is not near this one.
                if (here[i] > top[i] + window[i] && lane % 4 == 0) near_count[list] = 0;
                __syncwarp();
                top[i] = fmaxf(top[i], here[i]);
#pragma unroll
                for (int n = 0; n < NT; n++)
#pragma unroll
                    for (int c = 0; c < 2; c++) {
                        const u32 code = tile * TILE + column + n * 8 + c;
                        if (acc[i / 2][n][i % 2 * 2 + c] >= top[i] - window[i] && code < p.size) {
                            const u32 place = atomicAdd(&near_count[list], 1u);
                            if (place < CAPACITY) near[list * CAPACITY + place] = code;
                        }
                    }
                __syncwarp();
            }
        }
        if (lane % 4 == 0) {
#pragma unroll
            for (int i = 0; i < 2 * MT; i++) tops[warp_n * ROWS + warp_m * 16 * MT + i * 8 + lane / 4] = top[i];
        }
        __syncthreads();

        for (u32 row = warp; row < ROWS && first + row < p.n; row += WARPS) {
            float most = -infinity();
            for (u32 w = 0; w < WARPS_N; w++) most = fmaxf(most, tops[w * ROWS + row]);
            u32 count = 0, code = 0, long_lists = 0;
            for (u32 w = 0; w < WARPS_N; w++) {
                const u32 list = w * ROWS + row;
                if (tops[list] < most - windows[row] || near_count[list] == 0) continue;
                count += near_count[list];
                long_lists += near_count[list] > CAPACITY;
                code = near[list * CAPACITY];
            }
            const u32 i = first + row;
            if (long_lists > 0 || count == 0) {
                code = nearest_of_all(p.residual(i), p.entry(level, 0), p.size, p.dim, p.cosine);
            } else if (count > 1) {
                Nearest best;
                for (u32 w = 0; w < WARPS_N; w++) {
                    const u32 list = w * ROWS + row;
                    if (tops[list] < most - windows[row]) continue;
                    for (u32 c = 0; c < near_count[list]; c++) {
                        const u32 k = near[list * CAPACITY + c];
                        best.take(weigh(p.residual(i), p.entry(level, k), p.dim, p.cosine), k);
                    }
                }
                code = best.code;
            }
            float length = norms[row];
            p.lose(i, level, code, length);
            __syncwarp();
            if (lane == 0) norms[row] = length;
        }
    }
    for (u32 row = warp; row < ROWS && first + row < p.n; row += WARPS) p.end(first + row);
    copy_wait<0>();
}

KERNEL_OF(256, 2)
rvq_encode_f32_m128__sm80(Problem p, const u8 *image, const Terms *terms, const float *lengths) {
    rvq_encode<2, 8, 4, 2>(p, image, terms, lengths);
}
KERNEL_OF(128, 4)
rvq_encode_f32_m32__sm80(Problem p, const u8 *image, const Terms *terms, const float *lengths) {
    rvq_encode<2, 4, 1, 4>(p, image, terms, lengths);
}
