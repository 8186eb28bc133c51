//! The gradient of patchify: patches go back to where they came from, and what was dropped at the borders gets zeros.

use super::{Patchify, PixelLayout};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::concat::concat;
use crate::ops::elementwise::{affine, div, mul, neg};
use crate::ops::{Saved, reduce, unpatchify};
use crate::tensor::Tensor;

const PIXELS: usize = 0;
const MEAN: usize = 1;
const STD: usize = 2;

/// The constants are divided by; the deviation's own gradient needs the result too.
pub fn keeps(needs: u32) -> (u32, u32) {
    (1 << STD, needs >> STD & 1)
}

pub fn grad(saved: &Saved<Patchify>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let (op, Some(out)) = (&saved.op, &grads[0]) else { return Ok(vec![None; 3]) };
    let [t, h, w] = op.grid();
    let sizes = [t * op.tubelet, h * op.patch_h, w * op.patch_w];
    // Planar [b, c, t, h, w], without what was dropped.
    let planes = |patches: &Tensor| {
        unpatchify::unpatchify_as(patches, op.channels, sizes, (op.patch_h, op.patch_w), op.tubelet, op.order)
    };
    let mut found = vec![None; 3];
    let mut g = planes(out)?;
    if let Some(std) = &saved.inputs[STD] {
        // Of (pixel · scale - mean) / std.
        g = div(&g, &std.reshape(&[op.channels, 1, 1, 1])?)?;
        let over_channels = |t: &Tensor| {
            let rows = reduce::sum(&t.reshape(&[op.batch, op.channels, sizes.iter().product()])?, 2)?;
            neg(&reduce::sum(&rows, 0)?.reshape(&[op.channels])?)
        };
        if saved.needs(MEAN) {
            found[MEAN] = Some(over_channels(&g)?);
        }
        if saved.needs(STD) {
            let normalised = planes(&saved.output(0).to_dtype(DType::F32)?)?;
            found[STD] = Some(over_channels(&mul(&g, &normalised)?)?);
        }
        g = affine(&g, op.scale.0, 0.0)?;
    }
    if saved.needs(PIXELS) {
        for (dim, whole) in [op.frames, op.height, op.width].into_iter().enumerate() {
            let mut dims = g.shape().to_vec();
            dims[dim + 2] = whole - dims[dim + 2];
            if dims[dim + 2] > 0 {
                g = concat(&[&g, &Tensor::zeros(g.device(), DType::F32, &dims)?], dim + 2)?;
            }
        }
        found[PIXELS] = Some(match op.layout {
            PixelLayout::Planar => g,
            PixelLayout::Interleaved => g.permute(&[0, 2, 3, 4, 1])?,
        });
    }
    Ok(found)
}
