//! The steps from a picture to a tower's input.

use super::{CropRounding, Image, Resample, normalise};
use crate::error::Result;

/// CLIP's channel means, of values from 0 to 1; most vision-language models kept them.
pub const CLIP_MEAN: [f32; 3] = [0.48145466, 0.4578275, 0.40821073];
/// CLIP's channel deviations.
#[allow(clippy::excessive_precision)] // the digits that every configuration has
pub const CLIP_STD: [f32; 3] = [0.26862954, 0.26130258, 0.27577711];
/// ImageNet's channel means, of values from 0 to 1.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// ImageNet's channel deviations.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// What a picture's sides become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Size {
    /// These sides, the aspect ratio not kept.
    Exact { width: usize, height: usize },
    /// The shorter side becomes this, the longer one follows, but stays within `longest`.
    Shortest { side: usize, longest: Option<usize> },
}

/// Resize, centre crop, scale, normalise: each step optional, in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageProcessor {
    pub(super) size: Option<Size>,
    /// What a bare integer as `size` means: the shorter side, else both.
    pub(super) integer_is_shortest: bool,
    pub(super) resample: Resample,
    /// Width and height.
    pub(super) crop: Option<(usize, usize)>,
    pub(super) rounding: CropRounding,
    pub(super) scale: f64,
    pub(super) mean: [f32; 3],
    pub(super) std: [f32; 3],
}

impl ImageProcessor {
    /// Resizes to `side` x `side`, the aspect ratio not kept, then `(pixel / 255 - mean) / std`.
    pub fn square(side: usize, resample: Resample, mean: [f32; 3], std: [f32; 3]) -> ImageProcessor {
        ImageProcessor {
            size: Some(Size::Exact { width: side, height: side }),
            integer_is_shortest: false,
            resample,
            crop: None,
            rounding: CropRounding::Floor,
            scale: 1.0 / 255.0,
            mean,
            std,
        }
    }

    /// Resizes the shorter side to `shortest`, takes the middle `crop` x `crop`, then `(pixel / 255 - mean) / std`.
    pub fn cropped(
        shortest: usize,
        crop: usize,
        resample: Resample,
        rounding: CropRounding,
        mean: [f32; 3],
        std: [f32; 3],
    ) -> ImageProcessor {
        ImageProcessor {
            size: Some(Size::Shortest { side: shortest, longest: None }),
            integer_is_shortest: true,
            crop: Some((crop, crop)),
            rounding,
            ..ImageProcessor::square(shortest, resample, mean, std)
        }
    }

    /// What transformers' ViT processor does if told nothing: 224 x 224, bilinear, means and deviations 0.5.
    pub fn vit() -> ImageProcessor {
        ImageProcessor::square(224, Resample::Bilinear, [0.5; 3], [0.5; 3])
    }

    /// What transformers' CLIP processor does if told nothing: shorter side 224, bicubic, middle 224 x 224.
    pub fn clip() -> ImageProcessor {
        ImageProcessor::cropped(224, 224, Resample::Bicubic, CropRounding::Floor, CLIP_MEAN, CLIP_STD)
    }

    /// What transformers' BLIP processor does if told nothing: 384 x 384, bicubic, CLIP's means and deviations.
    pub fn blip() -> ImageProcessor {
        ImageProcessor::square(384, Resample::Bicubic, CLIP_MEAN, CLIP_STD)
    }

    /// The picture after resizing and cropping, still 8 bits. Fails where a side would be zero or too long.
    pub fn prepare(&self, image: &Image) -> Result<Image> {
        let resized = match self.size {
            Some(size) => {
                let (width, height) = size.of(image);
                &image.resize(width, height, self.resample)?
            }
            None => image,
        };
        match self.crop {
            Some((width, height)) => resized.centre_crop(width, height, self.rounding),
            None => Ok(resized.clone()),
        }
    }

    /// The factor that takes a pixel's 0..=255 to what mean and deviation refer to; 1/255 nearly always.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Mean and deviation per channel: a value is `(pixel * scale - mean) / std`.
    pub fn mean_std(&self) -> ([f32; 3], [f32; 3]) {
        (self.mean, self.std)
    }

    /// A batch as a tower takes it: values and shape `[images, 3, height, width]`. Fails as [`prepare`](Self::prepare)
    /// does, without images, and where the images come out in different sizes.
    pub fn pixel_values(&self, images: &[Image]) -> Result<(Vec<f32>, [usize; 4])> {
        let prepared = images.iter().map(|image| self.prepare(image)).collect::<Result<Vec<_>>>()?;
        normalise(&prepared, self.scale, self.mean, self.std)
    }
}

impl Size {
    /// Width and height that an image gets; not checked.
    fn of(self, image: &Image) -> (usize, usize) {
        let (short, long) = (image.width.min(image.height), image.width.max(image.height));
        let (side, longer) = match self {
            Size::Exact { width, height } => return (width, height),
            Size::Shortest { side, longest } => match longest {
                Some(longest) if side * long > longest * short => {
                    let shorter = longest as f64 * short as f64 / long as f64;
                    (shorter.round_ties_even() as usize, (shorter * long as f64 / short as f64) as usize)
                }
                _ => (side, side.saturating_mul(long) / short),
            },
        };
        if image.width <= image.height { (side, longer) } else { (longer, side) }
    }
}
