//! The gradient of a convolution's weight: a product over places.

mod cases;
mod cpu;
mod cuda;
mod grad;
mod product;
mod reference;
mod wgpu;

pub use super::conv::Options;
use super::convolution::{Axes, Geometry, Padding, check_groups, five, products};
use super::problem::problem;
use super::{Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, conv, first, run};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `weight[r, c, k] = Σ_b Σ_o grad[b, r, o] · x[b, c, o · stride + k · dilation - before]` for places o and taps k along depth,
    /// height and width, with the channels c of r's group: what the gradient of the weight of a convolution of these
    /// fields is, given that of its result. All f32.
    ///
    /// Operands: x [batch, channels_in, depth, height, width], grad [batch, channels_out, …] of the convolution's extents.
    /// Results: weight [channels_out, channels_in / groups, kernel…].
    pub struct ConvBwdWeight("conv_bwd_weight") {
        /// Sounds, pictures or clips.
        batch: usize = 1,
        /// Channels of x.
        channels_in: usize = 1,
        /// Channels of grad.
        channels_out: usize = 1,
        /// Into which channels of both sides are cut; each group by itself.
        groups: usize = 1,
        /// Points of x along each axis.
        size: Axes<1> = Axes::PLAIN,
        /// Taps along each axis.
        kernel: Axes<1> = Axes::PLAIN,
        /// Points from one output's to the next one's.
        stride: Axes<1> = Axes::PLAIN,
        /// Points from one tap's to the next one's.
        dilation: Axes<1> = Axes::PLAIN,
        /// Points added before each axis.
        before: Axes<0> = Axes::PLAIN,
        /// Points added behind each axis.
        after: Axes<0> = Axes::PLAIN,
        /// What the added points are.
        padding: Padding = Padding::Zeros,
    }
}

impl ConvBwdWeight {
    fn checked(self) -> Result<ConvBwdWeight> {
        let name = Self::NAME;
        check_groups(name, self.groups, self.channels_in, self.channels_out)?;
        let g = self.geometry();
        g.check(name)?;
        for operand in [self.x_shape(), self.weight_shape(), self.grad_shape()] {
            Shape::new(&operand)?;
        }
        let [d, h, w] = g.outputs();
        products(name, &[&self.weight_shape()[..], &[self.batch, d, h, w]].concat())?;
        Ok(self)
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            size: *self.size,
            kernel: *self.kernel,
            stride: *self.stride,
            dilation: *self.dilation,
            before: *self.before,
            after: *self.after,
            padding: self.padding,
        }
    }

    fn x_shape(&self) -> [usize; 5] {
        let [d, h, w] = *self.size;
        [self.batch, self.channels_in, d, h, w]
    }

    fn weight_shape(&self) -> [usize; 5] {
        let [d, h, w] = *self.kernel;
        [self.channels_out, self.channels_in / self.groups, d, h, w]
    }

    fn grad_shape(&self) -> [usize; 5] {
        let [d, h, w] = self.geometry().outputs();
        [self.batch, self.channels_out, d, h, w]
    }
}

impl Op for ConvBwdWeight {
    const NAME: &'static str = "conv_bwd_weight";

    fn inputs(&self) -> Inputs {
        [Operand::new("x", DType::F32, &self.x_shape()), Operand::new("grad", DType::F32, &self.grad_shape())].into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("weight", DType::F32, &self.weight_shape())].into()
    }
    /// A multiply-add for each tap of each output, those on padding too.
    fn flops(&self) -> u64 {
        let outputs = self.geometry().outputs().iter().product::<usize>();
        2 * (self.batch * outputs * self.weight_shape().iter().product::<usize>()) as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        reference::conv_bwd_weight(self, inputs, rows)
    }
    fn keeps(&self) -> (u32, u32) {
        self.keeps_for(!0)
    }
    /// Each factor's gradient needs the other one.
    fn keeps_for(&self, needs: u32) -> (u32, u32) {
        (conv::factors(needs), 0)
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        grad::grad(saved, grads)
    }
}

/// The gradient of the weight of the convolution of `x` [batch, channels_in, d, h, w] with these options and `kernel` taps
/// along depth, height and width, given that of its result, `grad` [batch, channels_out, …]: [channels_out,
/// channels_in / groups, kd, kh, kw]. All f32; pictures lack d, sounds d and h, everywhere. The options' activation and
/// dtype are not looked at.
///
/// # Errors
/// Shapes, dtypes or options do not fit each other.
pub fn conv_bwd_weight(x: &Tensor, grad: &Tensor, kernel: [usize; 3], o: &Options) -> Result<Tensor> {
    let (x_dims, rank) = five(ConvBwdWeight::NAME, "x", x.shape())?;
    let (grad_dims, _) = five(ConvBwdWeight::NAME, "a gradient", grad.shape())?;
    let op = ConvBwdWeight {
        batch: x_dims[0],
        channels_in: x_dims[1],
        channels_out: grad_dims[1],
        groups: o.groups,
        size: Axes::of(&x_dims[2..]),
        kernel: Axes::innermost(kernel, rank),
        stride: Axes::innermost(o.stride, rank),
        dilation: Axes::innermost(o.dilation, rank),
        before: Axes::innermost(o.before, rank),
        after: Axes::innermost(o.after, rank),
        padding: o.padding,
    }
    .checked()?;
    let weight = first(run(&op, x.device(), &[Some(&x.reshape(&x_dims)?), Some(&grad.reshape(&grad_dims)?)])?);
    let dims = op.weight_shape();
    weight.reshape(&[&dims[..2], &dims[5 - rank..]].concat())
}
