// Gradients of convolutions' weights where groups have few rows, depthwise ones among them: conv_bwd_weight.wgsl has the
// formula and the bindings.
//
// Algorithm: a workgroup owns up to 8 taps of a line of taps of one row and one channel, and some lines of positions of all
// samples (a split). An invocation takes four neighbouring positions at a time: it reads their gradients once and the points
// that all taps see there, each once where positions are as far from each other as taps, and keeps a sum for each tap. The
// workgroup's sums are added in the same order always.
//
// Tunables: 128 invocations. Budget: 8 sums and about 40 more registers; 4 KiB of workgroup memory. Bound: loads from the
// cache, 15 for 32 multiply-adds: x and grad are read by the workgroups of all lines of taps.

const each = 8u;
const lanes = 128u;
// Whether positions are as far from each other as taps along a line.
override slides: bool = true;
var<workgroup> sums: array<vec4<f32>, 2u * lanes>;

// Four points of a line, `step` apart; zeros from number `limit` on.
fn points(base: u32, origin: i32, step: i32, limit: u32) -> vec4<f32> {
    var v = vec4(0.0);
    for (var j = 0u; j < 4u; j++) {
        if j < limit {
            let w = source(origin + i32(j) * step, p.size.z);
            if w < p.size.z { v[j] = element_of_x(base + w); }
        }
    }
    return v;
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // Parts of a line of taps, such lines, channels, rows, splits.
    var rest = flat_workgroup(id, grid);
    let first = (rest % p.col_blocks) * each;
    rest /= p.col_blocks;
    let line = rest % (p.taps.x * p.taps.y);
    rest /= p.taps.x * p.taps.y;
    let c = rest % p.channels;
    rest /= p.channels;
    let row = rest % (p.rows * p.groups);
    let part = rest / (p.rows * p.groups);
    if part >= p.splits { return; }

    let count = min(each, p.taps.z - first);
    let start = group_start(row / p.rows) + tap(c, vec3(line / p.taps.y, line % p.taps.y, first));
    let quads = (p.positions.z + 3u) / 4u;
    let lines = p.positions.x * p.positions.y;
    // Lines of positions of all samples.
    let end = min((part + 1u) * p.split_depth, p.depth / p.positions.z);
    var low = vec4(0.0);
    var high = vec4(0.0);
    for (var i = part * p.split_depth * quads + lane; i < end * quads; i += lanes) {
        let at = i / quads;
        let w = i % quads * 4u;
        let few = min(4u, p.positions.z - w);
        let sample = at / lines;
        let place = start + position((sample * lines + at % lines) * p.positions.z + w);
        let d = source(place.x, p.size.x);
        let h = source(place.y, p.size.y);
        if d >= p.size.x || h >= p.size.y { continue; }
        let base = u32(place.w) + d * p.x_strides.z + h * p.x_strides.w;
        let begin = p.at.y + ((sample * p.groups * p.rows + row) * lines + at % lines) * p.positions.z + w;
        var g = vec4(0.0);
        for (var j = 0u; j < few; j++) { g[j] = element_of_factor(begin + j); }
        if slides {
            let step = p.dilation.z;
            let seen = few + count - 1u;
            let a = points(base, place.z, step, seen);
            let b = points(base, place.z + 4 * step, step, max(seen, 4u) - 4u);
            let e = points(base, place.z + 8 * step, step, max(seen, 8u) - 8u);
            low += four_taps(g, a, b);
            high += four_taps(g, b, e);
        } else {
            for (var t = 0u; t < count; t++) {
                let product = dot(g, points(base, place.z + i32(t) * p.dilation.z, p.stride.z, few));
                if t < 4u { low[t] += product; } else { high[t - 4u] += product; }
            }
        }
    }

    sums[lane] = low;
    sums[lanes + lane] = high;
    for (var step = lanes / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step {
            sums[lane] += sums[lane + step];
            sums[lanes + lane] += sums[lanes + lane + step];
        }
    }
    workgroupBarrier();
    if lane < 2u {
        let to = ((row * p.channels + c) * p.taps.x * p.taps.y + line) * p.taps.z + first + lane * 4u;
        let left = max(count, lane * 4u) - lane * 4u;
        let places = select(vec4(NOWHERE), vec4(to) + vec4(0u, 1u, 2u, 3u), vec4(0u, 1u, 2u, 3u) < vec4(left));
        leave(part, row, places, sums[lane * lanes]);
    }
}

// What four gradients give to four taps; the points of the first are a, of the others those from one further on each.
fn four_taps(g: vec4<f32>, a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let sum = fma(vec4(g.y), vec4(a.yzw, b.x), g.x * a);
    return fma(vec4(g.w), vec4(a.w, b.xyz), fma(vec4(g.z), vec4(a.zw, b.xy), sum));
}
