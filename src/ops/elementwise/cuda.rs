//! Elementwise functions in CUDA: `kernels/elementwise.cu`.

use super::Elementwise;
use crate::backend::cuda::{Caps, Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch, always};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::walk::{WALKERS, Walk};

impl Kernels<Cuda> for Elementwise {
    const KERNELS: &'static [Kernel<Cuda, Self>] = &[
        Kernel::new("elementwise_16bit__sm80", narrow, |k, op, l| {
            launch(op, l, 8, [k.name, "elementwise_16bit_binary", "elementwise_16bit_ternary"])
        })
        .takes(&[Takes::Strided; 3]),
        Kernel::new("elementwise_any__sm80", always, |k, op, l| {
            launch(op, l, 4, [k.name, "elementwise_any_binary", "elementwise_any_ternary"])
        })
        .takes(&[Takes::Strided; 3]),
    ];
}

fn narrow(op: &Elementwise, _: &Caps) -> Result<(), Unsupported> {
    Unsupported::require("operands and results of 16 bits", op.dtype.bytes() == 2 && op.out.bytes() == 2)
}

/// With units of `per` elements, and the entry point for each number of operands.
fn launch(op: &Elementwise, l: &mut Launch<'_, Cuda>, per: usize, entries: [&'static str; 3]) -> Result<()> {
    let (n, bytes, out_bytes) = (op.kind.operands(), op.dtype.bytes(), op.out.bytes());
    let units = if n == 1 { 4 } else { 2 };
    for part in Walk::new(std::array::from_fn(|i| (i < n).then(|| *l.layout(i)))).parts() {
        let out = l.output(0) + (part.start * out_bytes) as u64;
        let operands: Vec<u64> = (0..n).map(|i| l.input(i) + (part.starts[i] * bytes) as u64).collect();
        let aligned = out.is_multiple_of((per * out_bytes) as u64);
        let call = operands.iter().fold(l.call(entries[n - 1], ptx!("elementwise")), |call, &x| call.pointer(x));
        part.walk
            .of_units(call.pointer(out), &operands, bytes, per, aligned)
            .param(op.kind as usize)
            .param_f32(op.a.0)
            .param_f32(op.b.0)
            .dtype(op.dtype)
            .dtype(op.out)
            .block(WALKERS)
            .launch(part.walk.count().div_ceil(WALKERS * per * units))?;
    }
    Ok(())
}
