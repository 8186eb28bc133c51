//! Packing into panels on the CPU and back, for `pack_rhs` and for products whose rhs was not prepared.

use crate::backend::cpu::Pool;
use crate::dtype::Format;

/// The rows of a matrix that stand in one panel: up to two runs of (place in the panel, first row, rows), the second for
/// the other half of a gated pair.
fn runs(panel: usize, n: usize, nr: usize, gated: bool) -> [(usize, usize, usize); 2] {
    let (width, rows) = if gated { (nr / 2, n / 2) } else { (nr, n) };
    let first = panel * width;
    let count = width.min(rows - first);
    [(0, first, count), (width, rows + first, if gated { count } else { 0 })]
}

/// Packs a matrix [n, k] with the given strides. `out` holds [`Format::elements`] elements.
pub(crate) fn pack_panels<T: bytemuck::Pod + Send + Sync>(
    pool: &Pool,
    rhs: &[T],
    strides: [usize; 2],
    [n, k]: [usize; 2],
    format: Format,
    out: &mut [T],
) {
    let Format::Panels { nr, kr, gated } = format else { return };
    let (nr, kr) = (nr as usize, kr as usize);
    let depth = k.div_ceil(kr) * kr;
    pool.chunks_mut(out, nr * depth, |panel, out| {
        let runs = runs(panel, n, nr, gated);
        if runs[0].2 + runs[1].2 < nr || depth != k {
            out.fill(T::zeroed());
        }
        for run in runs {
            // With a group's length that the compiler knows, places are found without divisions.
            match kr {
                1 => pack_run(rhs, strides, k, run, nr, 1, out),
                2 => pack_run(rhs, strides, k, run, nr, 2, out),
                kr => pack_run(rhs, strides, k, run, nr, kr, out),
            }
        }
    });
}

#[inline(always)]
fn pack_run<T: Copy>(
    rhs: &[T],
    strides: [usize; 2],
    k: usize,
    (place, first, count): (usize, usize, usize),
    nr: usize,
    kr: usize,
    out: &mut [T],
) {
    let at = |r: usize, p: usize| (first + r) * strides[0] + p * strides[1];
    if strides[0] == 1 && kr == 1 && count > 0 {
        // A transposed matrix: a panel's values of one k are neighbours.
        for p in 0..k {
            out[p * nr + place..][..count].copy_from_slice(&rhs[at(0, p)..][..count]);
        }
        return;
    }
    // Blocks of k, so that the lines written (nr values for each k) stay in L1 while each row is read in order.
    for from in (0..k).step_by(64) {
        let to = (from + 64).min(k);
        for r in 0..count {
            for p in from..to {
                out[(p / kr * nr + place + r) * kr + p % kr] = rhs[at(r, p)];
            }
        }
    }
}

/// The matrix [n, k] that was packed into panels, contiguous.
pub(crate) fn unpack_panels<T: bytemuck::Pod + Send + Sync>(
    pool: &Pool,
    packed: &[T],
    [n, k]: [usize; 2],
    format: Format,
    out: &mut [T],
) {
    let Format::Panels { nr, kr, gated } = format else { return };
    let (nr, kr) = (nr as usize, kr as usize);
    let panel_len = nr * k.div_ceil(kr) * kr;
    // Rows of a part: they share the lines of a panel.
    const ROWS: usize = 16;
    pool.chunks_mut(out, ROWS * k, |part, out| {
        for from in (0..k).step_by(64) {
            let to = (from + 64).min(k);
            for (i, out) in out.chunks_exact_mut(k).enumerate() {
                let row = part * ROWS + i;
                let (panel, r) = match gated {
                    false => (row / nr, row % nr),
                    true => {
                        let (half, row) = (row / (n / 2), row % (n / 2));
                        (row / (nr / 2), half * (nr / 2) + row % (nr / 2))
                    }
                };
                let packed = &packed[panel * panel_len..][..panel_len];
                for p in from..to {
                    out[p] = packed[(p / kr * nr + r) * kr + p % kr];
                }
            }
        }
    });
}
