//! Names of tensors: those of the Llama family's published checkpoints instead of GGUF's own.
//!
//! The rule: in a file of the architecture `llama`, a tensor that has a name in the published checkpoints has that name
//! and no other; every other tensor keeps its own. The rows of the projections of queries and keys stay where the file has
//! them: in the order that rotates adjacent pairs.

use super::{Index, Metadata};
use crate::checkpoint::file::Entry;
use crate::checkpoint::safetensors::shown;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Names without `.weight` or `.bias` behind them.
const WHOLE: &[(&str, &str)] =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// Names inside of a layer: `blk.N` there, `model.layers.N` here.
const LAYER: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The tensors of a parsed file whose content is `bytes`, under their published names.
///
/// # Errors
/// [`Error::File`] where two tensors would get one name, or `general.architecture` is not a text.
pub fn published_names(path: &Path, bytes: &[u8], index: &Index) -> Result<BTreeMap<String, Entry>> {
    let metadata = Metadata::new(path, bytes, &index.metadata);
    if metadata.text("general.architecture")? != Some("llama") {
        return Ok(index.tensors.clone());
    }
    let mut tensors = BTreeMap::new();
    for (name, entry) in &index.tensors {
        let published = published(name).unwrap_or_else(|| name.clone());
        if tensors.insert(published.clone(), entry.clone()).is_some() {
            return Err(Error::file(path, format!("tensor {} is there under two names", shown(&published))));
        }
    }
    Ok(tensors)
}

fn published(name: &str) -> Option<String> {
    let (stem, kind) = name.rsplit_once('.').filter(|(_, kind)| ["weight", "bias"].contains(kind))?;
    let find = |table: &[(&str, &'static str)], stem: &str| table.iter().find(|(own, _)| *own == stem).map(|row| row.1);
    if let Some(whole) = find(WHOLE, stem) {
        return Some(format!("{whole}.{kind}"));
    }
    let (layer, stem) = stem.strip_prefix("blk.")?.split_once('.')?;
    let digits = !layer.is_empty() && layer.bytes().all(|b| b.is_ascii_digit());
    let found = find(LAYER, stem).filter(|_| digits)?;
    Some(format!("model.layers.{layer}.{found}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_names_are_the_published_ones() {
        for (own, want) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output.weight", "lm_head.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("blk.12.attn_q.weight", "model.layers.12.self_attn.q_proj.weight"),
            ("blk.0.attn_output.bias", "model.layers.0.self_attn.o_proj.bias"),
            ("blk.3.ffn_norm.weight", "model.layers.3.post_attention_layernorm.weight"),
            ("blk.3.attn_norm.weight", "model.layers.3.input_layernorm.weight"),
            ("blk.3.ffn_down.weight", "model.layers.3.mlp.down_proj.weight"),
        ] {
            assert_eq!(published(own).as_deref(), Some(want));
        }
        for own in ["rope_freqs.weight", "blk.x.attn_q.weight", "blk.1.ffn_gate_exps.weight", "blk.1.attn_q", "output"]
        {
            assert_eq!(published(own), None, "{own}");
        }
    }
}
