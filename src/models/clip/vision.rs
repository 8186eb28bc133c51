//! The vision tower, also the eyes of LLaVA, ShareGPT4V and Qwen-VL.

use super::config::ClipConfig;
use super::names;
use crate::models::vit::cls_rows;
use crate::nn::{Block, LayerNorm, PatchEmbedding, PositionTable, Scope, Taps, with_class_token};
use crate::ops::attention::Options;
use crate::{DType, Result, Tensor};

/// Pictures to hidden states.
pub struct VisionTower {
    patch_embedding: PatchEmbedding,
    class_embedding: Tensor,
    position_embedding: PositionTable,
    pre_layrnorm: LayerNorm,
    layers: Vec<Block>,
    post_layernorm: LayerNorm,
}

/// What the tower gives.
pub struct VisionOutput {
    /// [batch, 1 + patches, width], after the last block and before any norm.
    pub last_hidden_state: Tensor,
    /// The class token's row after the last norm, [batch, width].
    pub pooler_output: Tensor,
}

impl VisionTower {
    /// From `vision_model.…` (transformers) or `visual.…` (open_clip).
    ///
    /// # Errors
    /// A tensor is missing or has another shape, or memory is short.
    pub fn load(scope: &Scope, config: &ClipConfig) -> Result<VisionTower> {
        let (width, eps) = (config.vision.width, config.vision.eps);
        let grid = [config.image_size / config.patch_size; 2];
        let rows = [1 + grid[0] * grid[1], width];
        let (patches, class, positions, pre, post) = match config.open_clip {
            false => {
                let e = scope.sub("embeddings");
                let positions = e.vector("position_embedding.weight", &rows)?;
                let class = e.vector("class_embedding", &[width])?;
                (e.sub("patch_embedding"), class, positions, "pre_layrnorm", "post_layernorm")
            }
            true => {
                let positions = scope.vector("positional_embedding", &rows)?;
                let class = scope.vector("class_embedding", &[width])?;
                (scope.sub("conv1"), class, positions, "ln_pre", "ln_post")
            }
        };
        Ok(VisionTower {
            patch_embedding: PatchEmbedding::load(&patches, width, 3, [config.patch_size; 2], false)?,
            class_embedding: class,
            position_embedding: PositionTable::new(positions, grid)?,
            pre_layrnorm: LayerNorm::load(&scope.sub(pre), width, eps)?,
            layers: names::blocks(scope, &config.vision, config.open_clip)?,
            post_layernorm: LayerNorm::load(&scope.sub(post), width, eps)?,
        })
    }

    /// Runs on pixels [batch, 3, height, width], normalised. Pictures of another size than the model's are an error
    /// unless positions are interpolated.
    ///
    /// # Errors
    /// The size does not fit, or memory is short.
    pub fn forward(&self, pixel_values: &Tensor, interpolate: bool, taps: &mut Taps) -> Result<VisionOutput> {
        let device = pixel_values.device();
        let _span = device.span(|| "vision".into());
        let grid = self.patch_embedding.grid(pixel_values)?;
        let tokens = with_class_token(&self.class_embedding, &self.patch_embedding.forward(pixel_values)?)?;
        let x = match interpolate && grid != self.position_embedding.grid() {
            true => self.position_embedding.resampled(grid)?.add(&tokens, grid)?,
            false => self.position_embedding.add(&tokens, grid)?,
        };
        taps.add(|| "vision.embeddings".into(), &x);
        let mut x = self.pre_layrnorm.forward(&x, DType::F32)?;
        taps.add(|| "vision.pre_layernorm".into(), &x);
        for (i, layer) in self.layers.iter().enumerate() {
            let _span = device.span(|| format!("layer {i}"));
            x = layer.forward(&x, &Options::default())?;
            taps.add(|| format!("vision.block{i}"), &x);
        }
        let pooler_output = self.post_layernorm.forward(&cls_rows(&x)?, DType::F32)?;
        Ok(VisionOutput { last_hidden_state: x, pooler_output })
    }
}
