// What reductions do with values, whichever way they go over them.

const SUM = 0u;
const SQUARES = 1u;
const LARGEST = 2u;
const SMALLEST = 3u;
override kind: u32 = 0u;
// What follows: nothing, the division by the number of values, or the root.
const MEAN = 1u;
const ROOT = 2u;
override finish: u32 = 0u;

fn nothing() -> vec4<f32> {
    switch kind {
        case LARGEST: { return vec4(-infinity()); }
        case SMALLEST: { return vec4(infinity()); }
        default: { return vec4(0.0); }
    }
}
// With one more value each.
fn taken(all: vec4<f32>, v: vec4<f32>) -> vec4<f32> {
    if kind == SQUARES { return fma(v, v, all); }
    return joined(all, v);
}
// Of the values of both.
fn joined(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    switch kind {
        case LARGEST: { return larger(a, b); }
        case SMALLEST: { return smaller(a, b); }
        default: { return a + b; }
    }
}
fn finished(all: vec4<f32>, count: f32) -> vec4<f32> {
    switch finish {
        case MEAN: { return all / count; }
        case ROOT: { return sqrt(all); }
        default: { return all; }
    }
}
