//! Pictures and clips to rows of patches. A patch embedding is this and a matrix product with the convolution's weight.

mod cases;
mod cpu;
mod cuda;
mod grad;
mod reference;
mod wgpu;

use super::problem::{choice, problem};
use super::walk::Walk;
use super::{Case, Fill, Inputs, Op, Operand, Outputs, Real, Sample, Saved, Tolerance, first, run};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

choice! {
    /// How pixels lie.
    pub enum PixelLayout {
        /// `[batch, channels, frames, height, width]`: a plane per channel, as models have it.
        Planar = "nchw",
        /// `[batch, frames, height, width, channels]`: as decoded pictures lie.
        Interleaved = "nhwc",
    }
}

choice! {
    /// The order of the values inside a patch.
    pub enum PatchOrder {
        /// Channel, frame, row, column: the flattened weight `[out, c, t, ph, pw]` of a convolution.
        ChannelFirst = "cthw",
        /// Frame, row, column, channel: what MAE and diffusion transformers take apart.
        ChannelLast = "thwc",
    }
}

problem! {
    /// Row `(b, t, gy, gx)` of the result holds the patch of `tubelet · patch_h · patch_w` pixels at that place of the grid.
    /// Frames, rows and columns beyond the last whole patch are dropped. With `normalised`, each pixel becomes
    /// `(pixel · scale - mean[c]) / std[c]`.
    pub struct Patchify("patchify") {
        /// Of the pixels: f32 or u8.
        dtype: DType = DType::F32,
        /// Of the result.
        out: DType = DType::F32,
        /// How pixels lie.
        layout: PixelLayout = PixelLayout::Planar,
        /// The order of the values inside a patch.
        order: PatchOrder = PatchOrder::ChannelFirst,
        /// Pictures or clips.
        batch: usize = 1,
        /// Channels.
        channels: usize = 3,
        /// Frames of a clip; 1 for pictures.
        frames: usize = 1,
        /// Rows of pixels.
        height: usize = 1,
        /// Columns of pixels.
        width: usize = 1,
        /// Rows of pixels in a patch.
        patch_h: usize = 1,
        /// Columns of pixels in a patch.
        patch_w: usize = 1,
        /// Frames in a patch.
        tubelet: usize = 1,
        /// Whether mean and std are operands.
        normalised: bool = false,
        /// Factor of a pixel before that.
        scale: Scalar = Scalar(1.0 / 255.0),
    }
}

impl Patchify {
    fn checked(self) -> Result<Patchify> {
        let fail = |why: String| Err(Error::problem("patchify", why));
        if !matches!(self.dtype, DType::F32 | DType::U8) || !self.out.is_float() {
            return fail(format!("takes f32 or u8 and gives floats, got {} and {}", self.dtype, self.out));
        }
        if self.patch_h == 0 || self.patch_w == 0 || self.tubelet == 0 {
            return fail("a patch has at least one pixel".into());
        }
        Shape::new(&[self.batch, self.channels, self.frames, self.height, self.width])?;
        Shape::new(&[self.channels, self.tubelet, self.patch_h, self.patch_w])?;
        Ok(self)
    }

    /// Patches of a clip along time, height and width.
    pub fn grid(&self) -> [usize; 3] {
        [self.frames / self.tubelet, self.height / self.patch_h, self.width / self.patch_w]
    }

    /// The values of patches in order, as a view of pixels (operand 0, whose strides these are) and of channels (operand 1).
    fn walk(&self, strides: [usize; 6]) -> Walk {
        let [b, c, t, y, x] = match self.layout {
            PixelLayout::Planar => std::array::from_fn(|d| strides[d]),
            PixelLayout::Interleaved => [0, 4, 1, 2, 3].map(|d| strides[d]),
        };
        // Extent, and strides of the pixels and of the channels.
        let [grid_t, grid_h, grid_w] = self.grid();
        let grid = [
            [self.batch, b, 0, 0],
            [grid_t, self.tubelet * t, 0, 0],
            [grid_h, self.patch_h * y, 0, 0],
            [grid_w, self.patch_w * x, 0, 0],
        ];
        let channel = [self.channels, c, usize::from(self.normalised), 0];
        let [frame, row, column] = [[self.tubelet, t, 0, 0], [self.patch_h, y, 0, 0], [self.patch_w, x, 0, 0]];
        let patch = match self.order {
            PatchOrder::ChannelFirst => [channel, frame, row, column],
            PatchOrder::ChannelLast => [frame, row, column, channel],
        };
        Walk::of(grid.into_iter().chain(patch))
    }

    /// Values of a patch.
    pub fn patch_len(&self) -> usize {
        self.channels * self.tubelet * self.patch_h * self.patch_w
    }
}

impl Op for Patchify {
    const NAME: &'static str = "patchify";

