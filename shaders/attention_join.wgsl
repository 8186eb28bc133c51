// The results of attention from those of parts of the keys.
//
// Bindings: parts as attention_split.wgsl leaves them; out [batch, len_q, heads_q, head_dim] contiguous, of `out_dtype`;
// lse f32 [batch, heads_q, len_q].
//
// Algorithm: a workgroup owns a row of out. m = max m_i, l = Σ l_i · 2^(m_i - m), out = Σ acc_i · 2^(m_i - m) / l, over the
// parts in their order; lse = (m + log2 l) · ln 2.
//
// Budget: 4 bytes of workgroup memory per invocation, about 30 registers. Bound: memory, of 1/64 of the keys' and values'
// bytes in f32.

struct Params {
    at: vec4<u32>,
    rows: u32, cols: u32, len_q: u32, heads_q: u32,
    heads_kv: u32, splits: u32,
}
@group(1) @binding(0) var<uniform> p: Params;
@group(0) @binding(0) var<storage, read> parts: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;
override out_dtype: u32 = 0u;
override has_lse: bool = false;

fn row(index: u32, lane: u32) {
    if index >= p.rows { return; }
    let h = index % p.heads_q;
    let i = index / p.heads_q % p.len_q;
    let b = index / p.heads_q / p.len_q;
    let group = p.heads_q / p.heads_kv;
    let rows = group * p.len_q;
    // The row in the first part, and in how many rows it follows in the next.
    let first = (b * p.heads_kv + h / group) * p.splits * rows + i * group + h % group;
    let ends = p.at.x + p.rows * p.splits * p.cols + 2u * first;

    var largest = -infinity();
    for (var s = lane; s < p.splits; s += lanes) { largest = max(largest, parts[ends + 2u * s * rows]); }
    let m = max_all(largest, lane);
    let base = select(m, 0.0, m == -infinity());
    var sum = 0.0;
    for (var s = lane; s < p.splits; s += lanes) {
        let at = ends + 2u * s * rows;
        sum += parts[at + 1u] * exp2_1(parts[at] - base);
    }
    let l = sum_all(sum, lane);
    let scale = select(1.0 / l, 0.0, l == 0.0);
    if has_lse && lane == 0u {
        lse[p.at.z + (b * p.heads_q + h) * p.len_q + i] = fma(m, 0.6931472, ln_1(l));
    }
    let at = p.at.y + index * p.cols;
    for (var w = first_word(at) + lane; w < end_word(at + p.cols); w += lanes) {
        let start = word_start(w);
        var x = vec4(0.0);
        for (var s = 0u; s < p.splits; s++) {
            let factor = exp2_1(parts[ends + 2u * s * rows] - base);
            // A part that saw nothing has left no sums.
            if factor != 0.0 {
                for (var e = 0u; e < per_word(out_dtype); e++) {
                    if start + e >= at && start + e < at + p.cols {
                        x[e] = fma(factor, parts[p.at.x + (first + s * rows) * p.cols + start + e - at], x[e]);
                    }
                }
            }
        }
        store_word(w, at, at + p.cols, encode4(out_dtype, x * scale));
    }
}
