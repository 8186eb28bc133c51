// Softmax over rows.
//
// Bindings: x [rows, cols] with contiguous rows at any distance, of `x_dtype`; out contiguous, of `out_dtype`.
//
// Algorithm: a workgroup owns a row and goes over it three times: the maximum; the sum of 2^((x - m)·log2 e); the results.
// The second and third time a row comes from the cache, and exponentials are computed twice rather than stored. Words of
// the result are written by one invocation each.
//
// Budget: 4 bytes of workgroup memory per invocation, about 20 registers: full occupancy. Bound: memory (one read from
// DRAM, one write); two exponentials of 10 operations for each element stay below it on adapters with 20 operations per
// byte. The workgroup is as large as a row has words, from 32 to 256 invocations.

struct Params { at: vec4<u32>, rows: u32, cols: u32, x_stride: u32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<atomic<u32>>;
override x_dtype: u32 = 0u;
override out_dtype: u32 = 0u;

fn x_at(i: u32) -> f32 { return decode(x_dtype, x[vector_of(x_dtype, i)][word_of(x_dtype, i)], i); }

fn row(index: u32, lane: u32) {
    if index >= p.rows { return; }
    let begin = p.at.x + index * p.x_stride;
    var largest = -infinity();
    for (var j = lane; j < p.cols; j += lanes) { largest = max(largest, x_at(begin + j)); }
    let m = max_all(largest, lane);
    // A row of -inf alone gives zeros.
    let lowest = m == -infinity();
    let shift = select(m, 0.0, lowest);
    var sum = 0.0;
    for (var j = lane; j < p.cols; j += lanes) { sum += exp_1(x_at(begin + j) - shift); }
    let total = sum_all(sum, lane);
    let scale = select(1.0 / total, 0.0, lowest);

    let at = p.at.y + index * p.cols;
    for (var w = first_word(at) + lane; w < end_word(at + p.cols); w += lanes) {
        let i = word_start(w);
        var e = vec4(0.0);
        for (var k = 0u; k < per_word(out_dtype); k++) {
            if i + k >= at && i + k < at + p.cols { e[k] = x_at(begin + i + k - at); }
        }
        store_word(w, at, at + p.cols, encode4(out_dtype, exp_4(e - vec4(shift)) * scale));
    }
}
