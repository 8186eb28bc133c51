// What words of operands hold, and how numbers become words. Operands are read as `array<vec4<u32>>`; an `override`
// constant tells the dtype, so that what does not apply is folded away. bf16 has no type in WGSL and f16 needs no
// extension this way.

const F32 = 0u;
const F16 = 1u;
const BF16 = 2u;
const U8 = 3u;
const I32 = 4u;
const U32 = 5u;

// Bytes of an element, as a shift: 1 << log_bytes.
fn log_bytes(dtype: u32) -> u32 {
    if dtype == F16 || dtype == BF16 { return 1u; }
    if dtype == U8 { return 0u; }
    return 2u;
}

// Elements in 16 bytes.
fn per_vector(dtype: u32) -> u32 { return 16u >> log_bytes(dtype); }

// The vector that holds element i, and the word of the vector.
fn vector_of(dtype: u32, i: u32) -> u32 { return i >> (4u - log_bytes(dtype)); }
fn word_of(dtype: u32, i: u32) -> u32 { return (i >> (2u - log_bytes(dtype))) & 3u; }

// Element i of the word that holds it, as it lies (in the low bits) and as a number.
fn bits_in(dtype: u32, word: u32, i: u32) -> u32 {
    switch log_bytes(dtype) {
        case 0u: { return (word >> ((i & 3u) * 8u)) & 0xffu; }
        case 1u: { return (word >> ((i & 1u) * 16u)) & 0xffffu; }
        default: { return word; }
    }
}
fn decode(dtype: u32, word: u32, i: u32) -> f32 {
    switch dtype {
        case F16: { return unpack2x16float(word)[i & 1u]; }
        case BF16: { return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (i & 1u) == 1u)); }
        case U8: { return f32((word >> ((i & 3u) * 8u)) & 0xffu); }
        case I32: { return f32(bitcast<i32>(word)); }
        case U32: { return f32(word); }
        default: { return bitcast<f32>(word); }
    }
}

// Elements i to i + 3 of the vector that holds them; i is a multiple of 4.
fn decode4(dtype: u32, v: vec4<u32>, i: u32) -> vec4<f32> {
    switch dtype {
        case F16, BF16: {
            let half = select(v.xy, v.zw, (i & 4u) != 0u);
            if dtype == F16 { return vec4(unpack2x16float(half.x), unpack2x16float(half.y)); }
            return bitcast<vec4<f32>>(
                vec4(half.x << 16u, half.x & 0xffff0000u, half.y << 16u, half.y & 0xffff0000u));
        }
        case U8: { return vec4<f32>(unpack4xU8(v[(i >> 2u) & 3u])); }
        case I32: { return vec4<f32>(bitcast<vec4<i32>>(v)); }
        case U32: { return vec4<f32>(v); }
        default: { return bitcast<vec4<f32>>(v); }
    }
}

// The same as bits, in the low bits of each component.
fn bits4(dtype: u32, v: vec4<u32>, i: u32) -> vec4<u32> {
    switch log_bytes(dtype) {
        case 0u: { return unpack4xU8(v[(i >> 2u) & 3u]); }
        case 1u: {
            let half = select(v.xy, v.zw, (i & 4u) != 0u);
            return vec4(half.x & 0xffffu, half.x >> 16u, half.y & 0xffffu, half.y >> 16u);
        }
        default: { return v; }
    }
}

// Numbers rounded to the nearest bf16, ties to even; NaN stays NaN.
fn to_bf16(v: vec4<f32>) -> vec4<u32> {
    let b = bitcast<vec4<u32>>(v);
    let rounded = (b + vec4(0x7fffu) + ((b >> vec4(16u)) & vec4(1u))) >> vec4(16u);
    return select(rounded, (b >> vec4(16u)) | vec4(0x40u), (b & vec4(0x7fffffffu)) > vec4(0x7f800000u));
}

// Numbers rounded to the nearest f16, ties to even, infinite beyond its range: `pack2x16float` leaves both open.
fn to_f16(v: vec4<f32>) -> vec4<u32> {
    let b = bitcast<vec4<u32>>(v);
    let sign = (b >> vec4(16u)) & vec4(0x8000u);
    let a = b & vec4(0x7fffffffu);
    let normal = (a + vec4(0xc8000fffu) + ((a >> vec4(13u)) & vec4(1u))) >> vec4(13u);
    // Adding 1/2 puts the last place of a subnormal f16 where that of an f32 is.
    let small = bitcast<vec4<u32>>(bitcast<vec4<f32>>(a) + vec4(0.5)) - vec4(0x3f000000u);
    var h = select(normal, small, a < vec4(0x38800000u));
    h = select(h, vec4(0x7c00u), a >= vec4(0x47800000u));
    h = select(h, vec4(0x7e00u), a > vec4(0x7f800000u));
    return h | sign;
}

// Numbers as the bits of a dtype, in the low bits of each component. To u8: rounded, and kept between 0 and 255.
fn encode4(dtype: u32, v: vec4<f32>) -> vec4<u32> {
    switch dtype {
        case F16: { return to_f16(v); }
        case BF16: { return to_bf16(v); }
        case U8: { return vec4<u32>(clamp(round(v), vec4(0.0), vec4(255.0))); }
        case I32: { return bitcast<vec4<u32>>(vec4<i32>(v)); }
        case U32: { return vec4<u32>(v); }
        default: { return bitcast<vec4<u32>>(v); }
    }
}
fn encode(dtype: u32, v: f32) -> u32 { return encode4(dtype, vec4(v)).x; }

// The number of a workgroup in a grid that was folded because one dimension takes only so many.
fn flat_workgroup(workgroup: vec3<u32>, grid: vec3<u32>) -> u32 { return workgroup.y * grid.x + workgroup.x; }

// 16 and 8 bits of each component side by side.
fn halves(lo: vec4<u32>, hi: vec4<u32>) -> vec4<u32> {
    return vec4(lo.x | (lo.y << 16u), lo.z | (lo.w << 16u), hi.x | (hi.y << 16u), hi.z | (hi.w << 16u));
}
fn quarters(v: vec4<u32>) -> u32 { return v.x | (v.y << 8u) | (v.z << 16u) | (v.w << 24u); }
