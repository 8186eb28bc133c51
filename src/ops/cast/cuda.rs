//! Casts in CUDA: `kernels/cast.cu`.

use super::Cast;
use crate::backend::cuda::{Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::Result;
use crate::layout::Takes;
use crate::ops::walk::{WALKERS, Walk};

impl Kernels<Cuda> for Cast {
    const KERNELS: &'static [Kernel<Cuda, Self>] =
        &[Kernel::new("cast__sm80", always, launch).takes(&[Takes::Strided])];
}

/// Elements of a unit, and units of a thread.
const QUAD: usize = 4;
const UNITS: usize = 4;

fn launch(k: &Kernel<Cuda, Cast>, op: &Cast, l: &mut Launch<'_, Cuda>) -> Result<()> {
    let (from, to) = (op.from.bytes(), op.to.bytes());
    for part in Walk::new([Some(*l.layout(0)), None, None]).parts() {
        let (x, out) = (l.input(0) + (part.starts[0] * from) as u64, l.output(0) + (part.start * to) as u64);
        let units = out.is_multiple_of((QUAD * to) as u64);
        let call = l.call(k.name, ptx!("cast")).pointer(x).pointer(out);
        part.walk
            .of_units(call, &[x], from, QUAD, units)
            .dtype(op.from)
            .dtype(op.to)
            .block(WALKERS)
            .launch(part.walk.count().div_ceil(WALKERS * QUAD * UNITS))?;
    }
    Ok(())
}
