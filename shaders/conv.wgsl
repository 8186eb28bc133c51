// Convolutions: out[b, r, o] = activation(Σ_c Σ_t weight[r, c, t] · x[b, c, o · stride + t · dilation - before] + bias[r]).
//
// Bindings: x [batch, channels, depth, height, width] with contiguous lines at any distance, of `x_dtype`; factor the weight
// [rows, channels of a group, taps], contiguous, of `factor_dtype`; bias [rows]; out contiguous, of `out_dtype`; partial where
// splits are summed.
//
// Steps of the product are channels and taps as the weight has them: its rows are read as they lie, and steps are numbers.
// The algorithm, its tunables and its budget stand in the entry points, common/convolution_tiled.wgsl and
// common/convolution_direct.wgsl.

fn lhs_line(group: u32, row: u32) -> vec4<i32> {
    return vec4(0, 0, 0, i32(p.at.y + (group * p.rows + row) * p.depth));
}
fn lhs_tap(c: u32, t: vec3<u32>) -> vec4<i32> {
    return vec4(0, 0, 0, i32(((c * p.taps.x + t.x) * p.taps.y + t.y) * p.taps.z + t.z));
}
fn lhs_step(k: u32) -> vec4<i32> { return vec4(0, 0, 0, i32(k)); }
fn lhs_value(place: vec4<i32>) -> f32 { return element_of_factor(u32(place.w)); }

fn rhs_line(group: u32, col: u32) -> vec4<i32> { return position(col) + group_start(group); }
fn rhs_step(k: u32) -> vec4<i32> { return tap(k / p.all_taps, unravel(k % p.all_taps, p.taps)); }
fn rhs_value(place: vec4<i32>) -> f32 { return x_value(place); }

fn out_line(group: u32, row: u32) -> vec4<i32> {
    return vec4(0, 0, 0, i32((group * p.rows + row) * p.all_positions));
}
fn out_column(col: u32) -> vec4<i32> {
    let sample = p.groups * p.rows * p.all_positions;
    return vec4(0, 0, 0, i32(col / p.all_positions * sample + col % p.all_positions));
}
fn out_place(place: vec4<i32>) -> u32 { return u32(place.w); }
fn channel(group: u32, row: u32) -> u32 { return group * p.rows + row; }
