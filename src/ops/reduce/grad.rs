//! Gradients of reductions: the result's, repeated along what was reduced (a view, where nothing else is to be done).

use super::{Kind, Reduce, reduce};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::Saved;
use crate::ops::elementwise::{affine, div, if_less, mul, sub};
use crate::tensor::Tensor;

/// Equal extremes share the gradient equally. The norm of zeros has gradient 0.
pub fn grad(saved: &Saved<Reduce>, out: &Tensor) -> Result<Tensor> {
    let op = &saved.op;
    let repeat = |t: &Tensor| t.broadcast(&[op.outer, op.len, op.inner]);
    let column = |t: &Tensor| {
        let dims = [op.outer, 1, op.inner];
        t.reshape(&dims).or_else(|_| t.contiguous()?.reshape(&dims))
    };
    let g = column(out)?;
    let number = |v: f32| Tensor::from_slice(g.device(), &[v], &[]);
    let x = || saved.input(0).to_dtype(DType::F32);
    match op.kind {
        Kind::Sum => repeat(&g),
        Kind::Mean => repeat(&affine(&g, 1.0 / op.len as f32, 0.0)?),
        Kind::Norm2 => {
            let norm = column(saved.output(0))?;
            mul(&x()?, &if_less(&number(0.0)?, &norm, &div(&g, &norm)?)?)
        }
        Kind::Max | Kind::Min => {
            let (x, extreme) = (x()?, column(saved.output(0))?);
            // `v` of its line at each extreme, 0 elsewhere: no value lies beyond the extreme.
            let at_extremes = |v: &Tensor| match op.kind {
                Kind::Max => sub(v, &if_less(&x, &extreme, v)?),
                _ => sub(v, &if_less(&extreme, &x, v)?),
            };
            let count = reduce(Kind::Sum, &at_extremes(&repeat(&number(1.0)?.reshape(&[1, 1, 1])?)?)?, 1)?;
            at_extremes(&div(&g, &count)?)
        }
    }
}
