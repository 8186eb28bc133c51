//! The sizes of a Llama, from either generation of `config.json`.

use crate::models::config::Config;
use crate::nn::{DecoderConfig, RopeConfig, RopeScaling, Yarn};
use crate::{Error, Result};
use serde_json::Value;

/// The whole model.
#[derive(Clone, Debug)]
pub struct LlamaConfig {
    pub block: DecoderConfig,
    pub num_hidden_layers: usize,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub tie_word_embeddings: bool,
    pub rope: RopeConfig,
    /// The tensor whose values divide the frequencies (GGUF files of Llama 3).
    pub rope_factors: Option<String>,
    /// Whether rotary pairs are neighbours (GGUF files) and not half a head apart.
    pub rope_interleaved: bool,
    /// Ids that end a text.
    pub eos_token_ids: Vec<u32>,
    pub bos_token_id: Option<u32>,
    pub pad_token_id: Option<u32>,
}

impl LlamaConfig {
    /// From `config.json`; absent keys have the published defaults.
    ///
    /// # Errors
    /// A value is of the wrong type or out of range, or asks for what does not exist.
    pub fn from_json(json: &Value) -> Result<LlamaConfig> {
        let c = Config::new(json);
        let width = c.size("hidden_size", 4096)?;
        let heads_q = c.size("num_attention_heads", 32)?;
        let head_dim = match c.get("head_dim") {
            Some(_) => c.size("head_dim", 0)?,
            None if width.is_multiple_of(heads_q) => width / heads_q,
            None => return Err(Error::Config(format!("{heads_q} heads do not divide a hidden_size of {width}"))),
        };
        let max_position_embeddings = c.size("max_position_embeddings", 2048)?;
        Ok(LlamaConfig {
            block: DecoderConfig {
                width,
                heads_q,
                heads_kv: c.size("num_key_value_heads", heads_q)?,
                head_dim,
                mlp_width: c.size("intermediate_size", 11008)?,
                activation: c.activation("hidden_act", "silu")?,
                eps: c.number("rms_norm_eps", 1e-6)? as f32,
                attention_bias: c.flag("attention_bias", false)?,
                mlp_bias: c.flag("mlp_bias", false)?,
            },
            num_hidden_layers: c.size("num_hidden_layers", 32)?,
            vocab_size: c.size("vocab_size", 32000)?,
            max_position_embeddings,
            tie_word_embeddings: c.flag("tie_word_embeddings", false)?,
            rope: rope(&c, head_dim, max_position_embeddings)?,
            rope_factors: rope_factors(&c),
            rope_interleaved: c.flag("rope_interleaved", false)?,
            eos_token_ids: c.ids("eos_token_id")?,
            bos_token_id: c.ids("bos_token_id")?.first().copied(),
            pad_token_id: c.ids("pad_token_id")?.first().copied(),
        })
    }
}

/// The tensor of factors, where the scaling is given by one.
fn rope_factors(top: &Config<'_>) -> Option<String> {
    let c = top.sub("rope_scaling");
    let by_tensor = c.get("rope_type").and_then(Value::as_str) == Some("factors");
    c.get("tensor").filter(|_| by_tensor).and_then(Value::as_str).map(str::to_string)
}

/// θ and the scaling: from `rope_parameters` (new exports), or `rope_theta` and `rope_scaling`.
fn rope(top: &Config<'_>, head_dim: usize, max_positions: usize) -> Result<RopeConfig> {
    let key = if top.get("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
    let c = top.sub(key);
    let theta = c.number("rope_theta", top.number("rope_theta", 1e4)?)?;
    let kind = c.get("rope_type").or_else(|| c.get("type")).and_then(Value::as_str).unwrap_or("default");
    let factor = || match c.get("factor") {
        Some(_) => c.number("factor", 1.0),
        None => Err(Error::Config(format!("`{key}` of type {kind} needs a `factor`"))),
    };
    let original = |c: &Config<'_>| c.size("original_max_position_embeddings", max_positions);
    let scaling = match kind {
        // Factors are a tensor: see `rope_factors`.
        "default" | "factors" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: factor()? },
        "dynamic" => RopeScaling::Dynamic { factor: factor()?, max_positions },
        "llama3" => RopeScaling::Llama3 {
            factor: factor()?,
            low_freq_factor: c.number("low_freq_factor", 1.0)?,
            high_freq_factor: c.number("high_freq_factor", 4.0)?,
            original_max_positions: original(&c)?,
        },
        "yarn" => {
            let given = |key: &str| c.get(key).map(|_| c.number(key, 0.0)).transpose();
            let yarn = Yarn::new(factor()?, original(&c)?);
            RopeScaling::Yarn(Yarn {
                attention_factor: given("attention_factor")?,
                mscale: given("mscale")?,
                mscale_all_dim: given("mscale_all_dim")?,
                beta_fast: c.number("beta_fast", yarn.beta_fast)?,
                beta_slow: c.number("beta_slow", yarn.beta_slow)?,
                truncate: c.flag("truncate", yarn.truncate)?,
                ..yarn
            })
        }
        other => {
            let known = "default, linear, dynamic, llama3 and yarn";
            return Err(Error::NotSupported(format!("rope scaling `{other}`; known are {known}")));
        }
    };
    Ok(RopeConfig { theta, rotary_dim: head_dim, scaling })
}
