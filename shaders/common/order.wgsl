// Numbers as whole numbers of the same order: NaN is the largest, and both zeros are one. No number gives 0.

const NAN_KEY = 0xffffffffu;

fn key_4(v: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(v);
    let magnitude = bits & vec4(0x7fffffffu);
    let ordered = select(bits | vec4(0x80000000u), ~bits, (bits & vec4(0x80000000u)) != vec4(0u) & magnitude != vec4(0u));
    return select(ordered, vec4(NAN_KEY), magnitude > vec4(0x7f800000u));
}
fn key_1(v: f32) -> u32 { return key_4(vec4(v)).x; }

// The number of a key.
fn value_of(key: u32) -> f32 {
    if key == NAN_KEY { return bitcast<f32>(0x7fc00000u | (key & 0u)); }
    return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}
