//! Pictures on their way to a model: decoding, Pillow-exact resizing, cropping, normalising.
//!
//! An [`Image`] is always RGB with 8 bits per channel. [`ImageProcessor`] is what a checkpoint's
//! `preprocessor_config.json` describes; it turns images into the `[batch, 3, height, width]` values that towers
//! take. Everything here runs without the feature `media`, except reading picture files ([`Image::open`],
//! [`Image::decode`]).

mod config;
mod processor;
mod resize;
mod settings;
mod transform;

#[cfg_attr(not(feature = "media"), path = "codec_absent.rs")]
mod codec;

pub use processor::{CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, ImageProcessor};
pub use resize::Resample;
pub use transform::{CropRounding, normalise};

use crate::error::{Error, Result};

/// The longest side, in pixels, of any image: no file and no configuration can ask for more than 0.8 GB at once.
pub const MAX_SIDE: usize = 16384;

/// A picture: RGB, 8 bits per channel, row-major `[height, width, 3]`. Sides are from 1 to [`MAX_SIDE`].
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Image {
    /// An image of `height * width` pixels of three bytes. Fails where a side is zero or above [`MAX_SIDE`], or where
    /// the number of bytes is another.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Image> {
        check_sides(width, height)?;
        if pixels.len() != width * height * 3 {
            let (have, want) = (pixels.len(), width * height * 3);
            return Err(Error::Media(format!("an RGB image of {width}x{height} has {want} bytes, got {have}")));
        }
        Ok(Image { width, height, pixels })
    }

    /// The number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes, `[height, width, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The bytes, `[height, width, 3]`, without a copy.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }
}

/// Millions of numbers help nobody: the size is what a message needs.
impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({}x{})", self.width, self.height)
    }
}

/// Sides that an image can have; their product then fits any `usize`, in bytes too.
fn check_sides(width: usize, height: usize) -> Result<()> {
    if (1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height) {
        return Ok(());
    }
    Err(Error::Media(format!("an image of {width}x{height} is not possible: sides go from 1 to {MAX_SIDE}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert!(Image::new(2, 1, vec![0; 6]).is_ok());
        assert!(Image::new(2, 1, vec![0; 5]).is_err());
        assert!(Image::new(0, 1, vec![]).is_err());
        assert!(Image::new(usize::MAX, usize::MAX, vec![0; 3]).is_err());
        assert!(Image::new(MAX_SIDE + 1, 1, vec![0; 3 * MAX_SIDE + 3]).is_err());
    }
}
