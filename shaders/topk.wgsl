// The k largest values of each row in descending order, and their places: of equal values the one with the lower place
// first, NaN as the largest.
//
// Bindings: x [rows, cols] with contiguous rows at any distance, of `x_dtype`; found, u32 [rows, cols, 2]: numbers and
// places; out [rows, k] of `x_dtype` and indices [rows, k] u32, contiguous.
//
// Algorithm: a value and its place make one number of 64 bits whose order is the wanted one, so that no two are equal. A
// workgroup finds `RANKS` of the wanted ranks of a segment of a row: the numbers that the ranks begin and end with by a
// radix selection (eight bits at a time from the top, a histogram of those that agree so far; it stops as soon as all
// that agree are wanted), then all numbers between them, which are collected and sorted in the workgroup's memory by a
// bitonic network; a segment of no more than `RANKS` values is sorted whole. Where a row has several segments, each leaves
// its k largest in the workspace, from which (`found`) a second dispatch takes them in the place of the values, in the
// order of their places.
//
// Tunables: RANKS, at most 1024 for 8 KiB. Budget: 10 KiB of workgroup memory, about 30 registers: full occupancy. Bound:
// one read from memory and two to eight from the cache; the first histogram's additions meet in few bins, because numbers
// of about one size share their exponent.

struct Params {
    at: vec4<u32>,
    rows: u32, cols: u32, k: u32, segment: u32, segments: u32, blocks: u32, x_stride: u32, kept: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> found: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> indices: array<u32>;
override out_dtype: u32 = 0u;
// Whether values come from `found`, and whether `indices` takes numbers and places (`kept` for each row).
override from_found: bool = false;
override to_found: bool = false;

const LANES = 256u;
const RANKS = 1024u;
var<workgroup> bins: array<atomic<u32>, LANES>;
var<workgroup> above: array<u32, LANES>;
// The digit that was found, the rank that is left within it, and how many have it.
var<workgroup> digit_found: vec3<u32>;
var<workgroup> collected: array<vec2<u32>, RANKS>;
var<workgroup> collected_count: atomic<u32>;

fn x_bits(i: u32) -> u32 { return bits_in(out_dtype, x[vector_of(out_dtype, i)][word_of(out_dtype, i)], i); }
fn x_at(i: u32) -> f32 { return decode(out_dtype, x[vector_of(out_dtype, i)][word_of(out_dtype, i)], i); }

// The number of the value at place j of a row: its high and low half.
fn number(r: u32, j: u32) -> vec2<u32> {
    if from_found { return vec2(found[p.at.y + 2u * (r * p.cols + j)], ~j); }
    return vec2(key_1(x_at(p.at.x + r * p.x_stride + j)), ~j);
}

// The eight bits of digit d, the highest 0; and whether two numbers agree in those before it.
fn digit_of(n: vec2<u32>, d: u32) -> u32 { return (n[d >> 2u] >> (24u - 8u * (d & 3u))) & 255u; }
fn agree(a: vec2<u32>, b: vec2<u32>, d: u32) -> bool {
    let mask = ~(0xffffffffu >> (8u * (d & 3u)));
    if d < 4u { return ((a.x ^ b.x) & mask) == 0u; }
    return a.x == b.x && ((a.y ^ b.y) & mask) == 0u;
}

// The number of this rank (from 1 on) among those of the segment, with zeros for digits that make no difference.
fn ranked(r: u32, begin: u32, end: u32, rank: u32, lane: u32) -> vec2<u32> {
    var prefix = vec2(0u);
    var left = rank;
    for (var d = 0u; d < 8u; d++) {
        atomicStore(&bins[lane], 0u);
        workgroupBarrier();
        for (var j = begin + lane; j < end; j += LANES) {
            let n = number(r, j);
            if agree(n, prefix, d) { atomicAdd(&bins[digit_of(n, d)], 1u); }
        }
        workgroupBarrier();
        // How many have this digit or a larger one.
        let mine = atomicLoad(&bins[lane]);
        above[lane] = mine;
        workgroupBarrier();
        for (var step = 1u; step < LANES; step <<= 1u) {
            var more = 0u;
            if lane + step < LANES { more = above[lane + step]; }
            workgroupBarrier();
            above[lane] += more;
            workgroupBarrier();
        }
        let larger = above[lane] - mine;
        if above[lane] >= left && larger < left { digit_found = vec3(lane, left - larger, mine); }
        let f = workgroupUniformLoad(&digit_found);
        prefix[d >> 2u] |= f.x << (24u - 8u * (d & 3u));
        left = f.y;
        if f.y == f.z { break; }
    }
    return prefix;
}

fn precedes(a: vec2<u32>, b: vec2<u32>) -> bool { return a.x > b.x || (a.x == b.x && a.y > b.y); }

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let n = flat_workgroup(workgroup, grid);
    let segment = n / p.blocks % p.segments;
    let r = n / p.blocks / p.segments;
    if r >= p.rows { return; }
    let begin = segment * p.segment;
    let end = min(p.cols, begin + p.segment);
    // Ranks `low` to `high`; a last segment may be shorter than k.
    let low = n % p.blocks * RANKS;
    let high = min(min(p.k, end - begin), low + RANKS);
    let count = high - low;

