// What follows the sums of a product, for four of its results. Needs activation.wgsl. The module declares
//   var<storage, read> bias: array<f32>;        [cols], with `gated` [2·cols]
//   var<storage, read> residual: array<f32>;    as the result lies
// has `cols: u32` among its parameters, and defines
//   fn bias_begin() -> u32, fn residual_begin() -> u32      the places of their first elements in their bindings

override has_bias: bool = false;
override has_residual: bool = false;
override gated: bool = false;
override activation: u32 = 0u;

fn biases(columns: vec4<u32>) -> vec4<f32> {
    let at = columns + bias_begin();
    return vec4(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
}

// `columns` of the result, and the `places` of the results from its first element on; `ups` are the sums that a gate is
// multiplied by.
fn finished(columns: vec4<u32>, places: vec4<u32>, sums: vec4<f32>, ups: vec4<f32>) -> vec4<f32> {
    var x = sums;
    if has_bias { x += biases(columns); }
    x = activate_4(activation, x);
    if gated {
        var y = ups;
        if has_bias { y += biases(columns + p.cols); }
        x *= y;
    }
    if has_residual {
        let at = places + residual_begin();
        x += vec4(residual[at.x], residual[at.y], residual[at.z], residual[at.w]);
    }
    return x;
}
