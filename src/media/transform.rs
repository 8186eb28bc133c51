//! Cropping, padding, and pixels to normalised values.

use super::{Image, check_sides};
use crate::error::{Error, Result};
use std::ops::Range;

/// Where a centred crop begins if the margins cannot be equal. One pixel of difference, but a visible one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CropRounding {
    /// `floor((side - crop) / 2)`, as transformers does.
    Floor,
    /// `(side - crop) / 2` rounded half to even, as torchvision does (OpenAI's and open_clip's code).
    HalfEven,
}

impl CropRounding {
    /// The first source index of the crop; negative where the picture is smaller and is padded.
    fn offset(self, side: usize, crop: usize) -> isize {
        match self {
            // A shift rounds down, below zero too.
            CropRounding::Floor => (side as isize - crop as isize) >> 1,
            CropRounding::HalfEven if side < crop => -(((crop - side) / 2) as isize),
            CropRounding::HalfEven => {
                let (half, odd) = ((side - crop) / 2, (side - crop) % 2);
                (half + (half & odd)) as isize
            }
        }
    }
}

impl Image {
    /// A part of the image. Fails where a range is empty or leaves the image.
    pub fn crop(&self, columns: Range<usize>, rows: Range<usize>) -> Result<Image> {
        let inside = |range: &Range<usize>, side| range.start < range.end && range.end <= side;
        if !inside(&columns, self.width) || !inside(&rows, self.height) {
            return Err(Error::Media(format!("crop: columns {columns:?} and rows {rows:?} are not within {self:?}")));
        }
        Ok(self.window(columns.start as isize, rows.start as isize, columns.len(), rows.len(), [0; 3]))
    }

    /// The middle of the image, `width` x `height`, with black around it where the image is smaller. Fails where a side
    /// is zero or too long.
    pub fn centre_crop(&self, width: usize, height: usize, rounding: CropRounding) -> Result<Image> {
        check_sides(width, height)?;
        let (left, top) = (rounding.offset(self.width, width), rounding.offset(self.height, height));
        Ok(self.window(left, top, width, height, [0; 3]))
    }

    /// The image in the middle of a square of its longer side, the rest filled with a colour. Of an odd margin, the
    /// larger half lies right or below.
    pub fn pad_to_square(&self, colour: [u8; 3]) -> Image {
        let side = self.width.max(self.height);
        let margin = |own: usize| -(((side - own) / 2) as isize);
        self.window(margin(self.width), margin(self.height), side, side, colour)
    }

    /// The image seen through a window whose first pixel is (`left`, `top`), which may lie outside.
    fn window(&self, left: isize, top: isize, width: usize, height: usize, fill: [u8; 3]) -> Image {
        let mut pixels = fill.repeat(width * height);
        let overlap = |offset: isize, side: usize, window: usize| {
            let start = (-offset).clamp(0, window as isize);
            let end = (side as isize - offset).clamp(start, window as isize);
            start..end
        };
        let columns = overlap(left, self.width, width);
        for y in overlap(top, self.height, height) {
            let from = ((y + top) as usize * self.width + (columns.start + left) as usize) * 3;
            let to = (y as usize * width + columns.start as usize) * 3;
            pixels[to..to + columns.len() * 3].copy_from_slice(&self.pixels[from..from + columns.len() * 3]);
        }
        Image { width, height, pixels }
    }
}

/// Images as `(pixel * scale - mean) / std`, planar: values and shape `[images, 3, height, width]`.
///
/// The product is taken in f64 and rounded to f32, the rest is f32: this is transformers' order, and gives its bits.
/// Fails without images and where their sizes differ.
pub fn normalise(images: &[Image], scale: f64, mean: [f32; 3], std: [f32; 3]) -> Result<(Vec<f32>, [usize; 4])> {
    let first = images.first().ok_or_else(|| Error::Media("a batch needs at least one picture".into()))?;
    if let Some(other) = images.iter().find(|i| (i.width, i.height) != (first.width, first.height)) {
        let why = "bring them to one size first (resize or crop), or run them one by one";
        return Err(Error::Media(format!("a batch has pictures of one size only, got {first:?} and {other:?}: {why}")));
    }
    // 256 levels per channel: a table costs less than the arithmetic.
    let table = [0, 1, 2]
        .map(|c| -> [f32; 256] { std::array::from_fn(|level| ((level as f64 * scale) as f32 - mean[c]) / std[c]) });
    let mut values = Vec::with_capacity(images.len() * first.pixels.len());
    for image in images {
        for (channel, table) in table.iter().enumerate() {
            values.extend(image.pixels.chunks_exact(3).map(|pixel| table[usize::from(pixel[channel])]));
        }
    }
    Ok((values, [images.len(), 3, first.height, first.width]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pixel holds its column and its row.
    fn coordinates(width: usize, height: usize) -> Image {
        let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, 7])).collect();
        Image::new(width, height, pixels).unwrap()
    }

    #[test]
    fn crop_roundings() {
        use CropRounding::{Floor, HalfEven};
        assert_eq!([5, 6, 7, 8].map(|side| Floor.offset(side, 4)), [0, 1, 1, 2]);
        assert_eq!([5, 6, 7, 8].map(|side| HalfEven.offset(side, 4)), [0, 1, 2, 2]);
        // Too small: transformers puts the larger margin first, torchvision last.
        assert_eq!([3, 2, 1].map(|side| Floor.offset(side, 4)), [-1, -1, -2]);
        assert_eq!([3, 2, 1].map(|side| HalfEven.offset(side, 4)), [0, -1, -1]);
    }

    #[test]
    fn crops_and_pads() {
        let image = coordinates(5, 3);
        let middle = image.centre_crop(3, 5, CropRounding::Floor).unwrap();
        assert_eq!(middle.pixels()[..9], [0; 9]);
        assert_eq!(middle.pixels()[9..18], [1, 0, 7, 2, 0, 7, 3, 0, 7]);
        assert_eq!(image.crop(1..3, 2..3).unwrap().pixels(), [1, 2, 7, 2, 2, 7]);
        let square = coordinates(2, 1).pad_to_square([1, 2, 3]);
        assert_eq!(square.pixels(), [0, 0, 7, 1, 0, 7, 1, 2, 3, 1, 2, 3]);
        assert!(image.crop(1..6, 0..1).is_err() && image.crop(2..2, 0..1).is_err());
        assert!(image.centre_crop(0, 1, CropRounding::Floor).is_err());
        assert!(image.centre_crop(1, usize::MAX, CropRounding::HalfEven).is_err());
    }

    #[test]
    fn normalised_values_are_planar() {
        let image = Image::new(2, 1, vec![0, 51, 255, 255, 102, 0]).unwrap();
        let (values, shape) =
            normalise(&[image.clone(), image.clone()], 1.0 / 255.0, [0.0, 0.2, 0.5], [1.0, 0.2, 0.5]).unwrap();
        assert_eq!(shape, [2, 3, 1, 2]);
        assert_eq!(values[..6], values[6..]);
        assert_eq!(values[..6], [0.0, 1.0, 0.0, 1.0, 1.0, -1.0]);
        assert!(normalise(&[], 1.0, [0.0; 3], [1.0; 3]).is_err());
        let error = normalise(&[image, coordinates(1, 1)], 1.0, [0.0; 3], [1.0; 3]).unwrap_err();
        assert!(error.to_string().contains("one size"), "{error}");
    }
}
