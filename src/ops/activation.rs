//! Activations that kernels fuse into their epilogues, once for vectors and once for references.

use super::Real;
use super::problem::choice;
use crate::backend::cpu::simd::{Simd, math};

choice! {
    /// What is applied to each value of a product.
    pub enum Activation {
        /// x
        None = "none",
        /// max(x, 0)
        Relu = "relu",
        /// x/2 · (1 + erf(x/√2))
        GeluErf = "gelu_erf",
        /// x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))
        GeluTanh = "gelu_tanh",
        /// x · σ(1.702·x)
        QuickGelu = "quick_gelu",
        /// x · σ(x)
        Silu = "silu",
        /// tanh x
        Tanh = "tanh",
        /// σ(x) = 1 / (1 + e^-x)
        Sigmoid = "sigmoid",
    }
}

impl Activation {
    /// Of each lane.
    #[inline(always)]
    pub fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        match self {
            Activation::None => x,
            Activation::Relu => s.max(s.zero(), x),
            Activation::GeluErf => math::gelu_erf(s, x),
            Activation::GeluTanh => math::gelu_tanh(s, x),
            Activation::QuickGelu => math::quick_gelu(s, x),
            Activation::Silu => math::silu(s, x),
            Activation::Tanh => math::tanh(s, x),
            Activation::Sigmoid => math::sigmoid(s, x),
        }
    }

    /// By definition.
    pub fn reference<T: Real>(self, x: T) -> T {
        let (one, half) = (T::of(1.0), T::of(0.5));
        let sigmoid = |x: T| one / (one + (-x).exp());
        match self {
            Activation::None => x,
            Activation::Relu => T::default().larger(x),
            Activation::GeluErf => half * x * (one + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf()),
            Activation::GeluTanh => {
                let inner = T::of((2.0 / std::f64::consts::PI).sqrt()) * (x + T::of(0.044715) * x * x * x);
                half * x * (one + inner.tanh())
            }
            Activation::QuickGelu => x * sigmoid(T::of(1.702) * x),
            Activation::Silu => x * sigmoid(x),
            Activation::Tanh => x.tanh(),
            Activation::Sigmoid => sigmoid(x),
        }
    }
}
