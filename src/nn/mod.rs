//! Layers: what models are assembled from. Each finds its tensors under the names that the checkpoint gives them.

mod attention;
mod block;
mod conv;
mod linear;
mod mlp;
mod norm;
mod patch;
mod scope;
mod taps;

pub use attention::{Heads, SelfAttention};
pub use block::{Block, LayerScale};
pub use conv::{Conv, ConvTranspose, weight as conv_weight};
pub use linear::Linear;
pub use mlp::Mlp;
pub use norm::LayerNorm;
pub use patch::{PatchEmbedding, PositionTable, with_class_token};
pub use scope::{Precision, Scope};
pub use taps::Taps;
