//! ViT: an encoder of pictures, with a classifier, a pooler or neither; and DINOv2, the same with layer scale.
//!
//! Papers: "An Image is Worth 16x16 Words" (arXiv 2010.11929), "DINOv2" (arXiv 2304.07193). Layout of checkpoints:
//! google/vit-base-patch16-224 (`ViTForImageClassification`), google/vit-base-patch16-224-in21k (`ViTModel`),
//! facebook/dinov2-small (`Dinov2Model`).

use super::config::{Config, labels};
use crate::media::{Image, ImageProcessor};
use crate::nn::{
    Block, Heads, LayerNorm, LayerScale, Linear, Mlp, PatchEmbedding, PositionTable, Scope, SelfAttention, Taps,
    with_class_token,
};
use crate::ops::activation::Activation;
use crate::ops::attention::Options;
use crate::{DType, Error, Result, Tensor};
use serde_json::Value;

/// How a variant differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Vit,
    Dinov2,
}

/// The sizes of a model.
#[derive(Clone, Debug)]
pub struct VitConfig {
    variant: Variant,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    pub layer_norm_eps: f32,
    /// [height, width]
    pub image_size: [usize; 2],
    /// [height, width]
    pub patch_size: [usize; 2],
    pub num_channels: usize,
    pub qkv_bias: bool,
    pooler_act: Activation,
    /// The names of the classes.
    pub labels: Vec<String>,
}

impl VitConfig {
    /// From `config.json`; absent keys have the published defaults.
    ///
    /// # Errors
    /// A value is of the wrong type or out of range, or asks for what does not exist.
    pub fn from_json(json: &Value) -> Result<VitConfig> {
        let c = Config::new(json);
        let variant = match json.get("model_type").and_then(Value::as_str) {
            Some("dinov2") => Variant::Dinov2,
            _ => Variant::Vit,
        };
        let hidden_size = c.size("hidden_size", 768)?;
        let (intermediate_size, eps, patch) = match variant {
            Variant::Vit => (c.size("intermediate_size", 3072)?, 1e-12, 16),
            Variant::Dinov2 => {
                if c.flag("use_swiglu_ffn", false)? {
                    return Err(Error::NotSupported("dinov2 with `use_swiglu_ffn`".into()));
                }
                (hidden_size * c.size("mlp_ratio", 4)?, 1e-6, 14)
            }
        };
        Ok(VitConfig {
            variant,
            hidden_size,
            num_hidden_layers: c.size("num_hidden_layers", 12)?,
            num_attention_heads: c.size("num_attention_heads", 12)?,
            intermediate_size,
            hidden_act: c.activation("hidden_act", "gelu")?,
            layer_norm_eps: c.number("layer_norm_eps", eps)? as f32,
            image_size: c.sides("image_size", 224)?,
            patch_size: c.sides("patch_size", patch)?,
            num_channels: c.size("num_channels", 3)?,
            qkv_bias: c.flag("qkv_bias", true)?,
            pooler_act: c.activation("pooler_act", "tanh")?,
            labels: labels(&c),
        })
    }

    /// Patches of the position table, [rows, columns].
    fn grid(&self) -> [usize; 2] {
        [self.image_size[0] / self.patch_size[0], self.image_size[1] / self.patch_size[1]]
    }
}

/// The model.
pub struct Vit {
    config: VitConfig,
    processor: ImageProcessor,
    cls_token: Tensor,
    position_embeddings: PositionTable,
    patch_embeddings: PatchEmbedding,
    layer: Vec<Block>,
    layernorm: LayerNorm,
    pooler: Option<Linear>,
    classifier: Option<Linear>,
}

/// What a forward pass gives.
pub struct VitOutput {
    /// [batch, 1 + patches, hidden_size], after the last norm.
    pub last_hidden_state: Tensor,
    /// [batch, hidden_size], if the checkpoint has a pooler.
    pub pooler_output: Option<Tensor>,
    /// [batch, classes], if the checkpoint has a classifier.
    pub logits: Option<Tensor>,
}

impl Vit {
    /// From a checkpoint, its `config.json`, and its `preprocessor_config.json` if it has one.
    ///
    /// # Errors
    /// A configuration or a tensor is wrong or missing, or memory is short.
    pub fn load(scope: &Scope, config: &Value, preprocessor: Option<&str>) -> Result<Vit> {
        let config = VitConfig::from_json(config)?;
        let processor = match preprocessor {
            Some(text) => ImageProcessor::from_json_or(text, ImageProcessor::vit())?,
            None => ImageProcessor::vit(),
        };
        let root = if scope.contains("vit.embeddings.cls_token") { scope.sub("vit") } else { scope.clone() };
        let (d, eps) = (config.hidden_size, config.layer_norm_eps);
        let grid = config.grid();
        let embeddings = root.sub("embeddings");
        let positions = embeddings.vector("position_embeddings", &[1, 1 + grid[0] * grid[1], d])?;
        let patches = embeddings.sub("patch_embeddings.projection");
        let layer = |i| block(&root.at("encoder.layer", i), &config);
        let classifier = match scope.contains("classifier.weight") {
            true => {
                let head = scope.sub("classifier");
                let classes = head.shape_of("weight")?[0];
                Some(Linear::load(&head, d, classes, true)?)
            }
            false => None,
        };
        let pooler = match root.contains("pooler.dense.weight") {
            true => {
                let dense = root.sub("pooler.dense");
                let width = dense.shape_of("weight")?[0];
                Some(Linear::load(&dense, d, width, true)?)
            }
            false => None,
        };
        Ok(Vit {
            processor,
            cls_token: embeddings.vector("cls_token", &[1, 1, d])?,
            position_embeddings: PositionTable::new(positions.reshape(&[1 + grid[0] * grid[1], d])?, grid)?,
            patch_embeddings: PatchEmbedding::load(&patches, d, config.num_channels, config.patch_size, true)?,
            layer: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            layernorm: LayerNorm::load(&root.sub("layernorm"), d, eps)?,
            pooler,
            classifier,
            config,
        })
    }

