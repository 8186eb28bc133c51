//! The two publishers' names for the same tensors, and how each lays them out.

use super::config::TowerConfig;
use crate::nn::{Block, Heads, LayerNorm, Linear, Mlp, Scope, SelfAttention};
use crate::{Result, Tensor};

/// Blocks of one tower.
pub(super) fn blocks(scope: &Scope, tower: &TowerConfig, open_clip: bool) -> Result<Vec<Block>> {
    let block = |i| match open_clip {
        false => transformers_block(&scope.at("encoder.layers", i), tower),
        true => open_clip_block(&scope.at("transformer.resblocks", i), tower),
    };
    (0..tower.layers).map(block).collect()
}

fn transformers_block(scope: &Scope, tower: &TowerConfig) -> Result<Block> {
    let attention = scope.sub("self_attn");
    let qkv = ["q_proj", "k_proj", "v_proj"].map(|name| attention.sub(name));
    let heads = Heads::of(tower.width, tower.heads)?;
    let attention = SelfAttention::load(&qkv, &attention.sub("out_proj"), tower.width, heads, true)?;
    assemble(scope, tower, attention, ["layer_norm1", "layer_norm2"], ["mlp.fc1", "mlp.fc2"])
}

fn open_clip_block(scope: &Scope, tower: &TowerConfig) -> Result<Block> {
    let (attention, width) = (scope.sub("attn"), tower.width);
    let weight = attention.matrix("in_proj_weight", &[3 * width, width])?;
    let bias = attention.vector("in_proj_bias", &[3 * width])?;
    let qkv = Linear::new(&weight, Some(bias), scope.precision().compute)?;
    let out = Linear::load(&attention.sub("out_proj"), width, width, true)?;
    let attention = SelfAttention::new(qkv, out, Heads::of(width, tower.heads)?, scope);
    assemble(scope, tower, attention, ["ln_1", "ln_2"], ["mlp.c_fc", "mlp.c_proj"])
}

fn assemble(
    scope: &Scope,
    tower: &TowerConfig,
    attention: SelfAttention,
    norms: [&str; 2],
    fcs: [&str; 2],
) -> Result<Block> {
    let compute = scope.precision().compute;
    Ok(Block {
        norm1: LayerNorm::load(&scope.sub(norms[0]), tower.width, tower.eps)?,
        attention,
        norm2: LayerNorm::load(&scope.sub(norms[1]), tower.width, tower.eps)?,
        mlp: Mlp {
            fc1: Linear::load(&scope.sub(fcs[0]), tower.width, tower.mlp_width, true)?,
            fc2: Linear::load(&scope.sub(fcs[1]), tower.mlp_width, tower.width, true)?,
            activation: tower.activation,
            compute,
        },
        scale: None,
        compute,
    })
}

/// A projection without bias: `[out, in]` under `linear`, or, as open_clip has it, `[in, out]` under `right`.
pub(super) fn projection(scope: &Scope, linear: &str, right: &str, inputs: usize, outputs: usize) -> Result<Linear> {
    if scope.contains(right) {
        let weight: Tensor = scope.matrix(right, &[inputs, outputs])?;
        return Linear::new(&weight.transpose(0, 1)?, None, scope.precision().compute);
    }
    Linear::load(&scope.sub(linear), inputs, outputs, false)
}
