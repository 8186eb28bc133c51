// Another dtype. To a float: rounded to nearest even. To an integer: rounded towards zero, and what is out of range becomes
// the nearest value in range; NaN becomes 0.
//
// Bindings: x with any strides, of `x_dtype`; out contiguous, of `out_dtype`.
//
// Algorithm: an invocation writes 16 bytes of the result. A view that is one run from an aligned place is read by whole
// vectors, any other one element by element.
//
// Budget: about 25 registers, no workgroup memory. Bound: memory.

fn quad_bits(i: u32) -> vec4<u32> {
    let bits = view_bits(i);
    if x_dtype == out_dtype { return bits; }
    switch x_dtype {
        case U8, U32: { return of_magnitude(bits, vec4(false)); }
        case I32: {
            let below = bitcast<vec4<i32>>(bits) < vec4(0);
            return of_magnitude(select(bits, vec4(0u) - bits, below), below);
        }
        case F16: { return of_float(unpacked_f16(bits)); }
        case BF16: { return of_float(bitcast<vec4<f32>>(bits << vec4(16u))); }
        default: { return of_float(bitcast<vec4<f32>>(bits)); }
    }
}

fn unpacked_f16(bits: vec4<u32>) -> vec4<f32> {
    return vec4(unpack2x16float(bits.x | (bits.y << 16u)), unpack2x16float(bits.z | (bits.w << 16u)));
}

// Integers, as magnitude and sign.
fn of_magnitude(m: vec4<u32>, below: vec4<bool>) -> vec4<u32> {
    switch out_dtype {
        case U8: { return select(min(m, vec4(255u)), vec4(0u), below); }
        case U32: { return select(m, vec4(0u), below); }
        case I32: {
            // Only an i32 lies below zero, and it fits.
            return select(min(m, vec4(0x7fffffffu)), vec4(0u) - m, below);
        }
        default: {
            var u = m;
            if out_dtype != F32 {
                // What f32 cannot hold lies far below the last place of the result: whether it is zero is enough.
                let low = (u & vec4(0xffu)) != vec4(0u);
                u = select(u, (u & vec4(0xffffff00u)) | select(vec4(0u), vec4(0x100u), low), u >= vec4(0x1000000u));
            }
            // Two exact halves, so that the sum rounds and not a conversion, whose rounding a driver may choose.
            let f = fma(vec4<f32>(u >> vec4(16u)), vec4(65536.0), vec4<f32>(u & vec4(0xffffu)));
            return encode4(out_dtype, select(f, -f, below));
        }
    }
}

fn of_float(v: vec4<f32>) -> vec4<u32> {
    // Comparisons with NaN are false.
    switch out_dtype {
        case U8: { return vec4<u32>(select(vec4(0.0), min(v, vec4(255.0)), v > vec4(0.0))); }
        case U32: {
            let inside = vec4<u32>(select(vec4(0.0), v, (v > vec4(0.0)) & (v < vec4(4294967296.0))));
            return select(inside, vec4(0xffffffffu), v >= vec4(4294967296.0));
        }
        case I32: {
            let inside = vec4<i32>(select(vec4(0.0), v, (v > vec4(-2147483648.0)) & (v < vec4(2147483648.0))));
            let low = select(bitcast<vec4<u32>>(inside), vec4(0x80000000u), v <= vec4(-2147483648.0));
            return select(low, vec4(0x7fffffffu), v >= vec4(2147483648.0));
        }
        default: { return encode4(out_dtype, v); }
    }
}
