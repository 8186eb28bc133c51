//! Layers: what models are assembled from. Each finds its tensors under the names that the checkpoint gives them.

mod attention;
mod block;
mod embedding;
mod linear;
mod mlp;
mod norm;
mod patch;
mod scope;
mod taps;

pub use attention::{Heads, SelfAttention};
pub use block::{Block, LayerScale};
pub use embedding::Embedding;
pub use linear::Linear;
pub use mlp::Mlp;
pub use norm::{LayerNorm, RmsNorm};
pub use patch::{PatchEmbedding, PositionTable, with_class_token};
pub use scope::{Frozen, Precision, Scope, Trained};
pub use taps::Taps;
