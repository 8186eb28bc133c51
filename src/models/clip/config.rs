//! The sizes of CLIP's two towers, from either publisher's configuration.

use crate::models::config::Config;
use crate::ops::activation::Activation;
use crate::{Error, Result};
use serde_json::Value;

/// One tower.
#[derive(Clone, Debug)]
pub struct TowerConfig {
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
    pub mlp_width: usize,
    pub activation: Activation,
    pub eps: f32,
}

/// How the text tower finds the row that stands for the whole text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The first place of the largest id.
    LargestId,
    /// The first place of this id.
    First(u32),
}

/// The whole model.
#[derive(Clone, Debug)]
pub struct ClipConfig {
    pub vision: TowerConfig,
    pub image_size: usize,
    pub patch_size: usize,
    pub text: TowerConfig,
    pub vocab_size: usize,
    /// The longest text, in tokens.
    pub context_length: usize,
    pub pooling: Pooling,
    /// The width that both towers are projected to.
    pub embed_dim: usize,
    /// Whether names and configuration are open_clip's.
    pub open_clip: bool,
}

impl ClipConfig {
    /// From `config.json` (transformers) or `open_clip_config.json`.
    ///
    /// # Errors
    /// A value is of the wrong type or out of range, or asks for what does not exist.
    pub fn from_json(json: &Value) -> Result<ClipConfig> {
        match json.get("model_cfg") {
            Some(model) => ClipConfig::open_clip(model),
            None => ClipConfig::transformers(json),
        }
    }

    fn transformers(json: &Value) -> Result<ClipConfig> {
        let top = Config::new(json);
        let text = top.sub("text_config").overridden_by(&top, "text_config_dict");
        let vision = top.sub("vision_config").overridden_by(&top, "vision_config_dict");
        let tower = |c: &Config<'_>, width, mlp, heads| -> Result<TowerConfig> {
            Ok(TowerConfig {
                width: c.size("hidden_size", width)?,
                layers: c.size("num_hidden_layers", 12)?,
                heads: c.size("num_attention_heads", heads)?,
                mlp_width: c.size("intermediate_size", mlp)?,
                activation: c.activation("hidden_act", "quick_gelu")?,
                eps: c.number("layer_norm_eps", 1e-5)? as f32,
            })
        };
        // 2 is a wrong number that OpenAI's files carry; pooling by the largest id is kept for their sake.
        let eos = text.number("eos_token_id", 49407.0)?;
        let pooling = if eos == 2.0 { Pooling::LargestId } else { Pooling::First(eos as u32) };
        Ok(ClipConfig {
            image_size: vision.size("image_size", 224)?,
            patch_size: vision.size("patch_size", 32)?,
            vision: tower(&vision, 768, 3072, 12)?,
            vocab_size: text.size("vocab_size", 49408)?,
            context_length: text.size("max_position_embeddings", 77)?,
            text: tower(&text, 512, 2048, 8)?,
            pooling,
            embed_dim: top.size("projection_dim", 512)?,
            open_clip: false,
        })
    }

    fn open_clip(model: &Value) -> Result<ClipConfig> {
        let top = Config::new(model);
        let (text, vision) = (top.sub("text_cfg"), top.sub("vision_cfg"));
        let quick = top.flag("quick_gelu", false)?;
        let activation = if quick { Activation::QuickGelu } else { Activation::GeluErf };
        let tower = |c: &Config<'_>, heads| -> Result<TowerConfig> {
            let width = c.size("width", if heads == 0 { 768 } else { 512 })?;
            let ratio = c.number("mlp_ratio", 4.0)?;
            let heads = match heads {
                0 => width / c.size("head_width", 64)?,
                default => c.size("heads", default)?,
            };
            let mlp_width = (width as f64 * ratio) as usize;
            if !(1.0..=64.0).contains(&ratio) {
                return Err(Error::Config(format!("`mlp_ratio` {ratio} is out of range")));
            }
            Ok(TowerConfig { width, layers: c.size("layers", 12)?, heads, mlp_width, activation, eps: 1e-5 })
        };
        Ok(ClipConfig {
            image_size: vision.size("image_size", 224)?,
            patch_size: vision.size("patch_size", 16)?,
            vision: tower(&vision, 0)?,
            vocab_size: text.size("vocab_size", 49408)?,
            context_length: text.size("context_length", 77)?,
            text: tower(&text, 8)?,
            pooling: Pooling::LargestId,
            embed_dim: top.required_size("embed_dim")?,
            open_clip: true,
        })
    }
}
