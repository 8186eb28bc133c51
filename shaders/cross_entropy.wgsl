// The loss of each row of logits for its label, and the logarithm of the sum of the row's exponentials.
//
// Bindings: logits [rows, classes] with contiguous rows at any distance, of `x_dtype`; labels [rows] u32 or i32; weights
// [rows] f32; loss and lse [rows] f32; faults.
//
// Algorithm: a workgroup owns a row and reads it once, four logits at a time. Each invocation keeps the largest that it saw
// and its sum of e^(x - largest), which it scales where a new one comes (online softmax, Milakov and Gimelshein, arXiv
// 1805.02867); at the end all are scaled to the largest of the row. With m that and s the sum, the loss is
// m - x[label] + ln s: that loses no digits where the sum of m and ln s would. Rows that do not count are not read.
//
// Budget: 4 bytes of workgroup memory per invocation, about 35 registers: full occupancy. Bound: memory, one read; an
// exponential of 10 operations for each logit stays below it. A workgroup has an invocation for four logits, 32 to 256.

struct Params { at: array<vec4<u32>, 2>, rows: u32, classes: u32, x_stride: u32, ignore: u32, fault_op: u32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;
@group(0) @binding(5) var<storage, read_write> faults: Faults;
override x_dtype: u32 = 0u;
override weighted: bool = false;
// Whether rows of logits begin at multiples of four elements.
override quads: bool = true;

fn x_at(i: u32) -> f32 { return decode(x_dtype, x[vector_of(x_dtype, i)][word_of(x_dtype, i)], i); }

fn row(index: u32, lane: u32) {
    if index >= p.rows { return; }
    let label = labels[p.at[0].y + index];
    if !counts(label, index, lane == 0u) {
        if lane == 0u {
            loss[p.at[0].w + index] = 0.0;
            lse[p.at[1].x + index] = 0.0;
        }
        return;
    }
    let first = p.at[0].x + index * p.x_stride;
    var largest = -infinity();
    var sums = vec4(0.0);
    for (var j = 4u * lane; j < p.classes; j += 4u * lanes) {
        let place = vec4(j) + vec4(0u, 1u, 2u, 3u);
        var v: vec4<f32>;
        if quads {
            v = decode4(x_dtype, x[vector_of(x_dtype, first + j)], first + j);
        } else {
            let i = vec4(first) + min(place, vec4(p.classes - 1u));
            v = vec4(x_at(i.x), x_at(i.y), x_at(i.z), x_at(i.w));
        }
        v = select(vec4(-infinity()), v, place < vec4(p.classes));
        let most = max(max(v.x, v.y), max(v.z, v.w));
        if most > largest {
            sums *= exp_1(largest - most);
            largest = most;
        }
        // As long as there are only infinities, they are to count as zeros, not as NaN.
        sums += exp_4(v - vec4(select(largest, 0.0, largest == -infinity())));
    }
    let m = max_all(largest, lane);
    let mine = (sums.x + sums.y + sums.z + sums.w) * select(exp_1(largest - m), 1.0, largest == m);
    let log_sum = ln_1(sum_all(mine, lane));
    if lane == 0u {
        let weight = select(1.0, weights[p.at[0].z + select(0u, index, weighted)], weighted);
        loss[p.at[0].w + index] = weight * (m - x_at(first + label) + log_sum);
        lse[p.at[1].x + index] = m + log_sum;
    }
}
