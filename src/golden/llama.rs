//! Cases of Llama.

use super::training::{Leaves, add_gradients};
use super::{Case, Outputs};
use crate::checkpoint::Folder;
use crate::models::llama::{Call, Llama};
use crate::nn::{CausalLm, GenerateOptions, Precision, Prompt, Sampling, Scope, Taps, Tokens, generate};
use crate::text::Tokenizer;
use crate::{Device, Error, Result};
use std::ops::ControlFlow;

pub(super) fn compute(case: &Case, device: &Device, precision: Precision) -> Result<Outputs> {
    let folder = Folder::open(case.checkpoint())?;
    let scope = Scope::new(folder.weights()?, device, precision);
    let mut out = Outputs::default();
    match case.task.as_str() {
        "forward" => {
            let llama = Llama::load(&scope, folder.config())?;
            let (ids, len) = case.ids("input_ids")?;
            let mut taps = Taps::all();
            let (positions, mask) = (case.ids_or_none("position_ids")?, case.ids_or_none("attention_mask")?);
            let last = case.size("last_positions").ok();
            let mut call =
                Call { position_ids: positions.as_deref(), attention_mask: mask.as_deref(), last, ..Call::default() };
            out.add("logits", &llama.forward(&ids, len, &mut call, &mut taps)?)?;
            for (name, tensor) in taps.into_vec() {
                out.add(format!("debug.{name}"), &tensor)?;
            }
        }
        "generate" => write(case, &Llama::load(&scope, folder.config())?, &folder, &mut out)?,
        "loss" => {
            let leaves = Leaves::of(&folder.weights()?, device)?;
            let llama = Llama::load(&leaves.scope(scope), folder.config())?;
            let (ids, len) = case.ids("input_ids")?;
            let labels = case.input("labels")?.to_vec::<i32>()?;
            let mask = case.ids_or_none("attention_mask")?;
            let mut call = Call { attention_mask: mask.as_deref(), ..Call::default() };
            let (loss, logits) = llama.loss(&ids, &labels, len, &mut call)?;
            out.add("logits", &logits)?;
            add_gradients(case, &mut out, &loss, &leaves)?;
        }
        _ => return Err(case.unsupported()),
    }
    Ok(out)
}

/// Ids (or a text) in, new ids out.
pub(super) fn write(case: &Case, model: &dyn CausalLm, folder: &Folder, out: &mut Outputs) -> Result<()> {
    let wide = |v: &[u32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let tokenizer = match case.text("prompt") {
        Some(_) => Some(Tokenizer::open(case.checkpoint())?),
        None => None,
    };
    let (ids, len) = match (&tokenizer, case.text("prompt")) {
        (Some(tokenizer), Some(prompt)) => {
            let ids = tokenizer.encode(prompt, true)?;
            out.add_values("input_ids", wide(&ids), &[1, ids.len()]);
            let len = ids.len();
            (ids, len)
        }
        _ => case.ids("input_ids")?,
    };
    let batch = ids.len() / len.max(1);
    let mask = case.ids_or_none("attention_mask")?;
    let eos_ids = case.token_ids("eos_token_id", folder)?;
    let pad_id = case.token_ids("pad_token_id", folder)?.first().or(eos_ids.first()).copied().unwrap_or(0);
    let number = |key: &str, default: f64| case.options.get(key).and_then(serde_json::Value::as_f64).unwrap_or(default);
    let options = GenerateOptions {
        max_new_tokens: case.size("max_new_tokens")?,
        eos_ids,
        pad_id,
        num_beams: number("num_beams", 1.0) as usize,
        length_penalty: number("length_penalty", 1.0) as f32,
        sampling: Sampling { repetition_penalty: number("repetition_penalty", 1.0) as f32, ..Sampling::default() },
        ..GenerateOptions::default()
    };
    let prompt = Prompt { tokens: Tokens::Ids(&ids), len, position_ids: None, attention_mask: mask.as_deref() };
    let vocabulary = model.vocab_size();
    let mut steps: Vec<Vec<f32>> = Vec::new();
    let mut broken = None;
    let generated = generate(model, &prompt, batch, &options, &mut |step| match step.logits.to_vec::<f32>() {
        Ok(logits) => {
            steps.push(logits);
            ControlFlow::Continue(())
        }
        Err(e) => {
            broken = Some(e);
            ControlFlow::Break(())
        }
    })?;
    if let Some(e) = broken {
        return Err(e);
    }
    let (new, count) = generated.padded(pad_id);
    if let (Some(tokenizer), Some(want)) = (&tokenizer, case.text("decoded")) {
        let got = tokenizer.decode(&new, true)?;
        if got != want {
            return Err(Error::file(case.folder(), format!("the new ids are read as `{got}`, not as `{want}`")));
        }
    }
    out.add_values("generated_ids", wide(&new), &[batch, count]);
    if let Some(first) = steps.first() {
        let values = first.iter().map(|&x| f64::from(x)).collect();
        out.add_values("debug.first_step_logits", values, &[batch, vocabulary]);
        // [steps][batch][vocabulary] to [batch, steps, vocabulary].
        let row = |b: usize, step: &Vec<f32>| step[b * vocabulary..(b + 1) * vocabulary].to_vec();
        let all = (0..batch).flat_map(|b| steps.iter().flat_map(move |s| row(b, s))).map(f64::from).collect();
        out.add_values("step_logits", all, &[batch, steps.len(), vocabulary]);
    }
    Ok(())
}
