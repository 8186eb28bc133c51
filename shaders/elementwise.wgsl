// Functions of one, two or three numbers, applied to each element.
//
// Bindings: x, y, z of `x_dtype` with any strides (0 where they repeat; y and z only where the function has them), out
// contiguous, of `out_dtype`.
//
// Algorithm: an invocation computes the elements of 16 bytes of the result, four at a time. An operand that is walked in
// one run from an aligned place is read by whole vectors; any other one element by element, its place computed from the
// dimensions that are left when neighbours which all operands walk in one run are merged.
//
// Budget: about 30 registers, no workgroup memory. Bound: memory.

struct Params {
    at: vec4<u32>,
    total: u32, rank: u32, a: f32, b: f32,
    dims: array<vec4<u32>, 2>,
    x_strides: array<vec4<u32>, 2>,
    y_strides: array<vec4<u32>, 2>,
    z_strides: array<vec4<u32>, 2>,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> y: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> z: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<u32>>;
override x_dtype: u32 = 0u;
override out_dtype: u32 = 0u;
// The function: its place in `Kind::ALL`, and how many operands it takes.
override kind: u32 = 0u;
override operands: u32 = 1u;
// Whether each operand is walked in one run from an aligned place.
override x_run: bool = true;
override y_run: bool = true;
override z_run: bool = true;

fn out_at() -> u32 { return p.at.w; }

fn x_element(i: u32) -> f32 { return decode(x_dtype, x[vector_of(x_dtype, i)][word_of(x_dtype, i)], i); }
fn y_element(i: u32) -> f32 { return decode(x_dtype, y[vector_of(x_dtype, i)][word_of(x_dtype, i)], i); }
fn z_element(i: u32) -> f32 { return decode(x_dtype, z[vector_of(x_dtype, i)][word_of(x_dtype, i)], i); }

fn x_quad(i: u32) -> vec4<f32> {
    if x_run { let at = p.at.x + i; return decode4(x_dtype, x[vector_of(x_dtype, at)], at); }
    let at = p.at.x + walk(i, p.total, p.rank, p.dims, p.x_strides);
    return vec4(x_element(at.x), x_element(at.y), x_element(at.z), x_element(at.w));
}
fn y_quad(i: u32) -> vec4<f32> {
    if y_run { let at = p.at.y + i; return decode4(x_dtype, y[vector_of(x_dtype, at)], at); }
    let at = p.at.y + walk(i, p.total, p.rank, p.dims, p.y_strides);
    return vec4(y_element(at.x), y_element(at.y), y_element(at.z), y_element(at.w));
}
fn z_quad(i: u32) -> vec4<f32> {
    if z_run { let at = p.at.z + i; return decode4(x_dtype, z[vector_of(x_dtype, at)], at); }
    let at = p.at.z + walk(i, p.total, p.rank, p.dims, p.z_strides);
    return vec4(z_element(at.x), z_element(at.y), z_element(at.z), z_element(at.w));
}

fn quad_bits(i: u32) -> vec4<u32> {
    let u = x_quad(i);
    var v = vec4(0.0);
    var w = vec4(0.0);
    if operands > 1u { v = y_quad(i); }
    if operands > 2u { w = z_quad(i); }
    return encode4(out_dtype, apply(u, v, w));
}

// Derivatives of the gates, σ + x·σ(u)·σ(-u)·u' for σ = σ(u). σ(-u), not 1 - σ(u): that would lose the digits that a large
// x multiplies. Beyond ±100 σ is 0 or 1 exactly.
fn slope(x: vec4<f32>, u: vec4<f32>, du: vec4<f32>) -> vec4<f32> {
    let open = sigmoid_4(u);
    return fma(x * open * sigmoid_4(-u), du, open);
}
fn gelu_tanh_slope(x: vec4<f32>) -> vec4<f32> {
    let u = x * fma(x * x, vec4(0.071354814), vec4(1.595769));
    return slope(x, u, fma(x * x, vec4(0.21406444), vec4(1.595769)));
}
fn gelu_erf_slope(x: vec4<f32>) -> vec4<f32> {
    let below = fma(vec4(0.5), erf_4(x * 0.70710678), vec4(0.5));
    return fma(x, exp_4(x * x * -0.5) * 0.3989423, below);
}

fn apply(x: vec4<f32>, y: vec4<f32>, z: vec4<f32>) -> vec4<f32> {
    let near = clamp(x, vec4(-100.0), vec4(100.0));
    switch kind {
        case 0u: { return -x; }
        case 1u: { return abs(x); }
        case 2u: { return sqrt(x); }
        case 3u: { return vec4(1.0) / sqrt(x); }
        case 4u: { return vec4(1.0) / x; }
        case 5u: { return x * x; }
        case 6u: { return exp_4(x); }
        case 7u: { return ln_4(x); }
        case 8u: { return sin_4(x); }
        case 9u: { return cos_4(x); }
        case 10u: { return tanh_4(x); }
        case 11u: { return sigmoid_4(x); }
        case 12u: { return larger(vec4(0.0), x); }
        case 13u: { return silu_4(x); }
        case 14u: { return gelu_erf_4(x); }
        case 15u: { return gelu_tanh_4(x); }
        case 16u: { return quick_gelu_4(x); }
        case 17u: { return fma(x, vec4(p.a), vec4(p.b)); }
        case 18u: { return min(max(x, vec4(p.a)), vec4(p.b)); }
        case 19u: { return x + y; }
        case 20u: { return x - y; }
        case 21u: { return x * y; }
        case 22u: { return x / y; }
        case 23u: { return larger(x, y); }
        case 24u: { return smaller(x, y); }
        case 25u: { return fma(x, y, z); }
        case 26u: { return select(vec4(0.0), z, x < y); }
        case 27u: { return y * x * (vec4(1.0) - x); }
        case 28u: { return y * fma(-x, x, vec4(1.0)); }
        case 29u: { return y * slope(near, near, vec4(1.0)); }
        case 30u: { return y * gelu_erf_slope(near); }
        case 31u: { return y * gelu_tanh_slope(near); }
        default: { return y * slope(near, near * 1.702, vec4(1.702)); }
    }
}
