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
    let (table, out, layout) = (l.input(0), l.output(0), *l.layout(0));
    // From row to row, what a row spans, and from value to value, in elements of the table's dtype.
    let (stride, len, step, quads) = match op.format.quant() {
        Some(quant) => (quant.row_bytes(op.width), quant.row_bytes(op.width), 1, true),
        None => {
            let step = layout.strides[1];
            let aligned = [op.width, layout.strides[0], layout.offset].iter().all(|n| n.is_multiple_of(4));
            (layout.strides[0], (op.width.max(1) - 1) * step + 1, step, aligned && step == 1)
        }
    };
    let count = if op.ids == DType::I32 { op.count.min(1 << 31) } else { op.count.min(u32::MAX as usize) };
    let rows = l.rows_in_binding(stride * op.dtype.bytes());
    for first in (0..op.count.max(1)).step_by(rows) {
        let rows = rows.min(op.count - first);
        let end = if rows == 0 { 0 } else { (first + rows - 1) * stride + len };
        let call = l
            .call(k.name, shader!("gather", "dtype", "quant", "faults", "flat"))
            .dtype("x_dtype", op.dtype)
            .constant("quads", quads && out.offset().is_multiple_of(4))
            .bind(table.range(first * stride..end))
            .bind(l.input(1))
            .bind(out)
            .faults(Gather::NAME)
            .params(&[op.width, stride, count, first, rows, step]);
        let call = match op.format.quant() {
            Some(quant) => call.constant("quant", quant as u32),
            None => call,
        };
        call.dispatch_flat(out, op.out)?;
    }
    Ok(())
}
