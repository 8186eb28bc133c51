//! Convolutions of sounds, pictures and clips.

mod cases;
mod cpu;
mod cuda;
mod grad;
mod product;
mod reference;
mod wgpu;

pub use super::activation::Activation;
pub use super::convolution::{Axes, Padding};
use super::convolution::{Geometry, check_groups, five, products};
use super::problem::problem;
use super::{Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, first, run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;
pub(super) use grad::{channel_sums, factors, input_gradient};

problem! {
    /// `out[b, r, o] = activation(Σ_c Σ_k weight[r, c, k] · x[b, c, o · stride + k · dilation - before] + bias[r])` for places
    /// o and taps k along depth, height and width, with the channels c of r's group. (As everywhere in the field, a
    /// correlation: the kernel is not turned round.) Products are exact and sums f32.
    ///
    /// Operands: x [batch, channels_in, depth, height, width], weight [channels_out, channels_in / groups, kernel…],
    /// bias [channels_out] f32. Results: out [batch, channels_out, …] of extents
    /// `⌊(size + before + after - (kernel - 1) · dilation - 1) / stride⌋ + 1`.
    pub struct Conv("conv") {
        /// f32, bf16 or f16.
        x: DType = DType::F32,
        /// f32, bf16 or f16.
        weight: DType = DType::F32,
        /// f32, bf16 or f16.
        out: DType = DType::F32,
        /// Sounds, pictures or clips.
        batch: usize = 1,
        /// Channels of x.
        channels_in: usize = 1,
        /// Channels of out.
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
        /// Whether there is a bias.
        bias: bool = false,
        /// Applied after the bias.
        activation: Activation = Activation::None,
    }
}

impl Conv {
    fn checked(self) -> Result<Conv> {
        let name = Self::NAME;
        if let Some(d) = [self.x, self.weight, self.out].into_iter().find(|d| !d.is_float()) {
            return Err(Error::problem(name, format!("multiplies floats, got {d}")));
        }
        check_groups(name, self.groups, self.channels_in, self.channels_out)?;
        let g = self.geometry();
        g.check(name)?;
        for operand in [self.x_shape(), self.weight_shape(), self.out_shape()] {
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

    /// As the function takes them, without an activation.
    fn options(&self) -> Options {
        Options {
            stride: *self.stride,
            dilation: *self.dilation,
            before: *self.before,
            after: *self.after,
            padding: self.padding,
            groups: self.groups,
            ..Options::default()
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

    fn out_shape(&self) -> [usize; 5] {
        let [d, h, w] = self.geometry().outputs();
        [self.batch, self.channels_out, d, h, w]
    }
}

impl Op for Conv {
    const NAME: &'static str = "conv";

    fn inputs(&self) -> Inputs {
        [
            Operand::new("x", self.x, &self.x_shape()),
            Operand::new("weight", self.weight, &self.weight_shape()),
            Operand::new("bias", DType::F32, &[self.channels_out]).only_if(self.bias),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", self.out, &self.out_shape())].into()
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
        reference::conv(self, inputs, rows)
    }
    fn keeps(&self) -> (u32, u32) {
        self.keeps_for(!0)
    }
    fn keeps_for(&self, needs: u32) -> (u32, u32) {
        grad::keeps(self, needs)
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        grad::grad(saved, grads)
    }
    /// The convolution, and its activation.
    fn compose(&self, inputs: &[Option<Tensor>]) -> Option<Result<Vec<Tensor>>> {
        Some(grad::compose(self, inputs).map(|out| vec![out]))
    }
}

/// How to convolve. Numbers are for depth, height and width; of a picture the last two count, of a sound the last.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Points from one output's to the next one's.
    pub stride: [usize; 3],
    /// Points from one tap's to the next one's.
    pub dilation: [usize; 3],
    /// Points added before each axis; a causal kernel has all of its padding there.
    pub before: [usize; 3],
    /// Points added behind each axis.
    pub after: [usize; 3],
    /// What the added points are.
    pub padding: Padding,
    /// Into which channels of both sides are cut.
    pub groups: usize,
    /// Applied after the bias.
    pub activation: Activation,
    /// The dtype of the result.
    pub out: DType,
}

impl Default for Options {
    /// A stride and a dilation of 1, no padding, one group, no activation, f32.
    fn default() -> Self {
        Options {
            stride: [1; 3],
            dilation: [1; 3],
            before: [0; 3],
            after: [0; 3],
            padding: Padding::Zeros,
            groups: 1,
            activation: Activation::None,
            out: DType::F32,
        }
    }
}

impl Options {
    /// With zeros around each axis so that, at a stride of 1, the result has the extents of x: half of
    /// `(kernel - 1) · dilation` points before it, rounded down.
    pub fn same(mut self, kernel: [usize; 3]) -> Options {
        for (i, kernel) in kernel.into_iter().enumerate() {
            let points = kernel.saturating_sub(1).saturating_mul(self.dilation[i]);
            (self.before[i], self.after[i]) = (points / 2, points - points / 2);
        }
        self
    }

    /// With the padding of one axis (0 to 2: depth, height, width) all before it, so that no output sees a point after its
    /// own: `(kernel - 1) · dilation + 1 - stride` points.
    pub fn causal(mut self, axis: usize, kernel: usize) -> Options {
        let reach = kernel.saturating_sub(1).saturating_mul(self.dilation[axis]).saturating_add(1);
        (self.before[axis], self.after[axis]) = (reach.saturating_sub(self.stride[axis]), 0);
        self
    }
}

/// `x` [batch, channels_in, d, h, w] with `weight` [channels_out, channels_in / groups, kd, kh, kw] and a bias
/// [channels_out] in f32: [batch, channels_out, …], by default in f32. Pictures lack d, sounds d and h, on both sides.
///
/// # Errors
/// Shapes, dtypes or options do not fit each other.
pub fn conv(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, o: &Options) -> Result<Tensor> {
    let (x_dims, rank) = five(Conv::NAME, "x", x.shape())?;
    let (weight_dims, weight_rank) = five(Conv::NAME, "a weight", weight.shape())?;
    if rank != weight_rank {
        return Err(Error::problem(Conv::NAME, format!("{x} and a weight {weight} have different numbers of axes")));
    }
    let op = Conv {
        x: x.dtype(),
        weight: weight.dtype(),
        out: o.out,
        batch: x_dims[0],
        channels_in: x_dims[1],
        channels_out: weight_dims[0],
        groups: o.groups,
        size: Axes::of(&x_dims[2..]),
        kernel: Axes::of(&weight_dims[2..]),
        stride: Axes::innermost(o.stride, rank),
        dilation: Axes::innermost(o.dilation, rank),
        before: Axes::innermost(o.before, rank),
        after: Axes::innermost(o.after, rank),
        padding: o.padding,
        bias: bias.is_some(),
        activation: o.activation,
    }
    .checked()?;
    let operands = [Some(&x.reshape(&x_dims)?), Some(&weight.reshape(&weight_dims)?), bias];
    let out = first(run(&op, x.device(), &operands)?);
    let dims = op.out_shape();
    out.reshape(&[&dims[..2], &dims[5 - rank..]].concat())
}
