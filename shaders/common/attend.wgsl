// Which queries see which keys, and what is added to their scores: `ops::attend::wgpu` binds and describes it. The bindings
// here are a module's first five; those of masks that a problem lacks are not read. The module's parameters begin with
//   at: array<vec4<u32>, 3>, attend: Attend
// Scores are handled four at a time, and in base 2. Needs math.wgsl.

struct Attend {
    len_q: u32, len_k: u32, heads_q: u32, heads_kv: u32,
    // `score_scale` is softmax_scale · log2 e.
    group: u32, window: u32, softmax_scale: f32, score_scale: f32,
    // Of batch, head and query.
    bias_strides: vec4<u32>,
}
@group(0) @binding(0) var<storage, read> bias: array<f32>;
@group(0) @binding(1) var<storage, read> ids_q: array<u32>;
@group(0) @binding(2) var<storage, read> ids_k: array<u32>;
@group(0) @binding(3) var<storage, read> padding: array<u32>;
@group(0) @binding(4) var<storage, read> lens: array<u32>;
override causal: bool = false;
override windowed: bool = false;
override biased: bool = false;
override segmented: bool = false;
override padded: bool = false;
override bounded: bool = false;
const LOG2_E = 1.44269504;

// The keys that exist, as the operand says; more than `len_k` is a fault, and `keys_of` keeps it inside.
fn keys_told(b: u32) -> u32 {
    if bounded { return lens[p.at[1].x + b]; }
    return p.attend.len_k;
}
fn keys_of(b: u32) -> u32 { return min(keys_told(b), p.attend.len_k); }

// Whether no padding hides key j, which lies inside the sequence.
fn key_there(b: u32, j: u32) -> bool {
    if !padded { return true; }
    let i = p.at[0].w + b * p.attend.len_k + j;
    return ((padding[i >> 2u] >> ((i & 3u) * 8u)) & 0xffu) != 0u;
}

// The key behind the last one that queries see by their places, and the first.
fn seen_end(i: vec4<u32>, keys: u32) -> vec4<u32> {
    if !causal { return vec4(keys); }
    let next = vec4<i32>(i + vec4(keys + 1u)) - vec4(i32(p.attend.len_q));
    return vec4<u32>(clamp(next, vec4(0), vec4(i32(keys))));
}
fn seen_begin(i: vec4<u32>, keys: u32) -> vec4<u32> {
    if !windowed { return vec4(0u); }
    let next = vec4<i32>(i + vec4(keys + 1u)) - vec4(i32(p.attend.len_q + p.attend.window));
    return min(vec4<u32>(max(next, vec4(0))), seen_end(i, keys));
}

// Four queries: the keys that they see by their places are those from `lo` to before `hi`; their segments; where the rows
// of their bias begin.
struct Queries { lo: vec4<u32>, hi: vec4<u32>, ids: vec4<u32>, bias: vec4<u32> }

// Queries i of heads `head`; those that are not `there` see nothing, but their numbers must lie inside.
fn queries_of(b: u32, keys: u32, i: vec4<u32>, head: vec4<u32>, there: vec4<bool>) -> Queries {
    var q: Queries;
    q.hi = select(vec4(0u), seen_end(i, keys), there);
    q.lo = min(seen_begin(i, keys), q.hi);
    if segmented {
        let at = vec4(p.at[0].y + b * p.attend.len_q) + i;
        q.ids = vec4(ids_q[at.x], ids_q[at.y], ids_q[at.z], ids_q[at.w]);
    }
    if biased {
        let strides = p.attend.bias_strides;
        q.bias = vec4(p.at[0].x + b * strides.x) + head * strides.y + i * strides.z;
    }
    return q;
}

// Four products of queries with keys j become scores; -infinity where a query does not see its key.
fn scored(products: vec4<f32>, b: u32, q: Queries, j: vec4<u32>) -> vec4<f32> {
    var seen = (j >= q.lo) & (j < q.hi);
    let inside = select(vec4(0u), j, seen);
    if segmented {
        let at = vec4(p.at[0].z + b * p.attend.len_k) + inside;
        seen &= q.ids == vec4(ids_k[at.x], ids_k[at.y], ids_k[at.z], ids_k[at.w]);
    }
    if padded {
        seen &= vec4(key_there(b, inside.x), key_there(b, inside.y), key_there(b, inside.z), key_there(b, inside.w));
    }
    var s = products * p.attend.score_scale;
    if biased {
        let at = q.bias + inside;
        s = fma(vec4(bias[at.x], bias[at.y], bias[at.z], bias[at.w]), vec4(LOG2_E), s);
    }
    return select(vec4(-infinity()), s, seen);
}
