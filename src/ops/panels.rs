//! Packing into panels on the CPU, for `pack_rhs` and for products whose rhs was not prepared.

use crate::backend::cpu::Pool;
use crate::dtype::Format;

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
        let row_of = |r: usize| match gated {
            false => Some(panel * nr + r).filter(|&row| row < n),
            true => {
                let row = panel * (nr / 2) + r % (nr / 2);
                (row < n / 2).then_some(if r < nr / 2 { row } else { n / 2 + row })
            }
        };
        for from in (0..depth).step_by(64) {
            let to = (from + 64).min(depth);
            for r in 0..nr {
                let start = row_of(r).map(|row| row * strides[0]);
                for p in from..to {
                    let value = match start {
                        Some(start) if p < k => rhs[start + p * strides[1]],
                        _ => T::zeroed(),
                    };
                    out[(p / kr * nr + r) * kr + p % kr] = value;
                }
            }
        }
    });
}
