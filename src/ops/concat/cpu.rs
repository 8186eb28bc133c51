//! Joining on the CPU.
//!
//! Layout: operands [outer, part, inner] whose last dimension is contiguous, `out` [outer, Σ part, inner] contiguous.
//!
//! The result is cut flat into parts of about 64 KiB for the threads. Each is filled by `memcpy`s from the operands that
//! lie in it: of all that an operand contributes to one outer index where its rows are neighbours, else of row after
//! row. Bound: memory, one read and one write.

use super::Concat;
use crate::backend::MAX_IN;
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::Elem;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::with_elem;

impl Kernels<Cpu> for Concat {
    const KERNELS: &'static [Kernel<Cpu, Self>] =
        &[Kernel::new("concat__portable", supports, launch).takes(&[Takes::Rows; MAX_IN])];
}

/// Bytes of the result in a part.
const PART_BYTES: usize = 64 << 10;

fn supports(_: &Concat, _: &Caps) -> Result<(), Unsupported> {
    Ok(())
}

fn launch(_: &Kernel<Cpu, Concat>, op: &Concat, l: &mut Launch<'_, Cpu>) -> Result<()> {
    with_elem!(op.dtype, T => join::<T>(op, l));
    Ok(())
}

/// An operand: its elements, where it starts in a row of the result and how long it is there, and its strides.
struct Piece<'a, T> {
    x: &'a [T],
    start: usize,
    len: usize,
    strides: [usize; 2],
}

fn join<T: Elem>(op: &Concat, l: &mut Launch<'_, Cpu>) {
    let mut start = 0;
    let mut pieces = Vec::with_capacity(op.parts.len());
    for (i, &part) in op.parts.iter().enumerate() {
        let [outer, row, ..] = l.layout(i).strides;
        pieces.push(Piece { x: l.input::<T>(i), start, len: part * op.inner, strides: [outer, row] });
        start += part * op.inner;
    }
    let width = start;
    let Some(out) = l.output::<T>(0) else { return };
    if out.is_empty() {
        return;
    }
    let part_len = PART_BYTES / size_of::<T>();
    l.pool().chunks_mut(out, part_len, |part, mut out| {
        let (mut o, mut at) = (part * part_len / width, part * part_len % width);
        while !out.is_empty() {
            for p in &pieces {
                if p.start + p.len <= at {
                    continue;
                }
                let from = at.saturating_sub(p.start);
                let run;
                (run, out) = out.split_at_mut((p.len - from).min(out.len()));
                copy(p, o, from, op.inner, run);
                at = p.start + p.len;
            }
            (o, at) = (o + 1, 0);
        }
    });
}

/// Copies the elements from `from` on that an operand has at outer index `o`.
fn copy<T: Elem>(p: &Piece<'_, T>, o: usize, from: usize, inner: usize, mut out: &mut [T]) {
    let base = o * p.strides[0];
    if p.strides[1] == inner {
        let first = base + from;
        return out.copy_from_slice(&p.x[first..first + out.len()]);
    }
    let (mut row, mut column) = (from / inner, from % inner);
    while !out.is_empty() {
        let run;
        (run, out) = out.split_at_mut((inner - column).min(out.len()));
        let first = base + row * p.strides[1] + column;
        run.copy_from_slice(&p.x[first..first + run.len()]);
        (row, column) = (row + 1, 0);
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::concat::*;
    use crate::{Device, Tensor};

    #[test]
    fn many_tensors_are_joined_along_any_dimension() {
        let d = Device::cpu_with_threads(2).unwrap();
        let x: Vec<f32> = (0..2 * 20 * 3).map(|i| i as f32).collect();
        let x = Tensor::from_slice(&d, &x, &[2, 20, 3]).unwrap();
        for view in [x.clone(), x.permute(&[2, 1, 0]).unwrap()] {
            let pieces: Vec<Tensor> = (0..20).map(|i| view.slice(1, i..i + 1).unwrap()).collect();
            let back = concat(&pieces.iter().collect::<Vec<_>>(), 1).unwrap();
            assert_eq!(back.shape(), view.shape());
            assert_eq!(back.to_vec::<f32>().unwrap(), view.contiguous().unwrap().to_vec::<f32>().unwrap());
        }
        assert!(concat(&[], 0).is_err() && concat(&[&x], 3).is_err());
        assert!(concat(&[&x, &Tensor::zeros(&d, DType::F32, &[2, 20, 4]).unwrap()], 1).is_err());
        assert!(concat(&[&x, &Tensor::zeros(&d, DType::BF16, &[2, 20, 3]).unwrap()], 1).is_err());
        assert!("concat(parts=18446744073709551615x1)".parse::<Concat>().is_err());
        assert!("concat(parts=9223372036854775807,outer=3)".parse::<Concat>().is_err());
    }
}