    /// The sizes.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// How pictures become its input.
    pub fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    /// Pictures as its input, `[pictures, 3, height, width]`.
    ///
    /// # Errors
    /// No pictures, or memory is short.
    pub fn pixel_values(&self, images: &[Image]) -> Result<Tensor> {
        let (values, shape) = self.processor.pixel_values(images)?;
        Tensor::from_slice(self.cls_token.device(), &values, &shape)
    }

    /// Runs on pixels [batch, channels, height, width], normalised. Pictures of another size than the model's are an
    /// error unless positions are interpolated (DINOv2 always does).
    ///
    /// # Errors
    /// The size does not fit, or memory is short.
    pub fn forward(&self, pixel_values: &Tensor, interpolate_pos_encoding: bool, taps: &mut Taps) -> Result<VitOutput> {
        let device = pixel_values.device();
        let _span = device.span(|| "vit".into());
        let mut x = self.embed(pixel_values, interpolate_pos_encoding, taps)?;
        for (i, layer) in self.layer.iter().enumerate() {
            let _span = device.span(|| format!("layer {i}"));
            x = layer.forward(&x, &Options::default())?;
            taps.add(|| format!("vision.block{i}"), &x);
        }
        let last_hidden_state = self.layernorm.forward(&x, DType::F32)?;
        let cls = cls_rows(&last_hidden_state)?;
        let pooler_output = match &self.pooler {
            Some(pooler) => Some(pooler.forward_with(&cls, self.config.pooler_act, None, DType::F32)?),
            None => None,
        };
        let logits = self.classifier.as_ref().map(|head| head.forward(&cls)).transpose()?;
        Ok(VitOutput { last_hidden_state, pooler_output, logits })
    }

    /// The class token's row of the last hidden state, [batch, hidden_size]: what stands for a picture where there is no
    /// classifier.
    ///
    /// # Errors
    /// As [`forward`](Vit::forward).
    pub fn features(&self, pixel_values: &Tensor) -> Result<Tensor> {
        cls_rows(&self.forward(pixel_values, false, &mut Taps::none())?.last_hidden_state)?.contiguous()
    }

    /// Patches, class token, positions: [batch, 1 + patches, hidden_size].
    fn embed(&self, pixel_values: &Tensor, interpolate: bool, taps: &mut Taps) -> Result<Tensor> {
        let _span = pixel_values.device().span(|| "embeddings".into());
        let grid = self.patch_embeddings.grid(pixel_values)?;
        let patches = self.patch_embeddings.forward(pixel_values)?;
        taps.add(|| "vision.patch_embed".into(), &patches);
        let tokens = with_class_token(&self.cls_token.reshape(&[self.config.hidden_size])?, &patches)?;
        // The reference uses the table as it is where the number of patches equals the table's and the picture is
        // square, and resamples it otherwise, even onto the same grid.
        let [.., height, width] = *pixel_values.shape() else { unreachable!("grid() has checked the rank") };
        let own = self.config.grid();
        let as_is = grid[0] * grid[1] == own[0] * own[1] && height == width;
        let x = match self.config.variant {
            Variant::Vit if interpolate && !as_is => self.position_embeddings.resampled(grid)?.add(&tokens, grid)?,
            Variant::Dinov2 if !as_is => self.position_embeddings.resampled(grid)?.add(&tokens, grid)?,
            _ => self.position_embeddings.add(&tokens, grid)?,
        };
        taps.add(|| "vision.embeddings".into(), &x);
        Ok(x)
    }
}

/// The class token's rows of [batch, len, width]: [batch, width].
pub(super) fn cls_rows(x: &Tensor) -> Result<Tensor> {
    let [batch, _, width] = *x.shape() else {
        return Err(Error::Config("hidden states are [batch, len, width]".into()));
    };
    x.slice(1, 0..1)?.reshape(&[batch, width])
}

fn block(scope: &Scope, config: &VitConfig) -> Result<Block> {
    let (d, eps) = (config.hidden_size, config.layer_norm_eps);
    let (norms, fcs) = match config.variant {
        Variant::Vit => (["layernorm_before", "layernorm_after"], ["intermediate.dense", "output.dense"]),
        Variant::Dinov2 => (["norm1", "norm2"], ["mlp.fc1", "mlp.fc2"]),
    };
    let scale = match config.variant {
        Variant::Vit => None,
        Variant::Dinov2 => {
            let load = |name| LayerScale::load(&scope.sub(name), d);
            Some([load("layer_scale1")?, load("layer_scale2")?])
        }
    };
    let attention = scope.sub("attention");
    let qkv = ["query", "key", "value"].map(|name| attention.sub("attention").sub(name));
    let heads = Heads::of(d, config.num_attention_heads)?;
    let compute = scope.precision().compute;
    Ok(Block {
        norm1: LayerNorm::load(&scope.sub(norms[0]), d, eps)?,
        attention: SelfAttention::load(&qkv, &attention.sub("output.dense"), d, heads, config.qkv_bias)?,
        norm2: LayerNorm::load(&scope.sub(norms[1]), d, eps)?,
        mlp: Mlp {
            fc1: Linear::load(&scope.sub(fcs[0]), d, config.intermediate_size, true)?,
            fc2: Linear::load(&scope.sub(fcs[1]), config.intermediate_size, d, true)?,
            activation: config.hidden_act,
            compute,
        },
        scale,
        compute,
    })
}
