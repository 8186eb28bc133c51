// What is applied to each value of a product: the codes are the places in `ops::activation::Activation::ALL`. Needs math.wgsl.

fn activate_4(activation: u32, x: vec4<f32>) -> vec4<f32> {
    switch activation {
        case 1u: { return max(vec4(0.0), x); }
        case 2u: { return gelu_erf_4(x); }
        case 3u: { return gelu_tanh_4(x); }
        case 4u: { return quick_gelu_4(x); }
        case 5u: { return silu_4(x); }
        case 6u: { return tanh_4(x); }
        case 7u: { return sigmoid_4(x); }
        default: { return x; }
    }
}
