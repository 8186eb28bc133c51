// Gradients of convolutions' weights: weight[r, c, t] = Σ_b Σ_o grad[b, r, o] · x[b, c, o · stride + t · dilation - before].
//
// Bindings: x [batch, channels, depth, height, width] with contiguous lines at any distance; factor the gradient
// [batch, rows, positions], contiguous; bias absent; out [rows, channels of a group, taps], contiguous; partial where splits
// are summed. All f32.
//
// The product's rows are the gradient's, its columns channels of x with their taps, its steps positions of all samples:
// what is a column and what a step of x is the other way round than in conv.wgsl. Long sums over few weights are split. The
// algorithm, its tunables and its budget stand in the entry point, common/convolution_tiled.wgsl.

fn lhs_line(group: u32, row: u32) -> vec4<i32> {
    return vec4(0, 0, 0, i32(p.at.y + (group * p.rows + row) * p.all_positions));
}
fn lhs_step(k: u32) -> vec4<i32> {
    let sample = p.groups * p.rows * p.all_positions;
    return vec4(0, 0, 0, i32(k / p.all_positions * sample + k % p.all_positions));
}
fn lhs_value(place: vec4<i32>) -> f32 { return element_of_factor(u32(place.w)); }

fn rhs_line(group: u32, col: u32) -> vec4<i32> {
    return tap(col / p.all_taps, unravel(col % p.all_taps, p.taps)) + group_start(group);
}
fn rhs_step(k: u32) -> vec4<i32> { return position(k); }
fn rhs_value(place: vec4<i32>) -> f32 { return x_value(place); }

fn out_line(group: u32, row: u32) -> vec4<i32> { return vec4(0, 0, 0, i32((group * p.rows + row) * p.cols)); }
fn out_column(col: u32) -> vec4<i32> { return vec4(0, 0, 0, i32(col)); }
fn out_place(place: vec4<i32>) -> u32 { return u32(place.w); }
fn channel(group: u32, row: u32) -> u32 { return group * p.rows + row; }
