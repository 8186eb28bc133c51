//! Functions of one, two or three numbers, applied to each element.

mod cases;
mod cpu;
mod cuda;
mod grad;
mod reference;
mod wgpu;

use super::activation::Activation;
use super::problem::{choice, problem};
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, Saved, first, run};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::layout::{MAX_RANK, Shape};
use crate::tensor::Tensor;

choice! {
    /// The function. Computed in f32 whatever the dtypes, and rounded once.
    pub enum Kind {
        /// -x
        Neg = "neg",
        /// |x|
        Abs = "abs",
        /// √x
        Sqrt = "sqrt",
        /// 1/√x
        Rsqrt = "rsqrt",
        /// 1/x
        Recip = "recip",
        /// x²
        Square = "square",
        /// e^x
        Exp = "exp",
        /// ln x
        Ln = "ln",
        /// sin x
        Sin = "sin",
        /// cos x
        Cos = "cos",
        /// tanh x
        Tanh = "tanh",
        /// σ(x) = 1 / (1 + e^-x)
        Sigmoid = "sigmoid",
        /// max(x, 0)
        Relu = "relu",
        /// x·σ(x)
        Silu = "silu",
        /// x·(1 + erf(x/√2))/2
        GeluErf = "gelu_erf",
        /// x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))/2
        GeluTanh = "gelu_tanh",
        /// x·σ(1.702·x)
        QuickGelu = "quick_gelu",
        /// a·x + b
        Affine = "affine",
        /// min(max(x, a), b)
        Clamp = "clamp",
        /// x + y
        Add = "add",
        /// x - y
        Sub = "sub",
        /// x·y
        Mul = "mul",
        /// x/y
        Div = "div",
        /// The larger; NaN where either is NaN.
        Max = "max",
        /// The smaller; NaN where either is NaN.
        Min = "min",
        /// x·y + z
        MulAdd = "mul_add",
        /// z where x < y, else 0
        IfLess = "if_less",
        /// y·σ'(…) of a sigmoid whose value is x: y·x·(1 - x)
        SigmoidGrad = "sigmoid_grad",
        /// y·tanh'(…) of a tanh whose value is x: y·(1 - x²)
        TanhGrad = "tanh_grad",
        /// y·silu'(x)
        SiluGrad = "silu_grad",
        /// y·gelu_erf'(x)
        GeluErfGrad = "gelu_erf_grad",
        /// y·gelu_tanh'(x)
        GeluTanhGrad = "gelu_tanh_grad",
        /// y·quick_gelu'(x)
        QuickGeluGrad = "quick_gelu_grad",
    }
}

impl Kind {
    /// How many operands it takes.
    pub const fn operands(self) -> usize {
        match self {
            Kind::Add | Kind::Sub | Kind::Mul | Kind::Div | Kind::Max | Kind::Min => 2,
            Kind::SigmoidGrad | Kind::TanhGrad | Kind::SiluGrad => 2,
            Kind::GeluErfGrad | Kind::GeluTanhGrad | Kind::QuickGeluGrad => 2,
            Kind::MulAdd | Kind::IfLess => 3,
            _ => 1,
        }
    }
}

problem! {
    /// `out[i] = kind(x[i], y[i], z[i])`. An operand that repeats along a dimension is a broadcast view of `shape`.
    pub struct Elementwise("elementwise") {
        /// The function.
        kind: Kind = Kind::Add,
        /// Of the operands.
        dtype: DType = DType::F32,
        /// Of the result.
        out: DType = DType::F32,
        /// Of operands and result.
        shape: Shape = Shape::of(&[1]),
        /// `affine`: the factor; `clamp`: the lower limit; else 0.
        a: Scalar = Scalar(0.0),
        /// `affine`: the summand; `clamp`: the upper limit; else 0.
        b: Scalar = Scalar(0.0),
    }
}

impl Elementwise {
    fn checked(self) -> Result<Elementwise> {
        if !self.dtype.is_float() || !self.out.is_float() {
            let why = format!("{} computes floats, got {} to {}; cast first", self.kind, self.dtype, self.out);
            return Err(Error::problem("elementwise", why));
        }
        let unused = self.a == Scalar(0.0) && self.b == Scalar(0.0);
        match self.kind {
            Kind::Affine => {}
            Kind::Clamp if self.a.0 <= self.b.0 => {}
            Kind::Clamp => {
                let why = format!("clamp needs limits in order, got {} and {}", self.a, self.b);
                return Err(Error::problem("elementwise", why));
            }
            _ if unused => {}
            kind => return Err(Error::problem("elementwise", format!("{kind} takes no numbers a and b"))),
        }
        Ok(self)
    }
}

impl Op for Elementwise {
    const NAME: &'static str = "elementwise";

