use super::PackRhs;
use crate::dtype::Format;
use crate::ops::Real;

pub fn pack_rhs<T: Real>(op: &PackRhs, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let rhs = inputs[0].as_ref().expect("checked");
    // Operands are in the order of their logical shape, which is that of a plain result.
    let Format::Panels { nr, kr, gated } = op.format else { return vec![rhs.clone()] };
    let (nr, kr) = (nr as usize, kr as usize);
    let half = op.n / 2;
    let panels = if gated { half.div_ceil(nr / 2) } else { op.n.div_ceil(nr) };
    let mut out = Vec::new();
    for panel in 0..panels {
        for group in 0..op.k.div_ceil(kr) {
            for r in 0..nr {
                let row = match gated {
                    false => Some(panel * nr + r).filter(|&row| row < op.n),
                    true => {
                        let row = panel * (nr / 2) + r % (nr / 2);
                        (row < half).then_some(if r < nr / 2 { row } else { half + row })
                    }
                };
                for p in group * kr..(group + 1) * kr {
                    let value = row.filter(|_| p < op.k).map(|row| rhs[row * op.k + p]);
                    out.push(value.unwrap_or_default());
                }
            }
        }
    }
    vec![out]
}
