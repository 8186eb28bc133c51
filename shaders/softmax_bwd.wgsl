// The gradient of softmax over rows: dx = y·(dy - Σ y·dy).
//
// Bindings: y [rows, cols] of `y_dtype` and dy [rows, cols] f32 with contiguous rows at any distance; dx f32, contiguous.
//
// Algorithm: a workgroup owns a row and goes over it twice: the sum, four elements at a time; the results, neighbours by
// neighbours. The second time the row comes from the cache.
//
// Budget: 4 bytes of workgroup memory per invocation, about 25 registers: full occupancy. Bound: memory (two reads, one
// write; 4 operations for each element). A workgroup has an invocation for four elements, 32 to 256.

struct Params { at: vec4<u32>, rows: u32, cols: u32, y_stride: u32, dy_stride: u32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> y: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
override y_dtype: u32 = 0u;
// Whether rows of both operands begin at multiples of four elements.
override quads: bool = true;

fn y_at(i: u32) -> f32 { return decode(y_dtype, y[vector_of(y_dtype, i)][word_of(y_dtype, i)], i); }
fn dy_at(i: u32) -> f32 { return dy[i >> 2u][i & 3u]; }

fn row(index: u32, lane: u32) {
    if index >= p.rows { return; }
    let i = p.at.x + index * p.y_stride;
    let d = p.at.y + index * p.dy_stride;
    var all = vec4(0.0);
    for (var j = 4u * lane; j < p.cols; j += 4u * lanes) {
        if quads {
            let each = decode4(y_dtype, y[vector_of(y_dtype, i + j)], i + j) * dy[(d + j) >> 2u];
            all += select(vec4(0.0), each, vec4(j) + vec4(0u, 1u, 2u, 3u) < vec4(p.cols));
        } else {
            for (var k = j; k < min(j + 4u, p.cols); k++) { all.x = fma(y_at(i + k), dy_at(d + k), all.x); }
        }
    }
    let sum = sum_all(all.x + all.y + all.z + all.w, lane);
    for (var j = lane; j < p.cols; j += lanes) {
        dx[p.at.z + index * p.cols + j] = y_at(i + j) * (dy_at(d + j) - sum);
    }
}
