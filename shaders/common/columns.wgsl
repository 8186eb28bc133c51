// The entry point of kernels that reduce [outer, len, inner] over `len`: a workgroup takes one segment of the rows and
// 4·across columns; an invocation takes four columns of every (256 / across)-th row, and what it has is joined with the
// others' through memory, always in the same order. The module's parameters begin, behind `at`, with
//   outer: u32, len: u32, inner: u32, segment: u32,
// and it defines (of a Pair those that need only one use `a`)
//   fn start() -> Pair
//   fn take(all: Pair, o: u32, j: u32, column: u32) -> Pair      with row j of o; columns beyond `inner` do not matter, but
//                                                                must not be read
//   fn join(a: Pair, b: Pair) -> Pair
//   fn give(o: u32, segment: u32, column: u32, all: Pair)        stores columns `column` to column + 3 below `inner`
// Workgroup memory: 8 KiB.

override across: u32 = 32u;
struct Pair { a: vec4<f32>, b: vec4<f32> }
var<workgroup> pairs: array<Pair, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tiles = (p.inner + 4u * across - 1u) / (4u * across);
    let segments = max(1u, (p.len + p.segment - 1u) / p.segment);
    let n = flat_workgroup(workgroup, grid);
    let segment = n / tiles % segments;
    let o = n / tiles / segments;
    if o >= p.outer { return; }
    let column = 4u * (n % tiles * across + lane % across);
    var all = start();
    if column < p.inner {
        let end = min(p.len, (segment + 1u) * p.segment);
        for (var j = segment * p.segment + lane / across; j < end; j += 256u / across) { all = take(all, o, j, column); }
    }
    pairs[lane] = all;
    for (var step = 128u; step >= across; step >>= 1u) {
        workgroupBarrier();
        if lane < step { pairs[lane] = join(pairs[lane], pairs[lane + step]); }
    }
    if lane < across && column < p.inner { give(o, segment, column, pairs[lane]); }
}
