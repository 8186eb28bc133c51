// The two products of blocked attention, by a workgroup of 128 invocations through 16 KiB of its memory. The workgroup owns
// some rows of one side (queries, or keys), `4 * groups` of them, and meets those of the other side in blocks of 32:
//   `products`      s[other] = own · other, over head_dim
//   `accumulate`    acc += weights[other] · other, over the block
// Invocation (g, c) = (lane / across, lane % across) has own rows 4g to 4g + 3, which are the components of its vectors;
// others c, c + across, …; and of the rows of `acc` the quads of columns c, c + across, …, `quads` of them. Both sides are
// staged in f32 whatever their dtype: for a product 32 elements of each row at a time, the own side transposed.
//
// Each step of a product reads 2 vectors (16 bytes) for 16 fma, each of `accumulate` 1 + quads for 16 · quads. Pitches and
// the exclusive or keep neighbours in different banks.
//
// The module defines
//   fn own_row(which: u32, row: u32) -> u32      where row `row` of the own block begins in its operand, or NOWHERE for
//   fn other_row(which: u32, row: u32) -> u32    a row that counts as zeros; the same for the block of the other side
//   fn own_quad(which: u32, at: u32, t: u32) -> vec4<f32>      elements t to t + 3 of a row that begins at `at`; 0 for
//   fn other_quad(which: u32, at: u32, t: u32) -> vec4<f32>    those beyond head_dim
// where `which` tells apart the operands of a side.

override head_dim: u32 = 64u;
// 8, 16 or 32.
override across: u32 = 8u;
// 1 to 4.
override quads: u32 = 4u;
override groups: u32 = 128u / across;
override others_each: u32 = 32u / across;
const OTHERS = 32u;
const NOWHERE = 0xffffffffu;

// Own rows [element][group], or weights [other][group]; behind them others [row][9], or [row][quads · across]; behind the
// others of a product what the module reduces over invocations.
var<workgroup> tile: array<vec4<f32>, 1024>;
const OTHER_TILE = 512u;
const REDUCED = 800u;

fn own_part(which: u32, at: u32, t: u32) -> vec4<f32> {
    if at == NOWHERE || t >= head_dim { return vec4(0.0); }
    return own_quad(which, at, t);
}
fn other_part(which: u32, at: u32, t: u32) -> vec4<f32> {
    if at == NOWHERE || t >= head_dim { return vec4(0.0); }
    return other_quad(which, at, t);
}

fn products(which: u32, lane: u32) -> array<vec4<f32>, 4> {
    // What this invocation stages: quad `t` of four own rows and of two others.
    let t = lane & 7u;
    let row = lane >> 3u;
    let staging = row < groups;
    var own = vec4(NOWHERE);
    if staging {
        own = vec4(own_row(which, 4u * row), own_row(which, 4u * row + 1u),
                   own_row(which, 4u * row + 2u), own_row(which, 4u * row + 3u));
    }
    let other = vec2(other_row(which, row), other_row(which, row + 16u));
    let g = lane / across;
    let c = lane % across;
    var s: array<vec4<f32>, 4>;
    for (var first = 0u; first < head_dim; first += 32u) {
        let count = min(8u, (head_dim - first + 3u) / 4u);
        workgroupBarrier();
        if t < count {
            let i = first + 4u * t;
            if staging {
                let turned = transpose(mat4x4(own_part(which, own.x, i), own_part(which, own.y, i),
                                              own_part(which, own.z, i), own_part(which, own.w, i)));
                let at = 4u * t * groups + (row ^ (t & (groups - 1u)));
                tile[at] = turned[0];
                tile[at + groups] = turned[1];
                tile[at + 2u * groups] = turned[2];
                tile[at + 3u * groups] = turned[3];
            }
            tile[OTHER_TILE + row * 9u + t] = other_part(which, other.x, i);
            tile[OTHER_TILE + (row + 16u) * 9u + t] = other_part(which, other.y, i);
        }
        workgroupBarrier();
        for (var u = 0u; u < count; u++) {
            let at = 4u * u * groups + (g ^ (u & (groups - 1u)));
            let x = tile[at];
            let y = tile[at + groups];
            let z = tile[at + 2u * groups];
            let w = tile[at + 3u * groups];
            for (var o = 0u; o < others_each; o++) {
                let b = tile[OTHER_TILE + (c + across * o) * 9u + u];
                s[o] = fma(x, vec4(b.x), fma(y, vec4(b.y), fma(z, vec4(b.z), fma(w, vec4(b.w), s[o]))));
            }
        }
    }
    return s;
}

// `weights` is the place of the weights in the tile; `column` the first one of `acc`, whose rows are acc[4 v] to acc[4 v + 3]
// for the invocation's quad v. Begins with a barrier.
fn accumulate(which: u32, weights: u32, column: u32, lane: u32, acc: ptr<function, array<vec4<f32>, 16>>) {
    let width = quads * across;
    // Rows of the other side that fit beside the weights.
    let rows = groups << select(0u, 1u, quads <= 2u);
    let g = lane / across;
    let c = lane % across;
    for (var first = 0u; first < OTHERS; first += rows) {
        workgroupBarrier();
        for (var i = lane; i < rows * width; i += 128u) {
            tile[OTHER_TILE + i] = other_part(which, other_row(which, first + i / width), column + 4u * (i % width));
        }
        workgroupBarrier();
        for (var o = 0u; o < rows; o++) {
            let w = tile[weights + (first + o) * groups + g];
            for (var v = 0u; v < quads; v++) {
                let x = tile[OTHER_TILE + o * width + v * across + c];
                (*acc)[4u * v] = fma(vec4(w.x), x, (*acc)[4u * v]);
                (*acc)[4u * v + 1u] = fma(vec4(w.y), x, (*acc)[4u * v + 1u]);
                (*acc)[4u * v + 2u] = fma(vec4(w.z), x, (*acc)[4u * v + 2u]);
                (*acc)[4u * v + 3u] = fma(vec4(w.w), x, (*acc)[4u * v + 3u]);
            }
        }
    }
}
