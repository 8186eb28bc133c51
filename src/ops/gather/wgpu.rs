//! Gathering rows in WGSL: `shaders/gather.wgsl`. A table larger than a binding is gone over in parts.

use super::Gather;
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::{DType, Format};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::Op;

impl Kernels<Wgpu> for Gather {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("gather__wgsl", |op, _| supports(op), launch).takes(&[Takes::Strided])];
}

fn supports(op: &Gather) -> Result<(), Unsupported> {
    Unsupported::require(
        "a plain table, or one of quantised blocks",
        !matches!(op.format, Format::Panels { .. } | Format::BlockPanels { .. }),
    )
}

fn launch(k: &Kernel<Wgpu, Gather>, op: &Gather, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let (table, out, layout, quant) = (l.input(0), l.output(0), *l.layout(0), op.format.quant());
    // From row to row and from value to value, in elements of the table's dtype; rows of blocks are of bytes.
    let [stride, step] = quant.map_or([layout.strides[0], layout.strides[1]], |q| [q.row_bytes(op.width), 1]);
    let aligned = [op.width, stride, layout.offset, out.offset()].iter().all(|n| n.is_multiple_of(4));
    let quads = if quant.is_some() { out.offset().is_multiple_of(4) } else { aligned && step == 1 };
    let count = if op.ids == DType::I32 { op.count.min(1 << 31) } else { op.count.min(u32::MAX as usize) };
    // Parts of rows, or of columns where those lie farther apart.
    let by_columns = step > stride;
    let (all, distance) = if by_columns { (op.width, step) } else { (op.count, stride) };
    let most = l.rows_in_binding(distance * op.dtype.bytes());
    for first in (0..all.max(1)).step_by(most) {
        let some = most.min(all - first);
        let [rows, columns] =
            if by_columns { [0..op.count, first..first + some] } else { [first..first + some, 0..op.width] };
        let len = match quant {
            Some(quant) => rows.len() * quant.row_bytes(op.width),
            None if rows.is_empty() || columns.is_empty() => 0,
            None => (rows.len() - 1) * stride + (columns.len() - 1) * step + 1,
        };
        let begin = rows.start * stride + columns.start * step;
        let call = l
            .call(k.name, shader!("gather", "dtype", "quant", "faults", "flat"))
            .dtype("x_dtype", op.dtype)
            .constant("quads", quads)
            .bind(table.range(begin..begin + len))
            .bind(l.input(1))
            .bind(out)
            .faults(Gather::NAME)
            .params(&[op.width, stride, count, rows.start, rows.len(), columns.start, columns.len(), step]);
        let call = match quant {
            Some(quant) => call.constant("quant", quant as u32),
            None => call,
        };
        call.dispatch_flat(out, op.out)?;
    }
    Ok(())
}
