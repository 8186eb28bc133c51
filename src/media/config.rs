//! Reads what a checkpoint says about preprocessing: `preprocessor_config.json`, or open_clip's `preprocess_cfg`.

use super::processor::{CLIP_MEAN, CLIP_STD, ImageProcessor, Size};
use super::settings::{Settings, side};
use super::{CropRounding, Resample};
use crate::error::{Error, Result};
use serde_json::Value;

impl ImageProcessor {
    /// From the text of a `preprocessor_config.json` that names its processor. Fails where it names none or an unknown
    /// one, and where a value is not what its key asks for.
    pub fn from_json(text: &str) -> Result<ImageProcessor> {
        ImageProcessor::read(text, None)
    }

    /// As [`from_json`](Self::from_json), with what holds for absent keys if the file names no processor.
    pub fn from_json_or(text: &str, unnamed: ImageProcessor) -> Result<ImageProcessor> {
        ImageProcessor::read(text, Some(unnamed))
    }

    fn read(text: &str, unnamed: Option<ImageProcessor>) -> Result<ImageProcessor> {
        let json = parse("preprocessor_config", text)?;
        let settings = Settings::new("preprocessor_config", &json)?;
        let name = match settings.text("image_processor_type")? {
            Some(name) => Some(name),
            None => settings.text("feature_extractor_type")?,
        };
        let base = match name {
            Some(name) => ImageProcessor::of_type(name)?,
            None => unnamed.ok_or_else(|| settings.wrong("image_processor_type", "the name of a processor"))?,
        };
        base.changed_by(&settings)
    }

