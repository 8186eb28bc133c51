// Residual vector quantisation, decoding: the sums of the chosen vectors of all levels.
//
// Bindings: codes [levels, n] u32, codebooks [levels, size, dim] f32, out [n, dim] f32, all contiguous.
//
// Algorithm: an invocation sums four values over the levels, in their order; a code that does not exist adds nothing. Where
// vectors are of whole quads of the codebooks' vectors four values are one load.
//
// Budget: about 20 registers, no workgroup memory. Bound: memory, reading the chosen vectors.

struct Params { at: vec4<u32>, total: u32, n: u32, dim: u32, size: u32, levels: u32, fault_op: u32 }
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> codes: array<u32>;
@group(0) @binding(1) var<storage, read> codebooks: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> faults: Faults;
override out_dtype: u32 = 0u;
// Whether quads of the result are quads of the codebooks' vectors.
override quads: bool = true;

fn out_at() -> u32 { return p.at.z; }

// Where the vector of a level that row i wants begins, or NOWHERE.
const NOWHERE = 0xffffffffu;
fn chosen(level: u32, i: u32) -> u32 {
    let place = level * p.n + i;
    let code = codes[p.at.x + place];
    if code >= p.size { fault(code, place, p.size); return NOWHERE; }
    return p.at.y + (level * p.size + code) * p.dim;
}

fn quad_bits(first: u32) -> vec4<u32> {
    var sum = vec4(0.0);
    if quads {
        let i = first / p.dim;
        for (var level = 0u; level < p.levels; level++) {
            let at = chosen(level, i);
            if at != NOWHERE { sum += bitcast<vec4<f32>>(codebooks[(at + first - i * p.dim) >> 2u]); }
        }
        return bitcast<vec4<u32>>(sum);
    }
    for (var k = 0u; k < 4u; k++) {
        let e = min(first + k, p.total - 1u);
        let i = e / p.dim;
        for (var level = 0u; level < p.levels; level++) {
            let begin = chosen(level, i);
            let at = begin + e - i * p.dim;
            if begin != NOWHERE { sum[k] += bitcast<f32>(codebooks[at >> 2u][at & 3u]); }
        }
    }
    return bitcast<vec4<u32>>(sum);
}
