//! Models: graphs of layers under the names of their published checkpoints. They take pictures and ids, never paths.

pub mod clip;
mod config;
pub mod llama;
mod tokens;
pub mod vit;
pub mod writing;

pub use tokens::{chat_template, tokenizer};

use crate::checkpoint::Folder;
use crate::nn::{Precision, Scope};
use crate::{Device, Error, Result};
use serde_json::Value;

/// The families, by what their configurations say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// ViT and DINOv2.
    Vit,
    /// CLIP, in either layout.
    Clip,
    /// Llama and what is shaped like it.
    Llama,
}

impl Family {
    /// The family of a configuration.
    ///
    /// # Errors
    /// It is none of those that exist here; the message lists them.
    pub fn of(config: &Value) -> Result<Family> {
        if config.get("model_cfg").is_some() {
            return Ok(Family::Clip);
        }
        match config.get("model_type").and_then(Value::as_str) {
            Some("vit" | "dinov2") => Ok(Family::Vit),
            Some("clip") => Ok(Family::Clip),
            Some("llama") => Ok(Family::Llama),
            Some(other) => {
                Err(Error::NotSupported(format!("model family `{other}`; known are vit, dinov2, clip and llama")))
            }
            None => Err(Error::Config("config.json has no `model_type`, so the model's family is unknown".into())),
        }
    }

    /// As the command line and the golden cases have it.
    pub fn name(self) -> &'static str {
        match self {
            Family::Vit => "vit",
            Family::Clip => "clip",
            Family::Llama => "llama",
        }
    }
}

/// A model of any family.
pub enum Model {
    Vit(Box<vit::Vit>),
    Clip(Box<clip::Clip>),
    Llama(Box<llama::Llama>),
}

/// Loads the model of a folder, of the family that its configuration names.
///
/// # Errors
/// An unknown family, or a configuration or tensor that is wrong or missing.
pub fn load(folder: &Folder, device: &Device, precision: Precision) -> Result<Model> {
    let family = Family::of(folder.config())?;
    let scope = Scope::new(folder.weights()?, device, precision);
    let (config, preprocessor) = (folder.config(), folder.preprocessor());
    Ok(match family {
        Family::Vit => Model::Vit(Box::new(vit::Vit::load(&scope, config, preprocessor)?)),
        Family::Clip => Model::Clip(Box::new(clip::Clip::load(&scope, config, preprocessor)?)),
        Family::Llama => Model::Llama(Box::new(llama::Llama::load(&scope, config)?)),
    })
}
