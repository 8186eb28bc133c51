// Values of quantised blocks (`ops::quant` has the definition). A format is told by its place in `dtype::Quant::ALL`. The
// module defines
//   fn weight_word(w: u32) -> u32    word w of the binding with the blocks
// and names a block by the byte of the binding that it begins with, which is even. Only words with bytes of the block are
// asked for.
//
// A value is factor · q + offset with a small signed q: the product is exact in f32 for every format, so that values have
// the same bits whether it is fused or not. The two factors belong to groups of 32 values, of Q6_K to groups of 16.

const Q8_0 = 0u;
const Q4_0 = 1u;
const Q4_1 = 2u;
const Q4_K = 3u;
const Q6_K = 4u;

fn block_values(quant: u32) -> u32 { return select(32u, 256u, quant >= Q4_K); }
fn block_bytes(quant: u32) -> u32 {
    switch quant {
        case Q8_0: { return 34u; }
        case Q4_0: { return 18u; }
        case Q4_1: { return 20u; }
        case Q4_K: { return 144u; }
        default: { return 210u; }
    }
}

// Byte `at` of the binding; four bytes from there on; the f16 that begins there, at an even byte.
fn weight_byte(at: u32) -> u32 { return (weight_word(at >> 2u) >> ((at & 3u) * 8u)) & 0xffu; }
fn weight_bytes(at: u32) -> u32 {
    let shift = (at & 3u) * 8u;
    var word = weight_word(at >> 2u) >> shift;
    if shift != 0u { word |= weight_word((at >> 2u) + 1u) << (32u - shift); }
    return word;
}
fn weight_half(at: u32) -> f32 { return unpack2x16float(weight_word(at >> 2u) >> ((at & 2u) * 8u)).x; }

// Factor and offset of the group of value i of the block at byte `block`.
fn quant_factors(quant: u32, block: u32, i: u32) -> vec2<f32> {
    switch quant {
        case Q4_1: { return vec2(weight_half(block), weight_half(block + 2u)); }
        case Q4_K: {
            // Bytes 4 to 15 hold the six-bit scale and minimum of eight groups; the last four's upper bits lie above the
            // first four's numbers.
            let shift = ((i >> 5u) & 3u) * 8u;
            let a = weight_bytes(block + 4u) >> shift;
            let b = weight_bytes(block + 8u) >> shift;
            let c = weight_bytes(block + 12u) >> shift;
            let late = vec2((c & 15u) | ((a >> 2u) & 48u), ((c >> 4u) & 15u) | ((b >> 2u) & 48u));
            let six = select(vec2(a, b) & vec2(63u), late, i >= 128u);
            return vec2(weight_half(block), -weight_half(block + 2u)) * vec2<f32>(six);
        }
        case Q6_K: {
            let scale = unpack4xI8(weight_byte(block + 192u + (i >> 4u))).x;
            return vec2(weight_half(block + 208u) * f32(scale), 0.0);
        }
        default: { return vec2(weight_half(block), 0.0); }
    }
}

// q of values i to i + 3 as four signed bytes; i is a multiple of 4.
fn quant_bytes(quant: u32, block: u32, i: u32) -> u32 {
    switch quant {
        case Q8_0: { return weight_bytes(block + 2u + i); }
        case Q4_0: {
            // n - 8 of a nibble n: its upper bit changed, and carried on into the byte's upper half.
            let q = nibbles(block + 2u, i) ^ 0x08080808u;
            return q | ((q & 0x08080808u) * 0x1eu);
        }
        case Q4_1: { return nibbles(block + 4u, i); }
        case Q4_K: { return (weight_bytes(block + 16u + ((i >> 6u) << 5u) + (i & 31u)) >> ((i >> 3u) & 4u)) & 0x0f0f0f0fu; }
        default: {
            // Halves of 128 values; in each, four runs of 32 share 64 bytes of low and 32 bytes of high bits.
            let half = i >> 7u;
            let run = (i >> 5u) & 3u;
            let low = weight_bytes(block + half * 64u + (i & 63u)) >> ((run & 2u) << 1u);
            let high = weight_bytes(block + 128u + half * 32u + (i & 31u)) >> (run << 1u);
            // 32 less, as above.
            let q = ((low & 0x0f0f0f0fu) | ((high & 0x03030303u) << 4u)) ^ 0x20202020u;
            return q | ((q & 0x20202020u) * 6u);
        }
    }
}
// Four nibbles of a block of 32: the low ones of 16 bytes are its first half, the high ones its second.
fn nibbles(bytes: u32, i: u32) -> u32 { return (weight_bytes(bytes + (i & 15u)) >> ((i >> 2u) & 4u)) & 0x0f0f0f0fu; }

// Values i to i + 3 of the block; i is a multiple of 4.
fn quant4(quant: u32, block: u32, i: u32) -> vec4<f32> {
    let f = quant_factors(quant, block, i);
    return vec4<f32>(unpack4xI8(quant_bytes(quant, block, i))) * f.x + vec4(f.y);
}
