// Where elements i to i + 3 of a result come from in an operand whose merged dimensions and strides are given (`ops::walk`),
// counted from its first element. Elements beyond the `total` are taken for the last one.

// Whether four such elements always lie in one row of the innermost dimension, so that one place tells all of them.
override walk_quads: bool = false;

fn walk(i: u32, total: u32, rank: u32, dims: array<vec4<u32>, 2>, strides: array<vec4<u32>, 2>) -> vec4<u32> {
    if walk_quads {
        var left = i;
        var at = 0u;
        for (var d = rank; d > 1u; d--) {
            let n = dims[(d - 1u) >> 2u][(d - 1u) & 3u];
            at += (left % n) * strides[(d - 1u) >> 2u][(d - 1u) & 3u];
            left /= n;
        }
        let step = strides[(rank - 1u) >> 2u][(rank - 1u) & 3u];
        return vec4(at + left * strides[0].x) + vec4(0u, 1u, 2u, 3u) * step;
    }
    var left = min(vec4(i) + vec4(0u, 1u, 2u, 3u), vec4(total - 1u));
    var at = vec4(0u);
    for (var d = rank; d > 1u; d--) {
        let n = dims[(d - 1u) >> 2u][(d - 1u) & 3u];
        at += (left % vec4(n)) * strides[(d - 1u) >> 2u][(d - 1u) & 3u];
        left /= vec4(n);
    }
    return at + left * strides[0].x;
}
