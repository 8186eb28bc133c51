// Writing rows of any length and dtype that lie behind one another without gaps: rows of an odd number of narrow elements
// share words with their neighbours, which other workgroups write. Invocations go over the words of a row; a word that
// is shared is merged by two atomic operations on the row's own bits, so that the order does not matter. The module
// declares
//   var<storage, read_write> out: array<atomic<u32>>;
//   override out_dtype: u32;
// and goes over a row with
//   for (var w = first_word(at) + lane; w < end_word(at + cols); w += lanes) {
//       let i = word_start(w);                 the element that the word begins with; may lie before `at`
//       store_word(w, at, at + cols, bits);    bits: elements i, i + 1, … of the row as `encode` gives them
//   }
// where `at` is the place of the row's first element in the binding.

fn per_word(dtype: u32) -> u32 { return 4u >> log_bytes(dtype); }
fn first_word(at: u32) -> u32 { return at >> (2u - log_bytes(out_dtype)); }
fn end_word(end: u32) -> u32 { return (end + per_word(out_dtype) - 1u) >> (2u - log_bytes(out_dtype)); }
fn word_start(w: u32) -> u32 { return w << (2u - log_bytes(out_dtype)); }

// The elements' bits, each in the low bits of a component, become the word's; those outside of `begin` to `end` stay.
fn store_word(w: u32, begin: u32, end: u32, bits: vec4<u32>) {
    var word = bits.x;
    switch log_bytes(out_dtype) {
        case 0u: { word = quarters(bits); }
        case 1u: { word = bits.x | (bits.y << 16u); }
        default: {}
    }
    let start = word_start(w);
    let count = per_word(out_dtype);
    if start >= begin && start + count <= end {
        atomicStore(&out[w], word);
        return;
    }
    var mask = 0u;
    let each = 0xffffffffu >> (32u - (8u << log_bytes(out_dtype)));
    for (var i = 0u; i < count; i++) {
        if start + i >= begin && start + i < end { mask |= each << (i * (8u << log_bytes(out_dtype))); }
    }
    atomicAnd(&out[w], ~mask);
    atomicOr(&out[w], word & mask);
}

// Elements at to at + count - 1, at most four, which others do not write; their neighbours stay.
fn store_run(at: u32, count: u32, bits: vec4<u32>) {
    for (var w = first_word(at); w < end_word(at + count); w++) {
        let i = word_start(w) - at;
        store_word(w, at, at + count, vec4(bits[i & 3u], bits[(i + 1u) & 3u], bits[(i + 2u) & 3u], bits[(i + 3u) & 3u]));
    }
}
