// The entry point of kernels whose result is contiguous and whose elements do not depend on each other. An invocation
// owns 16 bytes of `out`, so that no two write one word; where the result begins or ends within them, what else they hold
// is kept. The module defines
//   var<storage, read_write> out: array<vec4<u32>>;
//   override out_dtype: u32;
//   fn quad_bits(i: u32) -> vec4<u32>    elements i to i + 3 of the result as bits, at least one of which belongs to it; others
//                                        do not matter, but must not be read for (indices are kept inside)
//   fn out_at() -> u32                   the place of `out` in its binding
// and has `total: u32`, the number of elements, as its first parameter.

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let per = per_vector(out_dtype);
    let at = out_at();
    let v = at / per + flat_workgroup(workgroup, grid) * 256u + lane;
    // Elements of the vector before those of the result, and the first that belongs to it.
    let lead = select(0u, at - v * per, v * per < at);
    let i = v * per + lead - at;
    if i >= p.total { return; }
    let count = min(per - lead, p.total - i);
    let first = i - lead;
    var bits: vec4<u32>;
    switch log_bytes(out_dtype) {
        case 0u: {
            bits = vec4(quarters(quad(first)), quarters(quad(first + 4u)),
                        quarters(quad(first + 8u)), quarters(quad(first + 12u)));
        }
        case 1u: { bits = halves(quad(first), quad(first + 4u)); }
        default: { bits = quad(first); }
    }
    if count < per {
        let old = out[v];
        bits = (bits & kept(lead, count)) | (old & ~kept(lead, count));
    }
    out[v] = bits;
}

// Quads that lie outside of the result altogether are not asked for; `i` of one that begins before it has wrapped around.
fn quad(i: u32) -> vec4<u32> {
    if i + 3u < p.total + 3u { return quad_bits(i); }
    return vec4(0u);
}

// The bits of elements `lead` to `lead + count` of a vector.
fn kept(lead: u32, count: u32) -> vec4<u32> {
    let shift = 3u + log_bytes(out_dtype);
    let begin = vec4<i32>(i32(lead << shift)) - vec4(0, 32, 64, 96);
    let end = vec4<i32>(i32((lead + count) << shift)) - vec4(0, 32, 64, 96);
    return below(end) & ~below(begin);
}
// The lowest n bits, none below 0 and all from 32 on.
fn below(n: vec4<i32>) -> vec4<u32> {
    let some = (vec4(1u) << vec4<u32>(clamp(n, vec4(0), vec4(31)))) - vec4(1u);
    return select(some, vec4(0xffffffffu), n >= vec4(32));
}