    /// The defaults of a processor class; `…FeatureExtractor` was its earlier name, suffixes tell its backend.
    fn of_type(name: &str) -> Result<ImageProcessor> {
        let stem = ["Fast", "Pil"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        match stem.strip_suffix("ImageProcessor").or_else(|| stem.strip_suffix("FeatureExtractor")) {
            Some("ViT") => Ok(ImageProcessor::vit()),
            // BiT's defaults, which DINOv2 uses, are CLIP's.
            Some("CLIP" | "Bit") => Ok(ImageProcessor::clip()),
            Some("Blip") => Ok(ImageProcessor::blip()),
            _ => Err(Error::NotSupported(format!(
                "preprocessor_config: image processor `{name}`; known are ViT, CLIP, Bit and BLIP image processors"
            ))),
        }
    }

    fn changed_by(mut self, settings: &Settings) -> Result<ImageProcessor> {
        if let Some(value) = settings.get("size") {
            let size = self.read_size(value);
            let want = "an integer, {shortest_edge[, longest_edge]} or {height, width}, sides from 1 to 16384";
            self.size = Some(size.ok_or_else(|| settings.wrong("size", want))?);
        }
        if !settings.flag("do_resize", self.size.is_some())? {
            self.size = None;
        }
        if let Some(value) = settings.get("resample") {
            let filter = value.as_u64().and_then(Resample::from_pil);
            let want = "0 (nearest), 1 (Lanczos), 2 (bilinear) or 3 (bicubic)";
            self.resample = filter.ok_or_else(|| settings.wrong("resample", want))?;
        }
        // `crop_size` stands in files that do not crop, too.
        let crop = match settings.get("crop_size") {
            Some(value) => {
                let sides = side(value).map(|n| (n, n)).or_else(|| read_sides(value));
                let want = "an integer or {height, width}, sides from 1 to 16384";
                Some(sides.ok_or_else(|| settings.wrong("crop_size", want))?)
            }
            None => self.crop,
        };
        self.crop = match settings.flag("do_center_crop", self.crop.is_some())? {
            true => Some(crop.ok_or_else(|| settings.wrong("crop_size", "given where do_center_crop is true"))?),
            false => None,
        };
        let scale = settings.factor("rescale_factor", self.scale)?;
        self.scale = if settings.flag("do_rescale", true)? { scale } else { 1.0 };
        let mean = settings.channels("image_mean", self.mean, false)?;
        let std = settings.channels("image_std", self.std, true)?;
        (self.mean, self.std) = if settings.flag("do_normalize", true)? { (mean, std) } else { ([0.0; 3], [1.0; 3]) };
        // An image is RGB already.
        settings.flag("do_convert_rgb", true)?;
        Ok(self)
    }

    fn read_size(&self, value: &Value) -> Option<Size> {
        if let Some(n) = side(value) {
            return Some(match self.integer_is_shortest {
                true => Size::Shortest { side: n, longest: None },
                false => Size::Exact { width: n, height: n },
            });
        }
        if let Some(shortest) = value.get("shortest_edge") {
            let longest = match value.get("longest_edge").filter(|v| !v.is_null()) {
                Some(longest) => Some(side(longest)?),
                None => None,
            };
            return Some(Size::Shortest { side: side(shortest)?, longest });
        }
        read_sides(value).map(|(width, height)| Size::Exact { width, height })
    }

    /// From the text of an open_clip `preprocess_cfg` (`{mean, std, interpolation, resize_mode}`, all optional, or
    /// `null`) and the size that its tower takes, which wins over a `size` there. Crops as torchvision does. Fails
    /// where a value is not what its key asks for.
    pub fn from_open_clip(text: &str, image_size: usize) -> Result<ImageProcessor> {
        let json = match parse("preprocess_cfg", text)? {
            Value::Null => Value::Object(Default::default()),
            json => json,
        };
        let settings = Settings::new("preprocess_cfg", &json)?;
        let mean = settings.channels("mean", CLIP_MEAN, false)?;
        let std = settings.channels("std", CLIP_STD, true)?;
        let resample = match settings.text("interpolation")? {
            None | Some("bicubic") => Resample::Bicubic,
            Some("bilinear") => Resample::Bilinear,
            Some(_) => return Err(settings.wrong("interpolation", "`bicubic` or `bilinear`")),
        };
        match settings.text("resize_mode")? {
            None | Some("shortest") => {
                let rounding = CropRounding::HalfEven;
                Ok(ImageProcessor::cropped(image_size, image_size, resample, rounding, mean, std))
            }
            Some("squash") => Ok(ImageProcessor::square(image_size, resample, mean, std)),
            Some(_) => Err(settings.wrong("resize_mode", "`shortest` or `squash`")),
        }
    }
}

/// `{height, width}` as width and height.
fn read_sides(value: &Value) -> Option<(usize, usize)> {
    Some((side(value.get("width")?)?, side(value.get("height")?)?))
}

fn parse(file: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| Error::Config(format!("{file} is not JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Image, MAX_SIDE};

    fn sizes(processor: &ImageProcessor, width: usize, height: usize) -> (usize, usize) {
        let image = Image::new(width, height, vec![0; width * height * 3]).unwrap();
        let image = processor.prepare(&image).unwrap();
        (image.width(), image.height())
    }

    #[test]
    fn sizes_as_configured() {
        let clip = |text| ImageProcessor::from_json_or(text, ImageProcessor::clip()).unwrap();
        let vit = |text| ImageProcessor::from_json_or(text, ImageProcessor::vit()).unwrap();
        assert_eq!(sizes(&clip("{}"), 40, 30), (224, 224));
        assert_eq!(sizes(&clip(r#"{"size": 10, "do_center_crop": false}"#), 40, 31), (12, 10));
        assert_eq!(sizes(&clip(r#"{"size": 10, "crop_size": {"height": 8, "width": 12}}"#), 40, 30), (12, 8));
        assert_eq!(sizes(&vit(r#"{"size": 10, "crop_size": null}"#), 40, 30), (10, 10));
        assert_eq!(sizes(&vit(r#"{"size": {"height": 6, "width": 8}}"#), 40, 30), (8, 6));
        assert_eq!(sizes(&vit(r#"{"size": {"shortest_edge": 15, "longest_edge": 32}}"#), 20, 50), (13, 32));
        assert_eq!(sizes(&vit(r#"{"do_resize": false}"#), 9, 7), (9, 7));
        let open = |text| ImageProcessor::from_open_clip(text, 28).unwrap();
        assert_eq!(sizes(&open("{}"), 40, 30), (28, 28));
        assert_eq!(open("null").rounding, CropRounding::HalfEven);
        assert_eq!(open(r#"{"resize_mode": "squash", "size": 9}"#).crop, None);
    }

    #[test]
    fn names_of_processors() {
        for name in
            ["image_processor_type\": \"CLIPImageProcessorFast", "feature_extractor_type\": \"CLIPFeatureExtractor"]
        {
            assert_eq!(ImageProcessor::from_json(&format!("{{\"{name}\"}}")).unwrap(), ImageProcessor::clip());
        }
        assert!(matches!(ImageProcessor::from_json("{}"), Err(Error::Config(_))));
        let unknown = ImageProcessor::from_json(r#"{"image_processor_type": "EncodecFeatureExtractor"}"#);
        assert!(matches!(unknown, Err(Error::NotSupported(_))));
    }

    #[test]
    fn hostile_configs_name_the_key() {
        for (key, value) in [
            ("size", "-3"),
            ("size", "1e30"),
            ("size", "16385"),
            ("size", r#"{"height": 3}"#),
            ("size", r#"{"shortest_edge": 3, "longest_edge": "x"}"#),
            ("crop_size", "{}"),
            ("crop_size", "0"),
            ("resample", "4"),
            ("resample", "\"bicubic\""),
            ("do_resize", "1"),
            ("rescale_factor", "0"),
            ("image_mean", "[0.5, 0.5]"),
            ("image_mean", "[1e300, 0, 0]"),
            ("image_std", "[0, 1, 1]"),
            ("do_convert_rgb", "[]"),
            ("image_processor_type", "7"),
        ] {
            let text = format!("{{\"{key}\": {value}}}");
            let error = ImageProcessor::from_json_or(&text, ImageProcessor::vit()).unwrap_err();
            assert!(matches!(&error, Error::Config(why) if why.contains(&format!("`{key}`"))), "{text}: {error}");
        }
        for text in ["", "[]", "3", "{\"size\": 3"] {
            assert!(matches!(ImageProcessor::from_json(text), Err(Error::Config(_))), "{text}");
        }
        // A strip whose longer side would be a million pixels.
        let strip = Image::new(MAX_SIDE, 1, vec![0; MAX_SIDE * 3]).unwrap();
        assert!(ImageProcessor::clip().prepare(&strip).is_err());
        assert!(ImageProcessor::from_open_clip(r#"{"interpolation": "random"}"#, 28).is_err());
        assert!(ImageProcessor::from_open_clip("{}", usize::MAX).unwrap().prepare(&strip).is_err());
    }
}
