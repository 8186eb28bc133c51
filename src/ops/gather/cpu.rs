//! Gathering rows on the CPU.
//!
//! Layout: `table` [count, width] with contiguous rows at any distance, or of quantised blocks; `ids` [n] contiguous, `out`
//! [n, width].
//!
//! All ids are checked first, so that a wrong one is an error before anything is read. Then threads copy (or widen to
//! f32, or dequantise) rows, in parts of about 16 Ki elements. Bound: memory.

use super::Gather;
use crate::backend::cpu::simd::{Simd, widen};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::{DType, Elem, Format, Quant};
use crate::error::{Error, Result, Unsupported};
use crate::layout::Takes;
use crate::ops::quant::dequantise;
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for Gather {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("gather", supports, launch).takes(&[Takes::Rows])];
}

const PART: usize = 16384;

fn supports<S: Simd>(_: &Gather, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, Gather>, op: &Gather, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    // A negative id reads as one above 2^31, which is beyond the table or, of a longer one, still refused.
    let ids: &[u32] = match op.ids {
        DType::I32 => bytemuck::cast_slice(l.input::<i32>(1)),
        _ => l.input(1),
    };
    let limit = if op.ids == DType::I32 { op.count.min(1 << 31) } else { op.count };
    if let Some(index) = ids.iter().position(|&id| id as usize >= limit) {
        return Err(Error::Index { op: "gather", value: ids[index].into(), index, limit: limit as u64 });
    }
    let stride = l.layout(0).strides[0];
    if let Format::Blocks(quant) = op.format {
        let bytes = quant.row_bytes(op.width);
        rows(op, l, ids, [bytes; 2], |row: &[u8], out| unpack(s, quant, row, out));
        return Ok(());
    }
    with_float!(op.dtype, T => match op.out == op.dtype {
        true => rows(op, l, ids, [stride, op.width], |row: &[T], out: &mut [T]| out.copy_from_slice(row)),
        false => rows(op, l, ids, [stride, op.width], |row: &[T], out| widen(s, row, out)),
    });
    Ok(())
}

/// Calls `work` for each row with its elements in the table, of which there are `len`, `stride` after those of the last.
fn rows<T: Elem, O: Elem>(
    op: &Gather,
    l: &mut Launch<'_, Cpu>,
    ids: &[u32],
    [stride, len]: [usize; 2],
    work: impl Fn(&[T], &mut [O]) + Sync,
) {
    let (table, width) = (l.input::<T>(0), op.width);
    let Some(out) = l.output::<O>(0) else { return };
    if width == 0 {
        return;
    }
    let rows = (PART / width).max(1);
    l.pool().chunks_mut(out, rows * width, |part, out| {
        for (&id, out) in ids[part * rows..].iter().zip(out.chunks_exact_mut(width)) {
            work(&table[id as usize * stride..][..len], out);
        }
    });
}

simd_fn! {
    /// The definition, compiled for an instruction set.
    fn unpack[S](_s, quant: Quant, row: &[u8], out: &mut [f32]) {
        dequantise(quant, row, out);
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gather::*;
    use crate::{Device, Tensor};

    #[test]
    fn ids_keep_their_shape_and_wrong_ones_are_errors() {
        let d = Device::cpu_with_threads(2).unwrap();
        let x: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let table = Tensor::from_slice(&d, &x, &[4, 3]).unwrap();
        let ids = Tensor::from_slice(&d, &[3u32, 0, 1, 1], &[2, 2]).unwrap();
        let rows = gather(&table, &ids).unwrap();
        assert_eq!(rows.shape(), [2, 2, 3]);
        assert_eq!(rows.to_vec::<f32>().unwrap()[..5], [9.0, 10.0, 11.0, 0.0, 1.0]);
        let negative = Tensor::from_slice(&d, &[0i32, -1], &[2]).unwrap();
        assert!(matches!(gather(&table, &negative), Err(Error::Index { index: 1, limit: 4, .. })));
        assert!(gather(&table, &Tensor::from_slice(&d, &[4u32], &[1]).unwrap()).is_err());
        assert!(gather(&table, &table).is_err());
        assert!(gather(&ids, &ids).is_err());
    }
}
