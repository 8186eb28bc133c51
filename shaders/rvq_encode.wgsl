// Residual vector quantisation, encoding.
//
// Bindings: x [n, dim], books [levels, size, dim], all f32 and contiguous; codes [levels, n] u32, quantized [n, dim],
// measure [levels, n]; residuals [groups, dim, 8], the workspace.
//
// Algorithm: a workgroup takes eight vectors through all levels. Per level:
// 1. An invocation weighs every 256th entry against all eight: Σ(r - e)², four vectors to an operand, or -r·e/‖e‖. It keeps the
//    two least for each vector; the least of all, of equals the lowest entry, is found by a tree.
// 2. Euclidean distances that the error of f32 does not tell apart (seldom more than one) are weighed again with twice the
//    digits, by an invocation for each vector. More than eight of them are as good as equal: the first stays.
// 3. The residuals lose their entries, and their lengths are summed.
// Everything is in a fixed order; only the list of 2. is not, and the choice from it does not depend on its order.
//
// Budget: about 70 registers, 9 KiB of workgroup memory. Bound: arithmetic, two instructions (of cosines one) for each of
// n·size·dim per level; books come from the second cache once for eight vectors.

struct Params {
    at: array<vec4<u32>, 2>,
    n: u32, dim: u32, size: u32, levels: u32,
    // The relative error of distances.
    slack: f32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> books: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> codes: array<u32>;
@group(0) @binding(3) var<storage, read_write> quantized: array<f32>;
@group(0) @binding(4) var<storage, read_write> measure: array<f32>;
@group(0) @binding(5) var<storage, read_write> residuals: array<vec4<f32>>;
override cosine: bool = false;
// Whether entries are whole vectors.
override entry_vectors: bool = false;

const LANES = 256u;
// The most distances that are weighed again.
const NEAR = 8u;
// A value and an entry of each invocation, for four vectors.
var<workgroup> values: array<vec4<f32>, LANES>;
var<workgroup> entries: array<vec4<u32>, LANES>;
var<workgroup> near_count: array<atomic<u32>, 8>;
var<workgroup> near: array<u32, 64>;
var<workgroup> chosen: array<u32, 8>;
var<workgroup> chosen_length: array<f32, 8>;

struct Best { value: vec4<f32>, entry: vec4<u32> }

fn book(i: u32) -> f32 { return books[i >> 2u][i & 3u]; }
fn residual(first: u32, v: u32, j: u32) -> f32 { return residuals[first + 2u * j + (v >> 2u)][v & 3u]; }

// The least of all invocations' values, of equals the lowest entry.
fn least(mine: Best, lane: u32) -> Best {
    values[lane] = mine.value;
    entries[lane] = mine.entry;
    for (var step = LANES / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step {
            let a = values[lane];
            let b = values[lane + step];
            let i = entries[lane];
            let k = entries[lane + step];
            let later = (b < a) | ((b == a) & (k < i));
            values[lane] = select(a, b, later);
            entries[lane] = select(i, k, later);
        }
    }
    workgroupBarrier();
    let all = Best(values[0], entries[0]);
    workgroupBarrier();
    return all;
}
fn sum(mine: vec4<f32>, lane: u32) -> vec4<f32> {
    values[lane] = mine;
    for (var step = LANES / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step { values[lane] += values[lane + step]; }
    }
    workgroupBarrier();
    let all = values[0];
    workgroupBarrier();
    return all;
}

fn note(v: u32, value: f32, limit: f32, entry: u32) {
    if value <= limit {
        let place = atomicAdd(&near_count[v], 1u);
        if place < NEAR { near[v * NEAR + place] = entry; }
    }
}

// Σ(r - e)² as a sum of two numbers: differences, squares and sums with what their rounding loses.
fn distance(first: u32, v: u32, entry: u32) -> vec2<f32> {
    var hi = 0.0;
    var lo = 0.0;
    for (var j = 0u; j < p.dim; j++) {
        let r = residual(first, v, j);
        let e = book(entry + j);
        let d = r - e;
        let back = d - r;
        let d_lost = (r - (d - back)) - (e + back);
        let square = d * d;
        let square_lost = fma(d, d, -square);
        let total = hi + square;
        let part = total - hi;
        let total_lost = (hi - (total - part)) + (square - part);
        lo += total_lost + (square_lost + 2.0 * d * d_lost);
        hi = total;
    }
    let all = hi + lo;
    return vec2(all, lo - (all - hi));
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = flat_workgroup(workgroup, grid);
    if group * 8u >= p.n { return; }
    // Places of the residuals, in vectors; vectors beyond the last are zeros.
    let first = p.at[1].y / 4u + group * 2u * p.dim;
    var squares_lo = vec4(0.0);
    var squares_hi = vec4(0.0);
    for (var j = lane; j < p.dim; j += LANES) {
        var r: array<vec4<f32>, 2>;
        for (var v = 0u; v < 8u; v++) {
            let i = group * 8u + v;
            if i < p.n {
                r[v >> 2u][v & 3u] = x[p.at[0].x + i * p.dim + j];
                quantized[p.at[0].w + i * p.dim + j] = 0.0;
            }
        }
        residuals[first + 2u * j] = r[0];
        residuals[first + 2u * j + 1u] = r[1];
        squares_lo = fma(r[0], r[0], squares_lo);
        squares_hi = fma(r[1], r[1], squares_hi);
    }
    var length_lo = sqrt(sum(squares_lo, lane));
    var length_hi = sqrt(sum(squares_hi, lane));
    storageBarrier();
    workgroupBarrier();

    for (var level = 0u; level < p.levels; level++) {
        let level_begin = p.at[0].y + level * p.size * p.dim;
        let start = vec4(min(lane, p.size - 1u));
        var best_lo = Best(vec4(infinity()), start);
        var best_hi = best_lo;
        var second_lo = best_lo;
        var second_hi = best_lo;
        for (var k = lane; k < p.size; k += LANES) {
            let begin = level_begin + k * p.dim;
            var lo = vec4(0.0);
            var hi = vec4(0.0);
            var square = 0.0;
            for (var j = 0u; j < p.dim; j += 4u) {
                var e: vec4<f32>;
                let count = min(4u, p.dim - j);
                if entry_vectors {
                    e = books[(begin + j) >> 2u];
                } else {
                    for (var i = 0u; i < count; i++) { e[i] = book(begin + j + i); }
                }
                square += dot(e, e);
                for (var i = 0u; i < count; i++) {
                    let r_lo = residuals[first + 2u * (j + i)];
                    let r_hi = residuals[first + 2u * (j + i) + 1u];
                    if cosine {
                        lo = fma(r_lo, vec4(-e[i]), lo);
                        hi = fma(r_hi, vec4(-e[i]), hi);
                    } else {
                        let d_lo = r_lo - vec4(e[i]);
                        let d_hi = r_hi - vec4(e[i]);
                        lo = fma(d_lo, d_lo, lo);
                        hi = fma(d_hi, d_hi, hi);
                    }
                }
            }
            if cosine {
                let length = max(sqrt(square), 1e-12);
                lo /= vec4(length);
                hi /= vec4(length);
            }
            second_lo = nearer(second_lo, lo, k, best_lo);
            best_lo = take(best_lo, lo, k);
            second_hi = nearer(second_hi, hi, k, best_hi);
            best_hi = take(best_hi, hi, k);
        }

        if lane < 8u { atomicStore(&near_count[lane], 0u); }
        let all_lo = least(best_lo, lane);
        let all_hi = least(best_hi, lane);
        if !cosine {
            for (var v = 0u; v < 4u; v++) {
                let limit_lo = all_lo.value[v] * (1.0 + p.slack);
                let limit_hi = all_hi.value[v] * (1.0 + p.slack);
                note(v, best_lo.value[v], limit_lo, best_lo.entry[v]);
                note(v, second_lo.value[v], limit_lo, second_lo.entry[v]);
                note(v + 4u, best_hi.value[v], limit_hi, best_hi.entry[v]);
                note(v + 4u, second_hi.value[v], limit_hi, second_hi.entry[v]);
            }
            workgroupBarrier();
        }
        let number = group * 8u + lane;
        if lane < 8u {
            var entry = select(all_lo.entry[lane & 3u], all_hi.entry[lane & 3u], lane >= 4u);
            let count = atomicLoad(&near_count[lane]);
            if count > 1u && count <= NEAR {
                var shortest = vec2(infinity(), 0.0);
                for (var i = 0u; i < count; i++) {
                    let other = near[lane * NEAR + i];
                    let d = distance(first, lane, level_begin + other * p.dim);
                    let same = all(d == shortest);
                    if d.x < shortest.x || (d.x == shortest.x && d.y < shortest.y) || (same && other < entry) {
                        shortest = d;
                        entry = other;
                    }
                }
            }
            chosen[lane] = entry;
            chosen_length[lane] = 1.0;
            if cosine {
                var square = 0.0;
                for (var j = 0u; j < p.dim; j++) {
                    let e = book(level_begin + entry * p.dim + j);
                    square = fma(e, e, square);
                }
                chosen_length[lane] = max(sqrt(square), 1e-12);
            }
            if number < p.n { codes[p.at[0].z + level * p.n + number] = entry; }
        }
        workgroupBarrier();

        squares_lo = vec4(0.0);
        squares_hi = vec4(0.0);
        for (var j = lane; j < p.dim; j += LANES) {
            var r = array(residuals[first + 2u * j], residuals[first + 2u * j + 1u]);
            for (var v = 0u; v < 8u; v++) {
                let i = group * 8u + v;
                if i < p.n {
                    let e = book(level_begin + chosen[v] * p.dim + j) / chosen_length[v];
                    r[v >> 2u][v & 3u] -= e;
                    quantized[p.at[0].w + i * p.dim + j] += e;
                }
            }
            residuals[first + 2u * j] = r[0];
            residuals[first + 2u * j + 1u] = r[1];
            squares_lo = fma(r[0], r[0], squares_lo);
            squares_hi = fma(r[1], r[1], squares_hi);
        }
        let old_lo = length_lo;
        let old_hi = length_hi;
        length_lo = sqrt(sum(squares_lo, lane));
        length_hi = sqrt(sum(squares_hi, lane));
        if lane < 8u && number < p.n {
            let late = lane >= 4u;
            var m = select(length_lo[lane & 3u], length_hi[lane & 3u], late);
            if cosine {
                let length = max(select(old_lo[lane & 3u], old_hi[lane & 3u], late), 1e-12);
                m = -select(all_lo.value[lane & 3u], all_hi.value[lane & 3u], late) / length;
            }
            measure[p.at[1].x + level * p.n + number] = m;
        }
        storageBarrier();
        workgroupBarrier();
    }
}

// The least and the second least with one entry more; of equals the one before stays.
fn take(best: Best, value: vec4<f32>, k: u32) -> Best {
    let closer = value < best.value;
    return Best(select(best.value, value, closer), select(best.entry, vec4(k), closer));
}
fn nearer(second: Best, value: vec4<f32>, k: u32, best: Best) -> Best {
    let next = take(second, value, k);
    let closer = value < best.value;
    return Best(select(next.value, best.value, closer), select(next.entry, best.entry, closer));
}
