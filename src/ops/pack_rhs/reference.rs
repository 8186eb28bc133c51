use super::PackRhs;
use crate::dtype::{Format, PANEL_ROWS, Quant};
use crate::ops::Real;
use crate::ops::quant::{q4_k_factors, q6_k_value};

pub fn pack_rhs<T: Real>(op: &PackRhs, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let rhs = inputs[0].as_ref().expect("checked");
    match op.format {
        // Operands are in the order of their logical shape, which is that of a plain result.
        Format::Plain => vec![rhs.clone()],
        Format::Panels { nr, kr, gated } => vec![floats(op, rhs, nr as usize, kr as usize, gated)],
        Format::BlockPanels { quant, gated } => vec![blocks(op, rhs, quant, gated)],
        Format::Blocks(_) => unreachable!("checked"),
    }
}

/// The row of the matrix that is row `r` of a panel of `nr`.
fn row_of(op: &PackRhs, nr: usize, gated: bool, panel: usize, r: usize) -> Option<usize> {
    let half = op.n / 2;
    match gated {
        false => Some(panel * nr + r).filter(|&row| row < op.n),
        true => {
            let row = panel * (nr / 2) + r % (nr / 2);
            (row < half).then_some(if r < nr / 2 { row } else { half + row })
        }
    }
}

fn panels(op: &PackRhs, nr: usize, gated: bool) -> usize {
    if gated { (op.n / 2).div_ceil(nr / 2) } else { op.n.div_ceil(nr) }
}

fn floats<T: Real>(op: &PackRhs, rhs: &[T], nr: usize, kr: usize, gated: bool) -> Vec<T> {
    let mut out = Vec::new();
    for panel in 0..panels(op, nr, gated) {
        for group in 0..op.k.div_ceil(kr) {
            for r in 0..nr {
                let row = row_of(op, nr, gated, panel, r);
                for p in group * kr..(group + 1) * kr {
                    let value = row.filter(|_| p < op.k).map(|row| rhs[row * op.k + p]);
                    out.push(value.unwrap_or_default());
                }
            }
        }
    }
    out
}

/// `rhs` holds the bytes of the blocks.
fn blocks<T: Real>(op: &PackRhs, rhs: &[T], quant: Quant, gated: bool) -> Vec<T> {
    let (row_bytes, block_bytes) = (quant.row_bytes(op.k), quant.block_bytes());
    let mut out = Vec::new();
    for panel in 0..panels(op, PANEL_ROWS, gated) {
        for b in 0..op.k / quant.block_values() {
            let block = |r: usize| -> Vec<u8> {
                let at = |row: usize| row * row_bytes + b * block_bytes;
                let row = row_of(op, PANEL_ROWS, gated, panel, r);
                row.map_or(vec![0; block_bytes], |row| {
                    rhs[at(row)..at(row) + block_bytes].iter().map(|x| x.to_f64() as u8).collect()
                })
            };
            let rows: Vec<Vec<u8>> = (0..PANEL_ROWS).map(block).collect();
            // In each step, so many bytes of every row.
            let mut each = |of: &dyn Fn(&[u8]) -> Vec<u8>| {
                out.extend(rows.iter().flat_map(|row| of(row)).map(|byte| T::of(f64::from(byte))));
            };
            match quant {
                Quant::Q8_0 | Quant::Q4_0 => each(&|x| x[..2].to_vec()),
                Quant::Q4_1 => [0, 2].iter().for_each(|&at| each(&|x| x[at..at + 2].to_vec())),
                Quant::Q4_K => {
                    [0, 2].iter().for_each(|&at| each(&|x| x[at..at + 2].to_vec()));
                    (0..8).for_each(|group| each(&|x| vec![q4_k_factors(&x[4..16], group).0]));
                    (0..8).for_each(|group| each(&|x| vec![q4_k_factors(&x[4..16], group).1]));
                }
                Quant::Q6_K => {
                    each(&|x| x[208..].to_vec());
                    (0..16).for_each(|group| each(&|x| vec![x[192 + group].wrapping_add(128)]));
                }
            }
            for from in (0..quant.block_values()).step_by(32) {
                let four = |f: &dyn Fn(usize) -> u8| -> Vec<u8> { (0..4).map(f).collect() };
                if quant == Quant::Q8_0 {
                    (0..8).for_each(|g| each(&|x| four(&|t| x[2 + 4 * g + t].wrapping_add(128))));
                    continue;
                }
                (0..4).for_each(|j| {
                    each(&|x| {
                        let low = |i: usize| integer(quant, x, from + i) & 15;
                        four(&|t| low(4 * j + t) + 16 * low(16 + 4 * j + t))
                    })
                });
                if quant == Quant::Q6_K {
                    (0..2).for_each(|j| {
                        each(&|x| {
                            let high = |i: usize| integer(quant, x, from + i) >> 4;
                            four(&|t| (0..4).map(|f| high(8 * f + 4 * j + t) << (2 * f)).sum())
                        })
                    });
                }
            }
        }
    }
    out
}

/// The integer of value `i` of a block, without an offset.
fn integer(quant: Quant, block: &[u8], i: usize) -> u8 {
    let nibble = |byte: u8, high: bool| if high { byte >> 4 } else { byte & 15 };
    match quant {
        Quant::Q8_0 => block[2 + i],
        Quant::Q4_0 => nibble(block[2 + i % 16], i >= 16),
        Quant::Q4_1 => nibble(block[4 + i % 16], i >= 16),
        Quant::Q4_K => nibble(block[16 + i / 64 * 32 + i % 32], i % 64 >= 32),
        Quant::Q6_K => q6_k_value(block, i),
    }
}
