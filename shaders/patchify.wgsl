// Pictures and clips to rows of patches and back: the elements of a view of up to eight dimensions in row-major order, in another
// dtype, and with `normalised` as (pixel · scale - mean[c]) / std[c].
//
// Bindings: x with any strides, of `x_dtype`; mean and deviation (std) f32 [channels]; out contiguous, of `out_dtype`.
//
// Algorithm: an invocation writes 16 bytes of the result. Its elements' places in x come from the dimensions that are left when
// neighbours which x walks in one run are merged; their channels, where they are wanted, from the same dimensions with
// strides of 0 but for the channel's. Where quads lie in one row of the innermost dimension one place is computed for four.
//
// Budget: about 40 registers, no workgroup memory. Bound: memory where quads have one place (some 20 operations for each
// dimension), else the divisions.

struct Params {
    at: vec4<u32>,
    total: u32, rank: u32, scale: f32, pad: u32,
    dims: array<vec4<u32>, 2>,
    x_strides: array<vec4<u32>, 2>,
    channel_strides: array<vec4<u32>, 2>,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> mean: array<f32>;
@group(0) @binding(2) var<storage, read> deviation: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<u32>>;
override x_dtype: u32 = 0u;
override out_dtype: u32 = 0u;
override normalised: bool = false;

fn out_at() -> u32 { return p.at.w; }

fn element(i: u32) -> f32 { return decode(x_dtype, x[vector_of(x_dtype, i)][word_of(x_dtype, i)], i); }

fn quad_bits(i: u32) -> vec4<u32> {
    let at = p.at.x + walk(i, p.total, p.rank, p.dims, p.x_strides);
    var v = vec4(element(at.x), element(at.y), element(at.z), element(at.w));
    if normalised {
        let c = walk(i, p.total, p.rank, p.dims, p.channel_strides);
        let m = p.at.y + c;
        let s = p.at.z + c;
        v = (v * p.scale - vec4(mean[m.x], mean[m.y], mean[m.z], mean[m.w]))
            / vec4(deviation[s.x], deviation[s.y], deviation[s.z], deviation[s.w]);
    }
    return encode4(out_dtype, v);
}
