//! What a file's metadata say of its model, as the `config.json` of a published checkpoint would.

use super::Metadata;
use crate::checkpoint::file::Entry;
use crate::{Error, Result};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Factors of the frequencies of rotary embeddings.
const ROPE_FREQS: &str = "rope_freqs.weight";

/// The configuration of a file of the architecture `llama`: the keys of the published `config.json`, and two more.
/// `rope_interleaved` is true: rotary embeddings turn adjacent pairs (2j, 2j+1), as the rows of the projections of
/// queries and keys lie in these files. And a `rope_scaling` whose `rope_type` is `factors` means: the frequency of pair
/// j is divided by value j of the tensor that `tensor` names (Llama 3's scaling, evaluated by whoever wrote the file).
///
/// # Errors
/// [`Error::NotSupported`] for another architecture, or for what no Llama here has (experts, partial rotary embeddings,
/// another scaling, a file of several); [`Error::File`] with the key of what is missing or wrong.
pub fn config(metadata: &Metadata<'_>, tensors: &BTreeMap<String, Entry>) -> Result<Json> {
    let m = metadata;
    let unsupported = |what: String| Err(Error::NotSupported(format!("{}: {what}", m.path().display())));
    let required = |key: &str| m.size(key)?.ok_or_else(|| m.wrong(key, "given"));
    match m.text("general.architecture")? {
        Some("llama") => {}
        Some(other) => {
            return unsupported(format!("models of the architecture `{other}` in GGUF files; known is llama"));
        }
        None => return Err(m.wrong("general.architecture", "given")),
    }
    if let Some(count @ 2..) = m.size("split.count")? {
        return unsupported(format!("it is one file of a model in {count}; merge them first"));
    }
    if let Some(count @ 1..) = m.size("llama.expert_count")? {
        return unsupported(format!("layers of {count} experts"));
    }
    if m.flag("llama.attention.causal")? == Some(false) {
        return unsupported("attention that is not causal".into());
    }
    let hidden_size = required("llama.embedding_length")?;
    let heads = required("llama.attention.head_count")?;
    let head_dim = match m.size("llama.attention.key_length")? {
        Some(length) => length,
        None => hidden_size.checked_div(heads).ok_or_else(|| m.wrong("llama.attention.head_count", "at least 1"))?,
    };
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        if let Some(other) = m.size(key)?.filter(|&length| length != head_dim) {
            return unsupported(format!("metadata key `{key}` of {other} where heads have {head_dim} values"));
        }
    }
    let has = |name: &str| tensors.contains_key(name);
    let rows = |name: &str| tensors.get(name).and_then(|entry| entry.shape.first().copied());
    let vocab_size = m.size("llama.vocab_size")?.or_else(|| rows("model.embed_tokens.weight"));
    let mut config = json!({
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden_size,
        "intermediate_size": required("llama.feed_forward_length")?,
        "num_hidden_layers": required("llama.block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": m.size("llama.attention.head_count_kv")?.unwrap_or(heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": m.number("llama.attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5),
        "vocab_size": vocab_size.ok_or_else(|| m.wrong("llama.vocab_size", "given"))?,
        "rope_theta": m.number("llama.rope.freq_base")?.unwrap_or(1e4),
        "rope_scaling": rope_scaling(m, has(ROPE_FREQS))?,
        "rope_interleaved": true,
        "attention_bias": has("model.layers.0.self_attn.q_proj.bias"),
        "mlp_bias": has("model.layers.0.mlp.up_proj.bias"),
        "tie_word_embeddings": !has("lm_head.weight"),
    });
    if let Some(length) = m.size("llama.context_length")? {
        config["max_position_embeddings"] = json!(length);
    }
    for (key, own) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
        if let Some(id) = m.id(&format!("tokenizer.ggml.{own}_token_id"))? {
            config[key] = json!(id);
        }
    }
    Ok(config)
}

/// The scaling of rotary embeddings, or null.
fn rope_scaling(m: &Metadata<'_>, factors: bool) -> Result<Json> {
    let unsupported = |what: &str| Err(Error::NotSupported(format!("{}: {what}", m.path().display())));
    let number = |name: &str| m.number(&format!("llama.rope.scaling.{name}"));
    let kind = m.text("llama.rope.scaling.type")?.filter(|&kind| kind != "none");
    // Old files have a number only.
    let factor = number("factor")?.or(m.number("llama.rope.scale_linear")?);
    let kind = kind.or(factor.filter(|&factor| factor != 1.0).map(|_| "linear"));
    let factor = || factor.ok_or_else(|| m.wrong("llama.rope.scaling.factor", "given"));
    let scaling = match kind {
        None if factors => return Ok(json!({"rope_type": "factors", "tensor": ROPE_FREQS})),
        None => return Ok(Json::Null),
        Some("linear") => json!({"rope_type": "linear", "factor": factor()?}),
        Some("yarn") => {
            let factor = factor()?;
            let mut scaling = json!({"rope_type": "yarn", "factor": factor});
            if let Some(length) = m.size("llama.rope.scaling.original_context_length")? {
                scaling["original_max_position_embeddings"] = json!(length);
            }
            // There it multiplies what YaRN takes by itself; in a configuration it replaces it.
            if let Some(attention) = number("yarn_attn_factor")?.or(number("attn_factor")?).filter(|&x| x != 1.0) {
                scaling["attention_factor"] = json!(attention * (0.1 * factor.ln() + 1.0));
            }
            for (key, own) in [("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")] {
                if let Some(x) = number(own)? {
                    scaling[key] = json!(x);
                }
            }
            scaling
        }
        Some(other) => return unsupported(&format!("scaling of rotary embeddings of the kind `{other}`")),
    };
    if factors {
        return unsupported(&format!("scaling of rotary embeddings by `{ROPE_FREQS}` and by the metadata at once"));
    }
    Ok(scaling)
}
