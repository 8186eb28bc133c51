// Transcendental functions. Fits of our own, because the built-in ones are only as good as a driver makes them and have
// no bound; errors as for the CPU's (`backend::cpu::simd::math`, from which the coefficients are): at most 3 epsilon
// where fma is fused or not. NaN gives NaN.

// WGSL has no literals for infinity and NaN and refuses constant expressions that are. Drivers may take `inf - inf` for 0.
var<private> infinity_bits: u32 = 0x7f800000u;
var<private> nan_bits: u32 = 0x7fc00000u;
fn infinity() -> f32 { return bitcast<f32>(infinity_bits); }
fn nan() -> f32 { return bitcast<f32>(nan_bits); }

// y, and NaN where x is. By its bits: `x != x` becomes an ordered comparison, which does not hold for NaN.
fn keep_nan(y: vec4<f32>, x: vec4<f32>) -> vec4<f32> {
    return select(y, x, (bitcast<vec4<u32>>(x) & vec4(0x7fffffffu)) > vec4(0x7f800000u));
}

// The larger and the smaller; NaN where either is NaN.
fn larger(x: vec4<f32>, y: vec4<f32>) -> vec4<f32> { return keep_nan(select(x, y, y > x), y); }
fn smaller(x: vec4<f32>, y: vec4<f32>) -> vec4<f32> { return keep_nan(select(x, y, y < x), y); }

// 2^x; 0 below -126.5, infinite above 127.5. The exponent fields of n = -127 and n = 128 are those of zero and infinity.
fn exp2_4(v: vec4<f32>) -> vec4<f32> {
    let x = clamp(v, vec4(-127.0), vec4(128.0));
    let n = round(x);
    let f = x - n;
    var y = fma(f, vec4(1.5345812e-4), vec4(1.3399931e-3));
    y = fma(y, f, vec4(9.618489e-3));
    y = fma(y, f, vec4(5.5503286e-2));
    y = fma(y, f, vec4(2.4022646e-1));
    y = fma(y, f, vec4(6.931472e-1));
    y = fma(y, f, vec4(1.0));
    return keep_nan(y * bitcast<vec4<f32>>((vec4<i32>(n) + vec4(127)) << vec4(23u)), v);
}
fn exp2_1(x: f32) -> f32 { return exp2_4(vec4(x)).x; }

// e^x; 0 below -86.9, infinite above 88.72. x - n·ln 2 is taken in two steps; scaling by 2^(n-1) and then by 2 keeps values
// between 2^127.5 and 2^128.
fn exp_4(v: vec4<f32>) -> vec4<f32> {
    let x = clamp(v, vec4(-87.33), vec4(89.4));
    let n = round(x * 1.44269504);
    let f = fma(n, vec4(2.1219444e-4), fma(n, vec4(-0.6933594), x));
    var y = fma(f, vec4(1.3820734e-3), vec4(8.368677e-3));
    y = fma(y, f, vec4(4.1668266e-2));
    y = fma(y, f, vec4(0.16666521));
    y = fma(y, f, vec4(0.49999994));
    y = fma(y, f, vec4(1.0));
    y = fma(y, f, vec4(1.0));
    return keep_nan(y * bitcast<vec4<f32>>((vec4<i32>(n) + vec4(126)) << vec4(23u)) * 2.0, v);
}
fn exp_1(x: f32) -> f32 { return exp_4(vec4(x)).x; }

// The natural logarithm, subnormal numbers included where the driver keeps them; -infinity at 0, NaN below.
fn ln_4(v: vec4<f32>) -> vec4<f32> {
    let tiny = v < vec4(1.1754944e-38);
    let x = select(v, v * 8388608.0, tiny);
    // m·2^e with m between 1/√2 and √2.
    let b = bitcast<vec4<i32>>(x) - vec4(0x3f3504f3);
    let m = bitcast<vec4<f32>>((b & vec4(0x7fffff)) + vec4(0x3f3504f3));
    let e = vec4<f32>(b >> vec4(23u)) - select(vec4(0.0), vec4(23.0), tiny);
    let f = m - vec4(1.0);
    var y = fma(f, vec4(-7.636439e-2), vec4(0.12762217));
    y = fma(y, f, vec4(-0.1315961));
    y = fma(y, f, vec4(0.1420158));
    y = fma(y, f, vec4(-0.16623409));
    y = fma(y, f, vec4(0.20001242));
    y = fma(y, f, vec4(-0.2500082));
    y = fma(y, f, vec4(0.3333333));
    let ff = f * f;
    let low = fma(ff, vec4(-0.5), fma(e, vec4(-2.1219444e-4), ff * f * y));
    let all = fma(e, vec4(0.6933594), f + low);
    let inf = vec4(infinity());
    let not_positive = select(-inf, vec4(nan()), v < vec4(0.0));
    return keep_nan(select(select(not_positive, all, v > vec4(0.0)), v, v >= inf), v);
}
fn ln_1(x: f32) -> f32 { return ln_4(vec4(x)).x; }

