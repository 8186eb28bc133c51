//! Rows of patches back to pictures and clips.

mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::patchify::PatchOrder;
use super::problem::problem;
use super::walk::Walk;
use super::{Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, Tolerance, first, patchify, run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// The inverse of [`patchify`](super::patchify): `patches` `[batch, t·gh·gw, k]` to planar f32
    /// `[batch, channels, frames, height, width]`, where patches tile the clip without remainder.
    pub struct Unpatchify("unpatchify") {
        /// Of the patches.
        dtype: DType = DType::F32,
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
    }
}

impl Unpatchify {
    fn checked(self) -> Result<Unpatchify> {
        let fail = |why: String| Err(Error::problem("unpatchify", why));
        if !self.dtype.is_float() {
            return fail(format!("takes floats, got {}", self.dtype));
        }
        let tiles = [(self.frames, self.tubelet), (self.height, self.patch_h), (self.width, self.patch_w)];
        if let Some((n, p)) = tiles.into_iter().find(|&(n, p)| p == 0 || !n.is_multiple_of(p)) {
            return fail(format!("patches of {p} do not tile {n}"));
        }
        Shape::new(&[self.batch, self.channels, self.frames, self.height, self.width])?;
        Shape::new(&[self.channels, self.tubelet, self.patch_h, self.patch_w])?;
        Ok(self)
    }

    /// Patches of a clip along time, height and width.
    pub fn grid(&self) -> [usize; 3] {
        [self.frames / self.tubelet, self.height / self.patch_h, self.width / self.patch_w]
    }

    /// The values of planes in order, as a view of patches, whose strides these are.
    fn walk(&self, [batch, patch, value, ..]: [usize; 6]) -> Walk {
        let [grid_t, grid_h, grid_w] = self.grid();
        // From value to value of a patch along channels, frames, rows and columns.
        let (c, x) = match self.order {
            PatchOrder::ChannelFirst => (self.tubelet * self.patch_h * self.patch_w * value, value),
            PatchOrder::ChannelLast => (value, self.channels * value),
        };
        let (f, y) = (self.patch_h * self.patch_w * x, self.patch_w * x);
        let dims = [
            [self.batch, batch],
            [self.channels, c],
            [grid_t, grid_h * grid_w * patch],
            [self.tubelet, f],
            [grid_h, grid_w * patch],
            [self.patch_h, y],
            [grid_w, patch],
            [self.patch_w, x],
        ];
        Walk::of(dims.map(|[n, stride]| [n, stride, 0, 0]))
    }

    /// Values of a patch.
    pub fn patch_len(&self) -> usize {
        self.channels * self.tubelet * self.patch_h * self.patch_w
    }
}

impl Op for Unpatchify {
    const NAME: &'static str = "unpatchify";

    fn inputs(&self) -> Inputs {
        let patches = self.grid().iter().product();
        [Operand::new("patches", self.dtype, &[self.batch, patches, self.patch_len()])].into()
    }
    fn outputs(&self) -> Outputs {
        let dims = [self.batch, self.channels, self.frames, self.height, self.width];
        [Operand::new("pixels", DType::F32, &dims)].into()
    }
    fn flops(&self) -> u64 {
        0
    }
    fn tolerance(&self) -> Tolerance {
        Tolerance::Exact
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], _: Sample) -> Vec<Vec<T>> {
        reference::unpatchify(self, inputs)
    }
    fn keeps(&self) -> (u32, u32) {
        (0, 0)
    }
    /// The pixels' gradient as patches.
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Unpatchify { patch_h, patch_w, tubelet, order, .. } = saved.op;
        let patches = |g: &Tensor| patchify::with(g, (patch_h, patch_w), tubelet, order, DType::F32);
        Ok(vec![grads[0].as_ref().map(patches).transpose()?])
    }
}

/// Patches `[b, n, k]` (n = t·gh·gw) as planar f32 `[b, c, frames, height, width]`; `sizes` is frames, height and width.
/// Channels follow from k.
///
/// # Errors
/// The patches do not tile such a clip, or are no floats.
pub fn unpatchify(
    patches: &Tensor,
    [frames, height, width]: [usize; 3],
    (patch_h, patch_w): (usize, usize),
    tubelet: usize,
    order: PatchOrder,
) -> Result<Tensor> {
    let [_, _, k] = *patches.shape() else {
        return Err(Error::problem("unpatchify", format!("takes [b, n, k], got {patches}")));
    };
    let pixels = tubelet.checked_mul(patch_h).and_then(|n| n.checked_mul(patch_w));
    let Some(channels) = pixels.filter(|&p| p > 0 && k.is_multiple_of(p)).map(|p| k / p) else {
        let why = format!("{k} values are no patch of {tubelet}x{patch_h}x{patch_w} pixels");
        return Err(Error::problem("unpatchify", why));
    };
    unpatchify_as(patches, channels, [frames, height, width], (patch_h, patch_w), tubelet, order)
}

/// As [`unpatchify`], where the channels are known: those of no values do not follow from k.
pub(super) fn unpatchify_as(
    patches: &Tensor,
    channels: usize,
    [frames, height, width]: [usize; 3],
    (patch_h, patch_w): (usize, usize),
    tubelet: usize,
    order: PatchOrder,
) -> Result<Tensor> {
    let (dtype, batch) = (patches.dtype(), patches.shape().first().copied().unwrap_or(0));
    let op =
        Unpatchify { dtype, order, batch, channels, frames, height, width, patch_h, patch_w, tubelet }.checked()?;
    Ok(first(run(&op, patches.device(), &[Some(patches)])?))
}
