//! Layers: what models are assembled from. Each finds its tensors under the names that the checkpoint gives them.

mod attention;
mod beam;
mod block;
mod conv;
mod decoder;
mod embedding;
mod feed;
mod generate;
mod kv_cache;
mod linear;
mod mlp;
mod norm;
mod patch;
mod recorded;
mod rope;
mod sampler;
mod scope;
mod taps;

pub use attention::{Heads, SelfAttention};
pub use block::{Block, LayerScale};
pub use conv::{Conv, ConvTranspose, weight as conv_weight};
pub use decoder::{CausalAttention, DecoderBlock, DecoderConfig, GatedMlp, Keys, Rotation};
pub use embedding::Embedding;
pub use feed::Feed;
pub use generate::{CallInputs, CausalLm, DeviceTokens, GenerateOptions, Generated, Prompt, Step, Tokens, generate};
pub use kv_cache::{CacheStep, KvCache};
pub use linear::Linear;
pub use mlp::Mlp;
pub use norm::{LayerNorm, RmsNorm};
pub use patch::{PatchEmbedding, PositionTable, with_class_token};
pub use rope::{RopeConfig, RopeScaling, Yarn};
pub use sampler::Sampling;
pub use scope::{Frozen, Precision, Scope, Trained};
pub use taps::Taps;