    fn inputs(&self) -> Inputs {
        let pixels = match self.layout {
            PixelLayout::Planar => [self.batch, self.channels, self.frames, self.height, self.width],
            PixelLayout::Interleaved => [self.batch, self.frames, self.height, self.width, self.channels],
        };
        let constant = Fill::Affine { scale: 0.02, offset: 0.5 };
        [
            Operand::new("pixels", self.dtype, &pixels),
            Operand::new("mean", DType::F32, &[self.channels]).only_if(self.normalised).fill(constant),
            Operand::new("std", DType::F32, &[self.channels]).only_if(self.normalised).fill(constant),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        let patches = self.grid().iter().product();
        [Operand::new("patches", self.out, &[self.batch, patches, self.patch_len()])].into()
    }
    /// Scale, subtract and divide.
    fn flops(&self) -> u64 {
        let values = self.batch * self.grid().iter().product::<usize>() * self.patch_len();
        3 * self.normalised as u64 * values as u64
    }
    fn tolerance(&self) -> Tolerance {
        if self.normalised { Tolerance::Plain(3.0) } else { Tolerance::Exact }
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::patchify(self, inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        self.keeps_for(!0)
    }
    fn keeps_for(&self, needs: u32) -> (u32, u32) {
        grad::keeps(needs)
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        grad::grad(saved, grads)
    }
}

/// Patches of planar pixels f32 `[b, c, h, w]` (a tubelet of 1) or `[b, c, t, h, w]`, as `[b, n, k]`: n patches in the order of
/// time, rows and columns, of k values in the order of a convolution's weight.
///
/// # Errors
/// Another dtype or rank, or an empty patch.
pub fn patchify(pixel_values: &Tensor, patch_size: (usize, usize), tubelet: usize) -> Result<Tensor> {
    with(pixel_values, patch_size, tubelet, PatchOrder::ChannelFirst, DType::F32)
}

/// As [`patchify`], with the order inside a patch and the result's dtype.
///
/// # Errors
/// As [`patchify`].
pub fn with(
    pixel_values: &Tensor,
    (patch_h, patch_w): (usize, usize),
    tubelet: usize,
    order: PatchOrder,
    out: DType,
) -> Result<Tensor> {
    let [batch, channels, frames, height, width] = match *pixel_values.shape() {
        [b, c, h, w] => [b, c, 1, h, w],
        [b, c, t, h, w] => [b, c, t, h, w],
        _ => {
            return Err(Error::problem(
                "patchify",
                format!("takes [b, c, h, w] or [b, c, t, h, w], got {pixel_values}"),
            ));
        }
    };
    let sizes = Patchify { batch, channels, frames, height, width, patch_h, patch_w, tubelet, ..Patchify::default() };
    let op = Patchify { dtype: pixel_values.dtype(), out, order, ..sizes }.checked()?;
    let pixels = whole(pixel_values, &[batch, channels, frames, height, width])?;
    Ok(first(run(&op, pixels.device(), &[Some(&pixels)])?))
}

/// Patches of interleaved bytes u8 `[b, h, w, c]` (a tubelet of 1) or `[b, t, h, w, c]`, as decoders give them, each pixel as
/// `(pixel · scale - mean[c]) / std[c]`; `mean` and `std` are f32 `[c]`, `scale` is 1/255 as a rule.
///
/// # Errors
/// Another dtype or rank, or an empty patch.
pub fn patchify_u8(
    pixels: &Tensor,
    (patch_h, patch_w): (usize, usize),
    tubelet: usize,
    (mean, std): (&Tensor, &Tensor),
    scale: f32,
    out: DType,
) -> Result<Tensor> {
    let [batch, frames, height, width, channels] = match *pixels.shape() {
        [b, h, w, c] => [b, 1, h, w, c],
        [b, t, h, w, c] => [b, t, h, w, c],
        _ => return Err(Error::problem("patchify", format!("takes [b, h, w, c] or [b, t, h, w, c], got {pixels}"))),
    };
    let sizes = Patchify { batch, channels, frames, height, width, patch_h, patch_w, tubelet, ..Patchify::default() };
    let (layout, scale) = (PixelLayout::Interleaved, scale.into());
    let op = Patchify { dtype: pixels.dtype(), out, layout, normalised: true, scale, ..sizes }.checked()?;
    let pixels = whole(pixels, &[batch, frames, height, width, channels])?;
    Ok(first(run(&op, pixels.device(), &[Some(&pixels), Some(mean), Some(std)])?))
}

/// The five dimensions of the problem; strided pixels that do not allow them are copied.
fn whole(pixels: &Tensor, dims: &[usize]) -> Result<Tensor> {
    pixels.reshape(dims).or_else(|_| pixels.contiguous()?.reshape(dims))
}
