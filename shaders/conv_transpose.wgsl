// Transposed convolutions: out[b, r, i · stride + k · dilation - before] += weight[c, r, k] · x[b, c, i], plus bias[r].
//
// Bindings: x [batch, channels, depth, height, width] with contiguous lines at any distance, of `x_dtype`; factor the weight
// [channels, rows, taps], contiguous, of `factor_dtype`; bias [rows]; out contiguous, of `out_dtype`; partial where splits
// are summed.
//
// Algorithm: each output is gathered. Along an axis of stride s the point o + before = s·j + f of phase f gets tap
// k = s·t + f from point j - t: s·rows rows of an ordinary convolution of stride 1, whose weight lies in memory as its rows
// and taps t want it, whose positions are j, and whose results are interleaved. With a dilation d the tap is (s·t + f) / d
// where that is whole; where s divides d (always if it is 1) only every d/s-th t is walked. Phases without a t-th tap
// multiply by zero, which makes NaN of points that are not finite: there are none where s divides the number of taps and d
// is 1. Taps are walked from the last to the first, so that points ascend.
//
// Product, tunables and budget stand in the entry points, common/convolution_tiled.wgsl and
// common/convolution_direct.wgsl; there rows are those of all phases, taps are t, positions j.

// A row of the product as one of the result, behind the phase.
fn phase(row: u32) -> vec4<i32> {
    return vec4<i32>(vec4(unravel(row % p.all_phases, p.phases), row / p.all_phases));
}
fn rows_out() -> u32 { return p.rows / p.all_phases; }

fn lhs_line(group: u32, row: u32) -> vec4<i32> {
    let f = phase(row);
    let first = p.at.y + group * p.channels * rows_out() * p.all_kernel;
    return vec4(f.xyz, i32(first + u32(f.w) * p.all_kernel));
}
fn lhs_tap(c: u32, t: vec3<u32>) -> vec4<i32> {
    return vec4(vec3<i32>((p.taps - vec3(1u) - t) * p.tap_step), i32(c * rows_out() * p.all_kernel));
}
fn lhs_step(k: u32) -> vec4<i32> { return lhs_tap(k / p.all_taps, unravel(k % p.all_taps, p.taps)); }
fn lhs_value(place: vec4<i32>) -> f32 {
    var k = vec3<u32>(place.xyz);
    if any(p.every != vec3(1u)) {
        let q = k;
        k = q / p.every;
        if any(k * p.every != q) { return 0.0; }
    }
    if any(k >= p.kernel) { return 0.0; }
    return element_of_factor(u32(place.w) + (k.x * p.kernel.y + k.y) * p.kernel.z + k.z);
}

fn rhs_line(group: u32, col: u32) -> vec4<i32> { return position(col) + group_start(group); }
fn rhs_step(k: u32) -> vec4<i32> { return tap(k / p.all_taps, unravel(k % p.all_taps, p.taps)); }
fn rhs_value(place: vec4<i32>) -> f32 { return x_value(place); }

fn out_line(group: u32, row: u32) -> vec4<i32> {
    let f = phase(row);
    return vec4(f.xyz, i32((group * rows_out() + u32(f.w)) * p.all_out));
}
fn out_column(col: u32) -> vec4<i32> {
    let j = vec3<i32>(unravel(col % p.all_positions, p.positions) * p.phases);
    return vec4(j - p.lead, i32(col / p.all_positions * p.groups * rows_out() * p.all_out));
}
fn out_place(place: vec4<i32>) -> u32 {
    let o = vec3<u32>(place.xyz);
    if any(o >= p.out_size) { return NOWHERE; }
    return u32(place.w) + (o.x * p.out_size.y + o.y) * p.out_size.z + o.z;
}
fn channel(group: u32, row: u32) -> u32 { return group * rows_out() + row / p.all_phases; }