    if lane == 0u { atomicStore(&collected_count, 0u); }
    workgroupBarrier();
    // A segment that fits is sorted whole.
    var last = vec2(0u);
    var held = end - begin;
    if held > RANKS {
        last = ranked(r, begin, end, high, lane);
        held = count;
    }
    var before = vec2(0u);
    if low > 0u { before = ranked(r, begin, end, low, lane); }
    for (var j = begin + lane; j < end; j += LANES) {
        let n = number(r, j);
        if precedes(last, n) || (low > 0u && !precedes(before, n)) { continue; }
        let slot = atomicAdd(&collected_count, 1u);
        if slot < RANKS { collected[slot] = n; }
    }
    // The network takes a power of two; no value is as small as what fills it up.
    var size = 1u;
    while size < held { size <<= 1u; }
    for (var i = held + lane; i < size; i += LANES) { collected[i] = vec2(0u); }
    for (var run = 2u; run <= size; run <<= 1u) {
        for (var step = run >> 1u; step > 0u; step >>= 1u) {
            workgroupBarrier();
            for (var i = lane; i < size / 2u; i += LANES) {
                let a = 2u * i - (i & (step - 1u));
                let u = collected[a];
                let v = collected[a + step];
                if precedes(v, u) == ((a & run) == 0u) {
                    collected[a] = v;
                    collected[a + step] = u;
                }
            }
        }
    }
    workgroupBarrier();

    for (var i = lane; i < count; i += LANES) {
        let at = place_of(r, ~collected[i].y);
        if to_found {
            let to = p.at.w + 2u * (r * p.kept + segment * p.k + i);
            indices[to] = collected[i].x;
            indices[to + 1u] = at;
        } else {
            indices[p.at.w + r * p.k + low + i] = at;
        }
    }
    if to_found { return; }
    let at = p.at.z + r * p.k + low;
    for (var w = first_word(at) + lane; w < end_word(at + count); w += LANES) {
        let start = word_start(w);
        var bits = vec4(0u);
        for (var i = 0u; i < per_word(out_dtype); i++) {
            if start + i < at || start + i >= at + count { continue; }
            bits[i] = x_bits(p.at.x + r * p.x_stride + place_of(r, ~collected[start + i - at].y));
        }
        store_word(w, at, at + count, bits);
    }
}

// The place in x of what stands at j.
fn place_of(r: u32, j: u32) -> u32 {
    if from_found { return found[p.at.y + 2u * (r * p.cols + j) + 1u]; }
    return j;
}
