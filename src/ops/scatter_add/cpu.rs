//! Adding up rows on the CPU, without atomics: the same bits every time.
//!
//! Layout: `x` [n, width] with contiguous rows at any distance, `ids` [n] contiguous, `out` [count, width] contiguous.
//!
//! Algorithm: all ids are checked first. A counting sort lists, for each row of the result, the rows of x that go there, in
//! their order. Then threads take the result in flat parts of `PART` values, which may begin and end inside a row: each
//! is zeroed and what belongs to it is added.
//!
//! Workspace, u32: the end of each row's list [count], and the lists [n]. Bound: memory; O(n · width + count · width).

use super::ScatterAdd;
use crate::backend::cpu::simd::{Lane, Simd, accumulate};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Error, Result, Unsupported};
use crate::isa_rows;
use crate::layout::Takes;
use crate::ops::with_float;

impl Kernels<Cpu> for ScatterAdd {
    const KERNELS: &'static [Kernel<Cpu, Self>] =
        isa_rows![("scatter_add", supports, launch).takes(&[Takes::Rows]).workspace(workspace)];
}

/// Values of a part.
const PART: usize = 4096;

fn supports<S: Simd>(_: &ScatterAdd, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn workspace(op: &ScatterAdd, _: &Caps) -> usize {
    (op.count + op.n) * size_of::<u32>()
}

fn launch<S: Simd>(_: &Kernel<Cpu, ScatterAdd>, op: &ScatterAdd, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    // A negative id reads as one above 2^31, which is beyond the result or, of a longer one, still refused.
    let ids: &[u32] = match op.ids {
        DType::I32 => bytemuck::cast_slice(l.input::<i32>(1)),
        _ => l.input(1),
    };
    let limit = if op.ids == DType::I32 { op.count.min(1 << 31) } else { op.count };
    if let Some(index) = ids.iter().position(|&id| id as usize >= limit) {
        return Err(Error::Index { op: "scatter_add", value: ids[index].into(), index, limit: limit as u64 });
    }
    let (ends, order) = l.scratch::<u32>().split_at_mut(op.count);
    sort(ids, ends, order);
    with_float!(op.dtype, T => rows::<S, T>(s, op, ends, order, l));
    Ok(())
}

/// The places of equal ids one behind the other, by id; `ends` has where the list of each id ends.
fn sort(ids: &[u32], ends: &mut [u32], order: &mut [u32]) {
    ends.fill(0);
    for &id in ids {
        ends[id as usize] += 1;
    }
    let mut start = 0;
    for end in ends.iter_mut() {
        (*end, start) = (start, start + *end);
    }
    // What was the start of a list moves to its end as the list fills.
    for (i, &id) in ids.iter().enumerate() {
        let end = &mut ends[id as usize];
        order[*end as usize] = i as u32;
        *end += 1;
    }
}

fn rows<S: Simd, T: Lane>(s: S, op: &ScatterAdd, ends: &[u32], order: &[u32], l: &mut Launch<'_, Cpu>) {
    let (x, stride, width) = (l.input::<T>(0), l.layout(0).strides[0], op.width);
    let Some(out) = l.output::<f32>(0) else { return };
    l.pool().chunks_mut(out, PART, |part, mut out| {
        let (mut row, mut column) = (part * PART / width, part * PART % width);
        while !out.is_empty() {
            let sum;
            (sum, out) = out.split_at_mut((width - column).min(out.len()));
            sum.fill(0.0);
            let start = if row == 0 { 0 } else { ends[row - 1] };
            for &i in &order[start as usize..ends[row] as usize] {
                accumulate(s, &x[i as usize * stride + column..][..sum.len()], sum);
            }
            (row, column) = (row + 1, 0);
        }
    });
}

#[cfg(test)]
mod tests {
    use crate::ops::scatter_add::*;
    use crate::{Device, Tensor};

    #[test]
    fn rows_of_one_id_are_added_and_wrong_ids_are_errors() {
        let d = Device::cpu_with_threads(2).unwrap();
        let x = Tensor::from_slice(&d, &[1f32, 2., 3., 4., 5., 6.], &[1, 3, 2]).unwrap();
        let ids = |ids: [i32; 3]| Tensor::from_slice(&d, &ids, &[1, 3]).unwrap();
        let sums = scatter_add(&x, &ids([2, 0, 2]), 4).unwrap();
        assert_eq!(sums.shape(), [4, 2]);
        assert_eq!(sums.to_vec::<f32>().unwrap(), [3., 4., 0., 0., 6., 8., 0., 0.]);
        assert!(matches!(scatter_add(&x, &ids([0, -1, 0]), 4), Err(Error::Index { index: 1, limit: 4, .. })));
        assert!(matches!(scatter_add(&x, &ids([0, 0, 0]), 0), Err(Error::Index { limit: 0, .. })));
        assert!(scatter_add(&x, &ids([0; 3]).reshape(&[3]).unwrap(), 4).is_err());
        assert!(scatter_add(&x, &x.reshape(&[3, 2]).unwrap(), 4).is_err());
    }
}
