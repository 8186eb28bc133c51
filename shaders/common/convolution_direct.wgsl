// The entry point of convolutions with few rows in a group, depthwise ones among them, computed straight from x. The module
// defines, of what convolution_tiled.wgsl names, `lhs_line lhs_value rhs_line out_line out_column out_place channel`, and
//   fn lhs_tap(c: u32, t: vec3<u32>) -> vec4<i32>    the place of tap t of channel c of x in the factor
//
// Algorithm: an invocation owns 8 neighbouring positions of a line of up to four rows of a group, and the channels of a
// split. It walks channels and taps; where positions are as far from each other as taps, what a tap sees is what the
// tap before saw one position further: it reads each point of a line once for 4 taps x 8 positions x the rows. Lanes lie
// along lines, so that neighbours read neighbours, and the lines that several taps see come from the cache.
//
// Tunables: together = 1 to 4 rows of an invocation. Budget: 8 registers a row and about 50 more; no workgroup memory.
// Bound: memory, and loads from the cache: with 7 taps in a line and one row 21 for 56 multiply-adds.

const each = 8u;
override together: u32 = 1u;
// Whether positions are as far from each other as taps along a line.
override slides: bool = true;

// Four points of a line, `step` apart, from number e on; zeros from `limit` on.
fn points(base: u32, origin: i32, step: i32, e: u32, limit: u32) -> vec4<f32> {
    var v = vec4(0.0);
    for (var j = 0u; j < 4u; j++) {
        if e + j < limit {
            let w = source(origin + i32(e + j) * step, p.size.z);
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
    // Parts of a line, lines, rows, groups, samples, splits.
    var rest = flat_workgroup(id, grid) * 128u + lane;
    let along = (rest % p.col_blocks) * each;
    rest /= p.col_blocks;
    let line = rest % (p.positions.x * p.positions.y);
    rest /= p.positions.x * p.positions.y;
    let first_row = (rest % p.row_blocks) * together;
    rest /= p.row_blocks;
    let group = rest % p.groups;
    rest /= p.groups;
    let batch = p.cols / p.all_positions;
    let part = rest / batch;
    if part >= p.splits { return; }

    let col = (rest % batch) * p.all_positions + line * p.positions.z + along;
    let count = min(each, p.positions.z - along);
    let start = rhs_line(group, col);
    var lines: array<vec4<i32>, 4>;
    for (var i = 0u; i < together; i++) { lines[i] = lhs_line(group, min(first_row + i, p.rows - 1u)); }
    var acc: array<vec4<f32>, 8>;

    let end = min((part + 1u) * p.split_depth, p.channels);
    for (var c = part * p.split_depth; c < end; c++) {
        for (var d = 0u; d < p.taps.x; d++) {
            let plane = source(start.x + i32(d) * p.dilation.x, p.size.x);
            if plane >= p.size.x { continue; }
            for (var h = 0u; h < p.taps.y; h++) {
                let row = source(start.y + i32(h) * p.dilation.y, p.size.y);
                if row >= p.size.y { continue; }
                let base = u32(start.w) + c * p.x_strides.y + plane * p.x_strides.z + row * p.x_strides.w;
                if slides {
                    let seen = count + p.taps.z - 1u;
                    let step = p.dilation.z;
                    var a = points(base, start.z, step, 0u, seen);
                    var b = points(base, start.z, step, 4u, seen);
                    for (var w = 0u; w < p.taps.z; w += 4u) {
                        let e = points(base, start.z, step, w + 8u, seen);
                        for (var i = 0u; i < together; i++) {
                            var weight = vec4(0.0);
                            for (var j = 0u; j < 4u; j++) {
                                if w + j < p.taps.z { weight[j] = lhs_value(lines[i] + lhs_tap(c, vec3(d, h, w + j))); }
                            }
                            acc[2u * i] = four_taps(weight, a, b, acc[2u * i]);
                            acc[2u * i + 1u] = four_taps(weight, b, e, acc[2u * i + 1u]);
                        }
                        a = b;
                        b = e;
                    }
                } else {
                    for (var w = 0u; w < p.taps.z; w++) {
                        let origin = start.z + i32(w) * p.dilation.z;
                        let a = points(base, origin, p.stride.z, 0u, count);
                        let b = points(base, origin, p.stride.z, 4u, count);
                        for (var i = 0u; i < together; i++) {
                            let weight = vec4(lhs_value(lines[i] + lhs_tap(c, vec3(d, h, w))));
                            acc[2u * i] = fma(weight, a, acc[2u * i]);
                            acc[2u * i + 1u] = fma(weight, b, acc[2u * i + 1u]);
                        }
                    }
                }
            }
        }
    }

    for (var q = 0u; q < 2u; q++) {
        var columns: array<vec4<i32>, 4>;
        for (var j = 0u; j < 4u; j++) { columns[j] = out_column(min(col + q * 4u + j, p.cols - 1u)); }
        for (var i = 0u; i < together; i++) {
            let r = first_row + i;
            if r >= p.rows { break; }
            let origin = out_line(group, r);
            var places = vec4(NOWHERE);
            for (var j = 0u; j < 4u; j++) {
                if q * 4u + j < count { places[j] = out_place(origin + columns[j]); }
            }
            leave(part, channel(group, r), places, acc[2u * i + q]);
        }
    }
}

// Four taps of four positions, whose points are a and b.
fn four_taps(weight: vec4<f32>, a: vec4<f32>, b: vec4<f32>, acc: vec4<f32>) -> vec4<f32> {
    var sum = fma(vec4(weight.x), a, acc);
    sum = fma(vec4(weight.y), vec4(a.yzw, b.x), sum);
    sum = fma(vec4(weight.z), vec4(a.zw, b.xy), sum);
    return fma(vec4(weight.w), vec4(a.w, b.xyz), sum);
}