fn tanh_4(x: vec4<f32>) -> vec4<f32> {
    let a = abs(x);
    let t = a * a;
    var n = fma(t, vec4(1.3318811e-8), vec4(2.0583288e-5));
    n = fma(n, t, vec4(3.4940226e-3));
    n = fma(n, t, vec4(0.13379708));
    n = fma(n, t, vec4(1.0));
    var d = fma(t, vec4(7.761911e-7), vec4(3.2830732e-4));
    d = fma(d, t, vec4(2.587103e-2));
    d = fma(d, t, vec4(0.46713024));
    d = fma(d, t, vec4(1.0));
    let y = select(min(vec4(1.0), a * n / d), vec4(1.0), a > vec4(9.02));
    return keep_nan(select(y, -y, x < vec4(0.0)), x);
}

fn erf_4(x: vec4<f32>) -> vec4<f32> {
    let a = abs(x);
    let t = a * a;
    var n = fma(t, vec4(2.0259122e-6), vec4(2.8468537e-4));
    n = fma(n, t, vec4(3.808086e-3));
    n = fma(n, t, vec4(5.287521e-2));
    n = fma(n, t, vec4(0.19154865));
    n = fma(n, t, vec4(1.1283792));
    var d = fma(t, vec4(3.7831724e-5), vec4(1.1707066e-3));
    d = fma(d, t, vec4(1.5054937e-2));
    d = fma(d, t, vec4(0.11455892));
    d = fma(d, t, vec4(0.50308824));
    d = fma(d, t, vec4(1.0));
    let y = select(min(vec4(1.0), a * n / d), vec4(1.0), a > vec4(3.93));
    return keep_nan(select(y, -y, x < vec4(0.0)), x);
}

fn sigmoid_4(x: vec4<f32>) -> vec4<f32> { return vec4(1.0) / (vec4(1.0) + exp_4(-x)); }

// x·σ(u). Where x is very negative σ is 0, and x is kept from being infinite there, whose product would be NaN.
fn gate_4(x: vec4<f32>, u: vec4<f32>) -> vec4<f32> { return max(vec4(-1e30), x) / (vec4(1.0) + exp_4(-u)); }
fn silu_4(x: vec4<f32>) -> vec4<f32> { return gate_4(x, x); }
fn quick_gelu_4(x: vec4<f32>) -> vec4<f32> { return gate_4(x, x * 1.702); }
fn gelu_erf_4(x: vec4<f32>) -> vec4<f32> {
    let half = max(vec4(-1e30), x) * 0.5;
    return fma(half, erf_4(x * 0.70710678), half);
}
// (1 + tanh v)/2 = σ(2v): the sum would cancel where x is negative.
fn gelu_tanh_4(x: vec4<f32>) -> vec4<f32> { return gate_4(x, x * fma(x * x, vec4(0.071354814), vec4(1.595769))); }

// (-1)^n · sin(x - m·π/2), with π/2 in parts of 8, 8, 8 and 24 bits. Products of the first three with numbers of up to 16 bits
// are exact; m is split into two such.
fn sine_4(x: vec4<f32>, m: vec4<f32>, n: vec4<f32>) -> vec4<f32> {
    let high = round(m * 2.4414063e-4) * 4096.0;
    let low = m - high;
    var r = fma(low, vec4(-1.5703125), fma(high, vec4(-1.5703125), x));
    r = fma(low, vec4(-4.825592e-4), fma(high, vec4(-4.825592e-4), r));
    r = fma(low, vec4(-1.2665987e-6), fma(high, vec4(-1.2665987e-6), r));
    r = fma(m, vec4(-9.920936e-10), r);
    let t = r * r;
    var y = fma(t, vec4(2.6060818e-6), vec4(-1.9809774e-4));
    y = fma(y, t, vec4(8.333069e-3));
    y = fma(y, t, vec4(-0.1666666));
    y = fma(r * t, y, r);
    return select(y, -y, (vec4<i32>(n) & vec4(1)) != vec4(0));
}
// Sine and cosine up to 2^20, as far as positions of long texts go; from there on the driver's.
fn sin_4(x: vec4<f32>) -> vec4<f32> {
    let n = round(x * 0.31830987);
    return select(sine_4(x, n + n, n), sin(x), abs(x) > vec4(1048576.0));
}
fn cos_4(x: vec4<f32>) -> vec4<f32> {
    let k = round(fma(x, vec4(0.31830987), vec4(-0.5)));
    return select(sine_4(x, fma(k, vec4(2.0), vec4(1.0)), k + vec4(1.0)), cos(x), abs(x) > vec4(1048576.0));
}
