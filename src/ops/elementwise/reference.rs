use super::{Elementwise, Kind};
use crate::ops::Real;

pub fn elementwise<T: Real>(op: &Elementwise, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let x = inputs[0].as_ref().expect("checked");
    let at = |operand: usize, i: usize| inputs.get(operand).and_then(Option::as_ref).map_or(T::default(), |v| v[i]);
    let (a, b) = (T::of(op.a.0 as f64), T::of(op.b.0 as f64));
    vec![(0..x.len()).map(|i| function(op.kind, a, b, x[i], at(1, i), at(2, i))).collect()]
}

fn function<T: Real>(kind: Kind, a: T, b: T, x: T, y: T, z: T) -> T {
    let (zero, half, one) = (T::default(), T::of(0.5), T::of(1.0));
    let sigmoid = |x: T| one / (one + (-x).exp());
    // The derivative of x·σ(u).
    let slope = |u: T, du: T| sigmoid(u) + x * sigmoid(u) * (one - sigmoid(u)) * du;
    match kind {
        Kind::Neg => -x,
        Kind::Abs => x.abs(),
        Kind::Sqrt => x.sqrt(),
        Kind::Rsqrt => one / x.sqrt(),
        Kind::Recip => one / x,
        Kind::Square => x * x,
        Kind::Exp => x.exp(),
        Kind::Ln => x.ln(),
        Kind::Sin => x.sin(),
        Kind::Cos => x.cos(),
        Kind::Tanh => x.tanh(),
        Kind::Sigmoid => sigmoid(x),
        Kind::Relu => zero.larger(x),
        Kind::Silu => x * sigmoid(x),
        Kind::GeluErf => half * x * (one + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf()),
        Kind::GeluTanh => {
            let u = T::of((2.0 / std::f64::consts::PI).sqrt()) * (x + T::of(0.044715) * x * x * x);
            half * x * (one + u.tanh())
        }
        Kind::QuickGelu => x * sigmoid(T::of(1.702) * x),
        Kind::Affine => a * x + b,
        Kind::Clamp => {
            if x < a {
                a
            } else if x > b {
                b
            } else {
                x
            }
        }
        Kind::Add => x + y,
        Kind::Sub => x - y,
        Kind::Mul => x * y,
        Kind::Div => x / y,
        Kind::Max if x >= y => x,
        Kind::Min if x <= y => x,
        Kind::Max if x < y => y,
        Kind::Min if x > y => y,
        // Neither comparison holds: one is NaN.
        Kind::Max | Kind::Min => x + y,
        Kind::MulAdd => x * y + z,
        Kind::IfLess => {
            if x < y {
                z
            } else {
                zero
            }
        }
        Kind::SigmoidGrad => y * x * (one - x),
        Kind::TanhGrad => y * (one - x * x),
        Kind::SiluGrad => y * slope(x, one),
        Kind::QuickGeluGrad => y * slope(T::of(1.702) * x, T::of(1.702)),
        Kind::GeluTanhGrad => {
            let (a, b) = (T::of(2.0 * (2.0 / std::f64::consts::PI).sqrt()), T::of(0.044715));
            y * slope(a * (x + b * x * x * x), a * (one + T::of(3.0) * b * x * x))
        }
        Kind::GeluErfGrad => {
            let below = half * (one + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf());
            y * (below + x * (-half * x * x).exp() / T::of(std::f64::consts::TAU.sqrt()))
        }
    }
}
