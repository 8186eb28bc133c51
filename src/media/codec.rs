//! Pictures from PNG and JPEG files.

use super::{Image, MAX_SIDE};
use crate::error::{Error, Result};
use image::{ImageFormat, ImageReader, Limits};
use std::io::{Cursor, Read};
use std::path::Path;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// The most memory that a decoder may take: an image of the largest sides, with room for its rows' filters.
const MAX_DECODED: u64 = 4 << 30;

impl Image {
    /// Reads a PNG or JPEG file. Fails where it cannot be read or is no whole picture; the message names the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Image> {
        let path = path.as_ref();
        let io = |e| Error::io(path, e);
        if std::fs::metadata(path).map_err(io)?.is_dir() {
            return Err(Error::file(path, "is a directory, not a picture"));
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path).map_err(io)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(Error::file(path, "is above 1 GiB, too large for a picture"));
        }
        decode(&bytes).map_err(|why| Error::file(path, why))
    }

    /// Decodes the bytes of a PNG or JPEG file. Alpha is dropped, not blended; of 16 bits the upper 8 stay (as Pillow
    /// does for colour; 16-bit grey it clips to 255 instead). Fails where they are no whole picture.
    pub fn decode(bytes: &[u8]) -> Result<Image> {
        decode(bytes).map_err(|why| Error::Media(format!("picture: {why}")))
    }
}

fn decode(bytes: &[u8]) -> Result<Image, String> {
    if bytes.is_empty() {
        return Err("is empty".into());
    }
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        Ok(other) => return Err(format!("is a {other:?} picture; PNG and JPEG can be read")),
        Err(_) => return Err("is no PNG or JPEG picture".into()),
    };
    if format == ImageFormat::Jpeg && !has_end(bytes) {
        return Err("the JPEG data end too early".into());
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE as u32);
    limits.max_image_height = Some(MAX_SIDE as u32);
    limits.max_alloc = Some(MAX_DECODED);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let decoded = reader.decode().map_err(|e| format!("cannot be decoded: {e}"))?;
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    let colour = decoded.color();
    let pixels = match colour.bytes_per_pixel() / colour.channel_count() {
        1 => decoded.into_rgb8().into_raw(),
        // Pillow takes the upper byte; the crate's own conversion would round.
        _ => decoded.into_rgb16().into_raw().into_iter().map(|level| (level >> 8) as u8).collect(),
    };
    Image::new(width, height, pixels).map_err(|e| e.to_string())
}

/// Whether the last scan of a JPEG file is followed by an end marker. The decoder fills what is missing with grey and
/// says nothing. Within a scan, neither of these byte pairs can occur.
fn has_end(bytes: &[u8]) -> bool {
    let scan = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]);
    scan.is_some_and(|at| bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, ImageBuffer};

    fn encoded(image: DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn decoded(image: DynamicImage) -> Vec<u8> {
        Image::decode(&encoded(image, ImageFormat::Png)).unwrap().into_pixels()
    }

    #[test]
    fn every_kind_becomes_rgb() {
        let raw = |n: u16| (1..=n).map(|i| i as u8).collect::<Vec<u8>>();
        let wide = |n: u16| (1..=n).map(|i| i * 256 + 255).collect::<Vec<u16>>();
        let grey = [1, 1, 1, 2, 2, 2];
        assert_eq!(decoded(DynamicImage::ImageLuma8(ImageBuffer::from_raw(2, 1, raw(2)).unwrap())), grey);
        assert_eq!(decoded(DynamicImage::ImageLuma16(ImageBuffer::from_raw(2, 1, wide(2)).unwrap())), grey);
        let grey = [1, 1, 1, 3, 3, 3];
        assert_eq!(decoded(DynamicImage::ImageLumaA8(ImageBuffer::from_raw(2, 1, raw(4)).unwrap())), grey);
        let colour = [1, 2, 3, 5, 6, 7];
        assert_eq!(decoded(DynamicImage::ImageRgba8(ImageBuffer::from_raw(2, 1, raw(8)).unwrap())), colour);
        assert_eq!(decoded(DynamicImage::ImageRgba16(ImageBuffer::from_raw(2, 1, wide(8)).unwrap())), colour);
    }

    #[test]
    fn bad_files_are_refused() {
        let picture =
            DynamicImage::ImageRgb8(ImageBuffer::from_fn(40, 40, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8])));
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let bytes = encoded(picture.clone(), format);
            assert_eq!(Image::decode(&bytes).unwrap().width(), 40);
            for len in [0, 1, 8, 30, bytes.len() / 2, bytes.len() - 20] {
                assert!(Image::decode(&bytes[..len]).is_err(), "{format:?} of {len} bytes");
            }
        }
        assert!(Image::decode(b"<html>").unwrap_err().to_string().contains("no PNG or JPEG"));
        assert!(Image::decode(b"GIF89a").unwrap_err().to_string().contains("Gif"));
        let folder = Image::open(std::env::temp_dir()).unwrap_err().to_string();
        assert!(folder.contains("directory") && folder.contains(&*std::env::temp_dir().to_string_lossy()), "{folder}");
        assert!(matches!(Image::open("no/such/file.png"), Err(Error::Io { .. })));
    }
}