    fn inputs(&self) -> Inputs {
        let n = self.kind.operands();
        // Numbers that are hardly ever equal, where the function jumps.
        let jumps = self.kind == Kind::IfLess;
        let fill = if jumps { Fill::Affine { scale: 0.01, offset: 0.0 } } else { Fill::Normal };
        [
            Operand::new("x", self.dtype, &self.shape),
            Operand::new("y", self.dtype, &self.shape).only_if(n > 1).fill(fill),
            Operand::new("z", self.dtype, &self.shape).only_if(n > 2),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", self.out, &self.shape)].into()
    }
    /// One per element, whatever the function.
    fn flops(&self) -> u64 {
        self.shape.count() as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::elementwise(self, inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        self.keeps_for(!0)
    }
    fn keeps_for(&self, needs: u32) -> (u32, u32) {
        grad::keeps(self.kind, needs)
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        grad::grad(saved, grads)
    }
}

/// `kind` of operands that repeat along dimensions of extent 1 (and in front) as in NumPy, into dtype `out`. `a` and `b`
/// are the numbers of `affine` and `clamp`, else 0.
///
/// # Errors
/// The number of operands is not the kind's, they are not floats of one dtype, or their shapes do not fit.
pub fn apply(kind: Kind, operands: &[&Tensor], [a, b]: [f32; 2], out: DType) -> Result<Tensor> {
    let Some(x) = operands.first().filter(|_| operands.len() == kind.operands()) else {
        let why = format!("{kind} takes {} operands, got {}", kind.operands(), operands.len());
        return Err(Error::problem("elementwise", why));
    };
    let shape = common_shape(operands)?;
    let op = Elementwise { kind, dtype: x.dtype(), out, shape, a: Scalar(a), b: Scalar(b) }.checked()?;
    let views: Vec<Tensor> = operands
        .iter()
        .map(|t| if *t.shape() == *shape { Ok((*t).clone()) } else { t.broadcast(&shape) })
        .collect::<Result<_>>()?;
    let refs: Vec<Option<&Tensor>> = views.iter().map(Some).collect();
    Ok(first(run(&op, x.device(), &refs)?))
}

/// The shape that all operands repeat to.
fn common_shape(operands: &[&Tensor]) -> Result<Shape> {
    let rank = operands.iter().map(|t| t.shape().len()).max().unwrap_or(0);
    let mut dims = [1; MAX_RANK];
    for t in operands {
        let lead = rank - t.shape().len();
        for (have, &n) in dims[lead..rank].iter_mut().zip(t.shape()) {
            if *have != n && *have != 1 && n != 1 {
                let shapes: Vec<String> = operands.iter().map(|t| t.layout().shape.to_string()).collect();
                let why = format!("shapes {} do not fit each other", shapes.join(" and "));
                return Err(Error::problem("elementwise", why));
            }
            if n != 1 {
                *have = n;
            }
        }
    }
    Shape::new(&dims[..rank])
}

macro_rules! functions {
    ($($(#[$meta:meta])* $name:ident($($x:ident),+) = $Kind:ident;)*) => {$(
        $(#[$meta])*
        ///
        /// # Errors
        /// The operands are not floats of one dtype, or their shapes do not fit each other.
        pub fn $name($($x: &Tensor),+) -> Result<Tensor> {
            let operands = [$($x),+];
            apply(Kind::$Kind, &operands, [0.0; 2], operands[0].dtype())
        }
    )*};
}

functions! {
    /// -x
    neg(x) = Neg;
    /// |x|
    abs(x) = Abs;
    /// √x
    sqrt(x) = Sqrt;
    /// 1/√x
    rsqrt(x) = Rsqrt;
    /// 1/x
    recip(x) = Recip;
    /// x²
    square(x) = Square;
    /// e^x
    exp(x) = Exp;
    /// ln x
    ln(x) = Ln;
    /// sin x
    sin(x) = Sin;
    /// cos x
    cos(x) = Cos;
    /// tanh x
    tanh(x) = Tanh;
    /// σ(x) = 1 / (1 + e^-x)
    sigmoid(x) = Sigmoid;
    /// max(x, 0)
    relu(x) = Relu;
    /// x·σ(x)
    silu(x) = Silu;
    /// x·(1 + erf(x/√2))/2
    gelu_erf(x) = GeluErf;
    /// x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))/2
    gelu_tanh(x) = GeluTanh;
    /// x·σ(1.702·x)
    quick_gelu(x) = QuickGelu;
    /// x + y
    add(x, y) = Add;
    /// x - y
    sub(x, y) = Sub;
    /// x·y
    mul(x, y) = Mul;
    /// x/y
    div(x, y) = Div;
    /// The larger; NaN where either is NaN.
    maximum(x, y) = Max;
    /// The smaller; NaN where either is NaN.
    minimum(x, y) = Min;
    /// x·y + z
    mul_add(x, y, z) = MulAdd;
    /// z where x < y, else 0
    if_less(x, y, z) = IfLess;
}

/// a·x + b
///
/// # Errors
/// `x` is not of a float dtype.
pub fn affine(x: &Tensor, a: f32, b: f32) -> Result<Tensor> {
    apply(Kind::Affine, &[x], [a, b], x.dtype())
}

/// Each value, or the limit that it is beyond; NaN stays.
///
/// # Errors
/// `x` is not of a float dtype, or the limits are not in order.
pub fn clamp(x: &Tensor, low: f32, high: f32) -> Result<Tensor> {
    apply(Kind::Clamp, &[x], [low, high], x.dtype())
}

/// An activation of products as a function of its own.
///
/// # Errors
/// `x` is not of a float dtype.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    activate_as(x, activation, x.dtype())
}

/// As [`activate`], into another dtype.
///
/// # Errors
/// `x` or the result is not of a float dtype.
pub fn activate_as(x: &Tensor, activation: Activation, out: DType) -> Result<Tensor> {
    let kind = match activation {
        Activation::None => return x.to_dtype(out),
        Activation::Relu => Kind::Relu,
        Activation::GeluErf => Kind::GeluErf,
        Activation::GeluTanh => Kind::GeluTanh,
        Activation::QuickGelu => Kind::QuickGelu,
        Activation::Silu => Kind::Silu,
        Activation::Tanh => Kind::Tanh,
        Activation::Sigmoid => Kind::Sigmoid,
    };
    apply(kind, &[x], [0.0; 2], out)
}
