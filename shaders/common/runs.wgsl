// The entry point of kernels that fill equally long runs of elements of a result, which may begin anywhere and share words with
// what lies around them. An invocation writes one word of one run. Needs row_out.wgsl, and the module has as its first
// parameters
//   runs: u32, run_len: u32    how many, and elements of each
// and defines
//   fn run_begin(run: u32) -> u32               the place of its first element in the binding of `out`, or NOWHERE
//   fn run_bits(run: u32, i: u32) -> u32        element i of it, as bits

const NOWHERE = 0xffffffffu;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // A run of narrow elements may begin inside of a word.
    let per = per_word(out_dtype);
    let words = (p.run_len + per - 1u) / per + select(0u, 1u, per > 1u);
    let id = flat_workgroup(workgroup, grid) * 256u + lane;
    let run = id / words;
    if run >= p.runs { return; }
    let begin = run_begin(run);
    if begin == NOWHERE { return; }
    let end = begin + p.run_len;
    let w = first_word(begin) + id - run * words;
    if w >= end_word(end) { return; }
    let start = word_start(w);
    var bits = vec4(0u);
    for (var k = 0u; k < per; k++) {
        if start + k >= begin && start + k < end { bits[k] = run_bits(run, start + k - begin); }
    }
    store_word(w, begin, end, bits);
}
