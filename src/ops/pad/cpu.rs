//! Padding and folding on the CPU. `x` may lie at any distances as long as its last dimension is contiguous; `out` is
//! contiguous.
//!
//! Along the width, the points that are no padding are one run in both directions; the others are taken one by one from a
//! list that is made once. Along height and depth, a line of the result comes from one line (to fold: from those that
//! stand for it, in their order). Lines are spread over threads in parts of about 16 KiB of output.
//!
//! Bound: memory, one read and one write.

use super::Pad;
use crate::backend::cpu::simd::{Lane, Simd, accumulate};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::isa_rows;
use crate::layout::Takes;
use crate::ops::with_float;

impl Kernels<Cpu> for Pad {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("pad", supports, launch).takes(&[Takes::Rows])];
}

fn supports<S: Simd>(_: &Pad, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, Pad>, op: &Pad, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let strides = l.layout(0).strides;
    if op.fold {
        let (x, Some(out)) = (l.input::<f32>(0), l.output::<f32>(0)) else { return Ok(()) };
        let [d, h, w] = *op.size;
        let border = border(op);
        let standing = [0, 1].map(|axis| standing(op, axis));
        lines(l, out, [d, h, w], |[outer, z, y], out| {
            out.fill(0.0);
            for (z, y) in standing[0][z].iter().flat_map(|z| standing[1][y].iter().map(move |y| (z, y))) {
                let line = &x[outer * strides[0] + z * strides[1] + y * strides[2]..][..op.padded()[2]];
                accumulate(s, &line[op.before[2]..][..w], out);
                border.iter().for_each(|&(at, point)| out[point] += line[at]);
            }
        });
        return Ok(());
    }
    let border = border(op);
    with_float!(op.dtype, T => {
        let (x, Some(out)) = (l.input::<T>(0), l.output::<T>(0)) else { return Ok(()) };
        lines(l, out, op.padded(), |[outer, z, y], out| {
            let (Some(z), Some(y)) = (op.source(0, z), op.source(1, y)) else {
                return out.fill(<T as bytemuck::Zeroable>::zeroed());
            };
            let line = &x[outer * strides[0] + z * strides[1] + y * strides[2]..][..op.size[2]];
            let (before, rest) = out.split_at_mut(op.before[2]);
            let (inner, after) = rest.split_at_mut(line.len());
            inner.copy_from_slice(line);
            before.fill(<T as bytemuck::Zeroable>::zeroed());
            after.fill(<T as bytemuck::Zeroable>::zeroed());
            border.iter().for_each(|&(at, point)| out[at] = line[point]);
        });
    });
    Ok(())
}

/// The places of padding along the width, each with the point that stands there.
fn border(op: &Pad) -> Vec<(usize, usize)> {
    let end = op.before[2] + op.size[2];
    let places = (0..op.before[2]).chain(end..end + op.after[2]);
    places.filter_map(|at| Some((at, op.source(2, at)?))).collect()
}

/// The places along an axis where each of its points stands.
fn standing(op: &Pad, axis: usize) -> Vec<Vec<usize>> {
    let mut places = vec![Vec::new(); op.size[axis]];
    for at in 0..op.padded()[axis] {
        if let Some(point) = op.source(axis, at) {
            places[point].push(at);
        }
    }
    places
}

/// Calls `work(place, line)` for every line of a result [outer, d, h, w].
fn lines<T: Lane>(
    l: &Launch<'_, Cpu>,
    out: &mut [T],
    [d, h, w]: [usize; 3],
    work: impl Fn([usize; 3], &mut [T]) + Sync,
) {
    let together = (4096 / w).max(1);
    l.pool().chunks_mut(out, together * w, |i, out| {
        for (j, out) in out.chunks_exact_mut(w).enumerate() {
            let line = i * together + j;
            work([line / (d * h), line / h % d, line % h], out);
        }
    });
}
