//! The recurrence of an LSTM in CUDA: `kernels/lstm.cu`, a launch for each step.

use super::Lstm;
use crate::backend::cuda::{Cuda, ptx};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;

macro_rules! row {
    ($V:ident $name:literal) => {
        Kernel::new($name, |op, _| Unsupported::require("weights of this dtype", op.dtype == DType::$V), launch)
            .takes(&[Takes::Rows; 2])
    };
}

impl Kernels<Cuda> for Lstm {
    const KERNELS: &'static [Kernel<Cuda, Self>] =
        &[row!(F32 "lstm_f32__sm80"), row!(F16 "lstm_f16__sm80"), row!(BF16 "lstm_bf16__sm80")];
}

/// Units of a block.
const UNITS: usize = 4;

fn launch(k: &Kernel<Cuda, Lstm>, op: &Lstm, l: &mut Launch<'_, Cuda>) -> Result<()> {
    if op.batch == 0 {
        return Ok(());
    }
    let [sequences, steps, ..] = l.layout(0).strides;
    let whole =
        op.hidden.is_multiple_of(16 / op.dtype.bytes()) && l.in_vectors(1) && l.in_vectors(2) && l.out_in_vectors(0);
    // Without a step the state is handed on.
    (0..op.len.max(1)).try_for_each(|step| {
        let place = |step: usize| if op.reverse { op.len.saturating_sub(1 + step) } else { step };
        l.call(k.name, ptx!("lstm"))
            .pointer(l.input(0))
            .pointer(l.input(2))
            .pointer(l.input(3))
            .pointer(l.output(0))
            .pointer(l.output(1))
            .pointer(l.output(2))
            .param_u64(sequences)
            .param_u64(steps)
            .param_u64(l.row_stride(1))
            .params(&[op.batch, op.len, op.hidden, place(step), place(step.saturating_sub(1))])
            .params(&[step == 0, step + 1 == op.len, op.len == 0, whole, false].map(usize::from))
            .pointer(l.input(1))
            .block(32 * UNITS)
            .launch(op.hidden.div_ceil(UNITS))
    })
}
