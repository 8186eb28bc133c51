//! A prompt in: text that goes on from it, shown as it is written.

use crate::shared;
use lapidary::bench::{Peaks, Products, peak_rss_bytes, table};
use lapidary::checkpoint::Folder;
use lapidary::models::llama::Llama;
use lapidary::models::{self, writing};
use lapidary::nn::{CausalLm, GenerateOptions, Sampling};
use lapidary::text::Message;
use lapidary::{Cost, Device, Error, Result};
use serde_json::{Value, json};
use std::ops::ControlFlow;

/// How to write.
#[derive(clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Text")]
pub struct Args {
    /// Takes --prompt as what a user says, and puts it into the model's chat template.
    #[arg(long)]
    chat: bool,
    /// A built-in template instead of the model's own: vicuna, llama-2 or plain.
    #[arg(long, value_name = "NAME", requires = "chat")]
    chat_template: Option<String>,
    /// What the model is told before the user speaks.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// The most tokens to write.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// What scores are divided by; 0 always takes the best token.
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,
    /// Draws among so many of the best tokens only; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: usize,
    /// Draws among the best tokens whose probabilities first reach this sum.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Draws among tokens with at least this share of the best one's probability.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Divides positive scores of tokens that were there already, multiplies negative ones.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// The same seed draws the same tokens.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Searches with so many beams.
    #[arg(long, value_name = "N", default_value_t = 1)]
    num_beams: usize,
    /// The power of its length by which a beam's score is divided.
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    length_penalty: f32,
    /// Stops before one of these texts.
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    stop: Vec<String>,
    /// Writes on after tokens that end a text.
    #[arg(long)]
    ignore_eos: bool,
    /// Prints time to first token, tokens a second, memory, and the share of the bandwidth bound, to stderr.
    #[arg(long)]
    stats: bool,
}

pub(super) fn write(
    llama: &Llama,
    folder: &Folder,
    args: &super::Args,
    device: &Device,
    as_json: bool,
) -> Result<Value> {
    let a = &args.text;
    let [prompt] = args.prompt.as_slice() else {
        return Err(Error::Config("a decoder writes on from one text: give --prompt TEXT".into()));
    };
    let tokenizer = models::tokenizer(folder)?;
    let ids = match a.chat {
        false => writing::encode(&tokenizer, prompt, true)?,
        true => {
            let template = shared::chat_template(folder, &tokenizer, a.chat_template.as_deref())?;
            let template = template.ok_or_else(|| {
                let why =
                    "the model publishes no chat template: choose one with --chat-template (vicuna, llama-2, plain)";
                Error::Config(why.into())
            })?;
            let system = a.system.as_ref().map(|text| Message::new("system", text.as_str()));
            let messages: Vec<Message> = system.into_iter().chain([Message::new("user", prompt.as_str())]).collect();
            // The template writes the special tokens itself.
            writing::encode(&tokenizer, &template.render(&messages, true)?, false)?
        }
    };
    let ends = writing::end_ids(&tokenizer, &llama.config().eos_token_ids);
    let options = GenerateOptions {
        max_new_tokens: a.max_new_tokens,
        eos_ids: if a.ignore_eos { Vec::new() } else { ends },
        pad_id: tokenizer.pad_id().unwrap_or(0),
        sampling: Sampling {
            temperature: a.temperature,
            top_k: a.top_k,
            top_p: a.top_p,
            min_p: a.min_p,
            repetition_penalty: a.repetition_penalty,
            seed: a.seed,
        },
        num_beams: a.num_beams,
        length_penalty: a.length_penalty,
        ..GenerateOptions::default()
    };
    let mut closed = None;
    let written = writing::write(llama, &tokenizer, &ids, &options, &a.stop, &mut |piece| {
        if as_json {
            return ControlFlow::Continue(());
        }
        match shared::print(piece) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                closed = Some(e);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(e) = closed {
        return Err(e);
    }
    if !as_json {
        shared::print("\n")?;
    }
    let g = &written.generated;
    let mut report = json!({
        "task": "generate", "prompt": prompt, "prompt_ids": ids, "ids": g.ids[0], "text": written.text,
        "finish_reason": written.end.name(),
    });
    if a.stats {
        let (stats, line) = stats(llama, g, device)?;
        report["stats"] = stats;
        shared::note(&line);
    }
    Ok(report)
}

/// What the writing cost, as JSON and as a line.
fn stats(llama: &Llama, g: &lapidary::nn::Generated, device: &Device) -> Result<(Value, String)> {
    // Before the probes, which take memory of their own.
    let (rss, tensors) = (peak_rss_bytes(), device.memory().peak_bytes);
    let peaks = Peaks::measure(device)?;
    let prefill = g.prefill.as_secs_f64();
    let prompt_rate = g.prompt_tokens as f64 / prefill;
    let step = g.decode.as_secs_f64() / g.decode_steps.max(1) as f64;
    let rate = if g.decode_steps > 0 { 1.0 / step } else { 0.0 };
    let weights = llama.weight_bytes();
    // A step reads every weight; what it reads of the cache is little beside them, and not counted.
    let bound = peaks.bound(Cost { flops: 0, bytes_read: weights as u64, bytes_written: 0 }, Products::F32);
    let share = if g.decode_steps > 0 { 100.0 * bound.seconds / step } else { 0.0 };
    let json = json!({
        "prompt_tokens": g.prompt_tokens, "time_to_first_token_s": prefill, "prompt_tokens_per_s": prompt_rate,
        "new_tokens": g.ids[0].len(), "tokens_per_s": rate, "weight_bytes": weights, "cache_bytes": g.cache_bytes,
        "peak_tensor_bytes": tensors, "peak_rss_bytes": rss, "bandwidth_bound_percent": share,
        "bound_by": bound.by,
    });
    let line = format!(
        "{} prompt tokens in {:.1} ms (time to first token), {prompt_rate:.1} tokens/s; {} new ones, {rate:.1} tokens/s, {share:.0} % of \
         the {} read bound\nweights {}, cache {}, peak resident {}",
        g.prompt_tokens,
        prefill * 1e3,
        g.ids[0].len(),
        bound.by,
        table::bytes(weights as u64),
        table::bytes(g.cache_bytes as u64),
        rss.map_or("unknown".into(), table::bytes),
    );
    Ok((json, line))
}
