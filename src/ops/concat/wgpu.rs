//! Joining in WGSL: `shaders/concat.wgsl`, once for each operand.

use super::Concat;
use crate::backend::wgpu::{Wgpu, shader::shader};
use crate::backend::{Kernel, Kernels, Launch, MAX_IN, always};
use crate::error::Result;
use crate::layout::Takes;

impl Kernels<Wgpu> for Concat {
    const KERNELS: &'static [Kernel<Wgpu, Self>] =
        &[Kernel::new("concat__wgsl", always, launch).takes(&[Takes::Rows; MAX_IN])];
}

fn launch(k: &Kernel<Wgpu, Concat>, op: &Concat, l: &mut Launch<'_, Wgpu>) -> Result<()> {
    let mut start = 0;
    for (i, &part) in op.parts.iter().enumerate() {
        let [outer, row, ..] = l.layout(i).strides;
        let (len, distance) = (part * op.inner, op.total() * op.inner);
        l.call(k.name, shader!("concat", "dtype", "row_out", "runs"))
            .constant("x_run", part <= 1 || row == op.inner)
            .bind(l.input(i))
            .bind(l.output(0))
            .dispatch_runs([op.outer, len], op.dtype, &[op.inner, outer, row, start, distance])?;
        start += len;
    }
    Ok(())
}
