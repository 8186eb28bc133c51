//! Transposed convolutions: what decoders of sounds and pictures grow by, and the gradient of a convolution's input.

mod cases;
mod cpu;
mod cuda;
mod grad;
mod product;
mod reference;
mod wgpu;

pub use super::convolution::Axes;
use super::convolution::{check_groups, check_positive, five, products, reach};
use super::problem::problem;
use super::{Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, conv, first, run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `out[b, r, i · stride + k · dilation - before] += weight[c, r, k] · x[b, c, i]` over places i and taps k along depth,
    /// height and width and the channels c of r's group, plus `bias[r]`. Products are exact and sums f32.
    ///
    /// Operands: x [batch, channels_in, depth, height, width], weight [channels_in, channels_out / groups, kernel…],
    /// bias [channels_out] f32. Results: out [batch, channels_out, …] of extents
    /// `(size - 1) · stride + (kernel - 1) · dilation + 1 - before - after + output_padding`.
    pub struct ConvTranspose("conv_transpose") {
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
        /// Points of out from one input's to the next one's.
        stride: Axes<1> = Axes::PLAIN,
        /// Points of out from one tap's to the next one's.
        dilation: Axes<1> = Axes::PLAIN,
        /// Points of out cut off before each axis.
        before: Axes<0> = Axes::PLAIN,
        /// Points of out cut off behind each axis.
        after: Axes<0> = Axes::PLAIN,
        /// Points added behind each axis, after that: below the stride or the dilation.
        output_padding: Axes<0> = Axes::PLAIN,
        /// Whether there is a bias.
        bias: bool = false,
    }
}

impl ConvTranspose {
    fn checked(self) -> Result<ConvTranspose> {
        let name = Self::NAME;
        if let Some(d) = [self.x, self.weight, self.out].into_iter().find(|d| !d.is_float()) {
            return Err(Error::problem(name, format!("multiplies floats, got {d}")));
        }
        check_groups(name, self.groups, self.channels_in, self.channels_out)?;
        check_positive(name, &[("size", *self.size), ("kernel", *self.kernel), ("stride", *self.stride)])?;
        check_positive(name, &[("dilation", *self.dilation)])?;
        for axis in 0..3 {
            let added = self.output_padding[axis];
            if added > 0 && added >= self.stride[axis].max(self.dilation[axis]) {
                let why = format!("output padding is below the stride or the dilation, got {added}");
                return Err(Error::problem(name, why));
            }
            let reach = reach(name, self.kernel[axis], self.dilation[axis])?;
            let spread = (self.size[axis] - 1).checked_mul(self.stride[axis]);
            let full = spread.and_then(|n| n.checked_add(reach)).and_then(|n| n.checked_add(added));
            let full = full.ok_or_else(|| Error::problem(name, "too many points"))?;
            Shape::new(&[full])?;
            let cut = self.before[axis].checked_add(self.after[axis]);
            if cut.is_none_or(|cut| cut >= full) {
                let why = format!("of {full} points along an axis, all are cut off");
                return Err(Error::problem(name, why));
            }
        }
        for operand in [self.x_shape(), self.weight_shape(), self.out_shape()] {
            Shape::new(&operand)?;
        }
        let [d, h, w] = *self.size;
        products(name, &[&self.weight_shape()[..], &[self.batch, d, h, w]].concat())?;
        Ok(self)
    }

    /// Extents of a channel of the result.
    fn outputs(&self) -> [usize; 3] {
        std::array::from_fn(|i| {
            let full = (self.size[i] - 1) * self.stride[i] + (self.kernel[i] - 1) * self.dilation[i] + 1;
            full + self.output_padding[i] - self.before[i] - self.after[i]
        })
    }

    fn x_shape(&self) -> [usize; 5] {
        let [d, h, w] = *self.size;
        [self.batch, self.channels_in, d, h, w]
    }

    fn weight_shape(&self) -> [usize; 5] {
        let [d, h, w] = *self.kernel;
        [self.channels_in, self.channels_out / self.groups, d, h, w]
    }

    fn out_shape(&self) -> [usize; 5] {
        let [d, h, w] = self.outputs();
        [self.batch, self.channels_out, d, h, w]
    }
}

impl Op for ConvTranspose {
    const NAME: &'static str = "conv_transpose";

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
    /// A multiply-add for each tap of each input, those that are cut off too.
    fn flops(&self) -> u64 {
        let places = self.size.iter().product::<usize>();
        2 * (self.batch * places * self.weight_shape().iter().product::<usize>()) as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        reference::conv_transpose(self, inputs, rows)
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

/// How to convolve. Numbers are for depth, height and width; of a picture the last two count, of a sound the last.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Points of the result from one input's to the next one's.
    pub stride: [usize; 3],
    /// Points of the result from one tap's to the next one's.
    pub dilation: [usize; 3],
    /// Points of the result cut off before each axis.
    pub before: [usize; 3],
    /// Points of the result cut off behind each axis.
    pub after: [usize; 3],
    /// Points added behind each axis, after that: below the stride or the dilation.
    pub output_padding: [usize; 3],
    /// Into which channels of both sides are cut.
    pub groups: usize,
    /// The dtype of the result.
    pub out: DType,
}

impl Default for Options {
    /// A stride and a dilation of 1, nothing cut off or added, one group, f32.
    fn default() -> Self {
        Options {
            stride: [1; 3],
            dilation: [1; 3],
            before: [0; 3],
            after: [0; 3],
            output_padding: [0; 3],
            groups: 1,
            out: DType::F32,
        }
    }
}

/// `x` [batch, channels_in, d, h, w] with `weight` [channels_in, channels_out / groups, kd, kh, kw] and a bias [channels_out]
/// in f32: [batch, channels_out, …], by default in f32. Pictures lack d, sounds d and h, on both sides. As PyTorch's
/// `conv_transpose`, whose `padding` is cut off on both sides.
///
/// # Errors
/// Shapes, dtypes or options do not fit each other.
pub fn conv_transpose(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, o: &Options) -> Result<Tensor> {
    let name = ConvTranspose::NAME;
    let (x_dims, rank) = five(name, "x", x.shape())?;
    let (weight_dims, weight_rank) = five(name, "a weight", weight.shape())?;
    if rank != weight_rank {
        return Err(Error::problem(name, format!("{x} and a weight {weight} have different numbers of axes")));
    }
    let channels_out = weight_dims[1].checked_mul(o.groups);
    let op = ConvTranspose {
        x: x.dtype(),
        weight: weight.dtype(),
        out: o.out,
        batch: x_dims[0],
        channels_in: x_dims[1],
        channels_out: channels_out.ok_or_else(|| Error::problem(name, "too many groups"))?,
        groups: o.groups,
        size: Axes::of(&x_dims[2..]),
        kernel: Axes::of(&weight_dims[2..]),
        stride: Axes::innermost(o.stride, rank),
        dilation: Axes::innermost(o.dilation, rank),
        before: Axes::innermost(o.before, rank),
        after: Axes::innermost(o.after, rank),
        output_padding: Axes::innermost(o.output_padding, rank),
        bias: bias.is_some(),
    }
    .checked()?;
    let operands = [Some(&x.reshape(&x_dims)?), Some(&weight.reshape(&weight_dims)?), bias];
    let out = first(run(&op, x.device(), &operands)?);
    let dims = op.out_shape();
    out.reshape(&[&dims[..2], &dims[5 - rank..]].concat())
}
