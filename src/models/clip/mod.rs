//! CLIP: a tower for pictures and one for texts, projected into one space.
//!
//! Paper: "Learning Transferable Visual Models From Natural Language Supervision" (arXiv 2103.00020). Layouts of
//! checkpoints: openai/clip-vit-base-patch32 through transformers (`CLIPModel`), and open_clip's own
//! (`open_clip_config.json`, laion/CLIP-ViT-bigG-14-laion2B-39B-b160k).

mod config;
mod names;
mod text;
mod vision;

pub use config::{ClipConfig, Pooling, TowerConfig};
pub use text::{TextOutput, TextTower};
pub use vision::{VisionOutput, VisionTower};

use crate::media::{Image, ImageProcessor};
use crate::nn::{Linear, Scope, Taps};
use crate::ops::cross_entropy;
use crate::ops::elementwise;
use crate::ops::gemm::matmul;
use crate::ops::reduce;
use crate::ops::softmax::softmax;
use crate::{Error, Result, Tensor};
use serde_json::Value;

/// The model.
pub struct Clip {
    config: ClipConfig,
    processor: ImageProcessor,
    vision_model: VisionTower,
    text_model: TextTower,
    visual_projection: Linear,
    text_projection: Linear,
    /// The logarithm of the factor on cosines, [1].
    logit_scale: Tensor,
}

/// Pictures held against texts.
pub struct Scores {
    /// [pictures, texts]: scaled cosines.
    pub logits_per_image: Tensor,
    /// [pictures, texts]: their softmax over the texts.
    pub probs: Tensor,
    /// [pictures, embed_dim], of length 1.
    pub image_embeds: Tensor,
    /// [texts, embed_dim], of length 1.
    pub text_embeds: Tensor,
}

impl Clip {
    /// From a checkpoint, its configuration, and its `preprocessor_config.json` if it has one.
    ///
    /// # Errors
    /// A configuration or a tensor is wrong or missing, or memory is short.
    pub fn load(scope: &Scope, config: &Value, preprocessor: Option<&str>) -> Result<Clip> {
        let json = config;
        let config = ClipConfig::from_json(json)?;
        let processor = match (preprocessor, json.get("preprocess_cfg")) {
            (Some(text), _) => ImageProcessor::from_json_or(text, ImageProcessor::clip())?,
            (None, Some(cfg)) => ImageProcessor::from_open_clip(&cfg.to_string(), config.image_size)?,
            (None, None) => ImageProcessor::clip(),
        };
        let (vision, text) = match config.open_clip {
            false => (scope.sub("vision_model"), scope.sub("text_model")),
            true => (scope.sub("visual"), scope.clone()),
        };
        let (dv, dt, e) = (config.vision.width, config.text.width, config.embed_dim);
        let logit_scale = scope.vector("logit_scale", &scope.shape_of("logit_scale")?)?.reshape(&[1])?;
        Ok(Clip {
            processor,
            vision_model: VisionTower::load(&vision, &config)?,
            text_model: TextTower::load(&text, &config)?,
            visual_projection: names::projection(scope, "visual_projection", "visual.proj", dv, e)?,
            text_projection: names::projection(scope, "text_projection", "text_projection", dt, e)?,
            logit_scale,
            config,
        })
    }

    /// The sizes.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// How pictures become its input.
    pub fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    /// The vision tower alone.
    pub fn vision_model(&self) -> &VisionTower {
        &self.vision_model
    }

    /// Pictures as the vision tower's input, `[pictures, 3, height, width]`.
    ///
    /// # Errors
    /// No pictures, or memory is short.
    pub fn pixel_values(&self, images: &[Image], device: &crate::Device) -> Result<Tensor> {
        let (values, shape) = self.processor.pixel_values(images)?;
        Tensor::from_slice(device, &values, &shape)
    }

    /// Image features [pictures, embed_dim], not normalised, and what the tower gave.
    ///
    /// # Errors
    /// As [`VisionTower::forward`].
    pub fn encode_image(
        &self,
        pixel_values: &Tensor,
        interpolate_pos_encoding: bool,
        taps: &mut Taps,
    ) -> Result<(Tensor, VisionOutput)> {
        let output = self.vision_model.forward(pixel_values, interpolate_pos_encoding, taps)?;
        Ok((self.visual_projection.forward(&output.pooler_output)?, output))
    }

    /// Text features [texts, embed_dim], not normalised, and what the tower gave.
    ///
    /// # Errors
    /// As [`TextTower::forward`].
    pub fn encode_text(
        &self,
        ids: &[u32],
        len: usize,
        attention_mask: Option<&[u32]>,
        taps: &mut Taps,
    ) -> Result<(Tensor, TextOutput)> {
        let output = self.text_model.forward(ids, len, attention_mask, taps)?;
        Ok((self.text_projection.forward(&output.pooler_output)?, output))
    }

    /// Cosines of features, scaled, and their softmax over the texts.
    ///
    /// # Errors
    /// Memory is short.
    pub fn score(&self, image_features: &Tensor, text_features: &Tensor) -> Result<Scores> {
        let (image_embeds, text_embeds) = (unit_rows(image_features)?, unit_rows(text_features)?);
        let cosines = matmul(&image_embeds, &text_embeds.transpose(0, 1)?)?;
        let scale = elementwise::exp(&self.logit_scale)?.reshape(&[1, 1])?;
        let logits_per_image = elementwise::mul(&cosines, &scale)?;
        Ok(Scores { probs: softmax(&logits_per_image)?, logits_per_image, image_embeds, text_embeds })
    }
}

/// The contrastive objective, [1], of scores [n, n] of which picture i belongs to text i: the mean of the cross-entropies
/// of both directions.
///
/// # Errors
/// Not as many pictures as texts.
pub fn contrastive_loss(logits_per_image: &Tensor) -> Result<Tensor> {
    let &[n, texts] = logits_per_image.shape() else {
        return Err(Error::Config(format!("scores must be [pictures, texts], got {logits_per_image}")));
    };
    if n != texts || n == 0 {
        return Err(Error::Config(format!("pairs need as many pictures as texts, got {n} and {texts}")));
    }
    let labels: Vec<u32> = (0..n as u32).collect();
    let labels = Tensor::from_slice(logits_per_image.device(), &labels, &[n])?;
    let loss = |logits: &Tensor| cross_entropy::mean_loss(logits, &labels, &Default::default());
    let (images, texts) = (loss(logits_per_image)?, loss(&logits_per_image.transpose(0, 1)?.contiguous()?)?);
    elementwise::affine(&elementwise::add(&images, &texts)?, 0.5, 0.0)
}

/// Rows divided by their lengths; no epsilon, as in the reference.
fn unit_rows(x: &Tensor) -> Result<Tensor> {
    let squares = reduce::sum(&elementwise::square(x)?, 1)?;
    elementwise::mul(x, &elementwise::rsqrt(&squares)?)
}
