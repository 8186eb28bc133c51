//! Gradients of functions of single numbers: kinds that take the operand (or, where that is enough, the value) and the
//! result's gradient; the rarer ones are composed.
//!
//! At corners: |x| and max(x, 0) have slope 0 at 0, a clamped value has slope 1 on its limits, and of equal operands of max
//! and min each gets half. `if_less` sends its gradient to z alone.

use super::{Elementwise, Kind, add, affine, apply, cos, div, if_less, mul, neg, sin, square, sub};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::{Saved, no_grad_of};
use crate::tensor::Tensor;

const X: u32 = 1;
const Y: u32 = 2;

pub fn keeps(kind: Kind, needs: u32) -> (u32, u32) {
    // A factor is kept for the gradient of the other one.
    let factors = (needs & X) << 1 | (needs & Y) >> 1;
    match kind {
        Kind::Neg | Kind::Affine | Kind::Add | Kind::Sub => (0, 0),
        Kind::Sqrt | Kind::Rsqrt | Kind::Recip | Kind::Exp | Kind::Tanh | Kind::Sigmoid | Kind::Relu => (0, 1),
        Kind::Abs | Kind::Square | Kind::Ln | Kind::Sin | Kind::Cos | Kind::Clamp => (X, 0),
        Kind::Silu | Kind::GeluErf | Kind::GeluTanh | Kind::QuickGelu => (X, 0),
        Kind::Mul | Kind::MulAdd => (factors, 0),
        Kind::Div => (Y, (needs & Y) >> 1),
        Kind::Max | Kind::Min | Kind::IfLess => (X | Y, 0),
        Kind::SigmoidGrad | Kind::TanhGrad | Kind::SiluGrad => (0, 0),
        Kind::GeluErfGrad | Kind::GeluTanhGrad | Kind::QuickGeluGrad => (0, 0),
    }
}

pub fn grad(saved: &Saved<Elementwise>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let (op, Some(g)) = (&saved.op, &grads[0]) else { return Ok(vec![None; 3]) };
    // Gradients are f32; so is all that they are computed from.
    let operand = |i: usize| saved.input(i).to_dtype(DType::F32);
    let (x, y) = (|| operand(0), || operand(1));
    let out = || saved.output(0).to_dtype(DType::F32);
    let number = |v: f32| Tensor::from_slice(g.device(), &[v], &[]);
    let of = |kind: Kind, x: &Tensor| apply(kind, &[x, g], [0.0; 2], DType::F32);
    let only = |dx: Tensor| Ok(vec![Some(dx)]);
    match op.kind {
        Kind::Neg => only(neg(g)?),
        Kind::Affine => only(affine(g, op.a.0, 0.0)?),
        Kind::Abs => {
            let (x, zero) = (x()?, number(0.0)?);
            only(sub(&if_less(&zero, &x, g)?, &if_less(&x, &zero, g)?)?)
        }
        Kind::Sqrt => only(div(&affine(g, 0.5, 0.0)?, &out()?)?),
        Kind::Rsqrt => {
            let out = out()?;
            only(mul(&mul(&affine(g, -0.5, 0.0)?, &out)?, &square(&out)?)?)
        }
        Kind::Recip => only(neg(&mul(g, &square(&out()?)?)?)?),
        Kind::Square => only(mul(&affine(g, 2.0, 0.0)?, &x()?)?),
        Kind::Exp => only(mul(g, &out()?)?),
        Kind::Ln => only(div(g, &x()?)?),
        Kind::Sin => only(mul(g, &cos(&x()?)?)?),
        Kind::Cos => only(neg(&mul(g, &sin(&x()?)?)?)?),
        Kind::Tanh => only(of(Kind::TanhGrad, &out()?)?),
        Kind::Sigmoid => only(of(Kind::SigmoidGrad, &out()?)?),
        Kind::Relu => only(if_less(&number(0.0)?, &out()?, g)?),
        Kind::Silu => only(of(Kind::SiluGrad, &x()?)?),
        Kind::GeluErf => only(of(Kind::GeluErfGrad, &x()?)?),
        Kind::GeluTanh => only(of(Kind::GeluTanhGrad, &x()?)?),
        Kind::QuickGelu => only(of(Kind::QuickGeluGrad, &x()?)?),
        Kind::Clamp => {
            let x = x()?;
            let below = if_less(&x, &number(op.a.0)?, g)?;
            only(sub(&sub(g, &below)?, &if_less(&number(op.b.0)?, &x, g)?)?)
        }
        Kind::Add => Ok(vec![Some(g.clone()), Some(g.clone())]),
        Kind::Sub => Ok(vec![Some(g.clone()), if saved.needs(1) { Some(neg(g)?) } else { None }]),
        Kind::Mul | Kind::MulAdd => {
            let factor = |i: usize, other: usize| match saved.needs(i) {
                true => mul(g, &operand(other)?).map(Some),
                false => Ok(None),
            };
            Ok(vec![factor(0, 1)?, factor(1, 0)?, Some(g.clone())])
        }
        Kind::Div => {
            let dx = div(g, &y()?)?;
            let dy = if saved.needs(1) { Some(neg(&mul(&dx, &out()?)?)?) } else { None };
            Ok(vec![Some(dx), dy])
        }
        Kind::Max | Kind::Min => {
            let (low, high) = if op.kind == Kind::Max { (y()?, x()?) } else { (x()?, y()?) };
            // x gets 1, 1/2 or 0: half of what 1 ± 1 is.
            let twice = sub(&add(g, &if_less(&low, &high, g)?)?, &if_less(&high, &low, g)?)?;
            let dx = affine(&twice, 0.5, 0.0)?;
            let dy = sub(g, &dx)?;
            Ok(vec![Some(dx), Some(dy)])
        }
        Kind::IfLess => Ok(vec![None, None, Some(if_less(&x()?, &y()?, g)?)]),
        Kind::SigmoidGrad
        | Kind::TanhGrad
        | Kind::SiluGrad
        | Kind::GeluErfGrad
        | Kind::GeluTanhGrad
        | Kind::QuickGeluGrad => no_grad_of(op, "second derivatives are not taken"),
    }
}
