//! Pictures in: classes, features, scores against prompts.

use super::Args;
use crate::shared::{self, printable};
use lapidary::media::Image;
use lapidary::models::{clip::Clip, vit::Vit};
use lapidary::nn::Taps;
use lapidary::ops::softmax::softmax;
use lapidary::text::{Padding, Tokenizer};
use lapidary::{Device, Error, Result};
use serde_json::{Value, json};
use std::path::Path;

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}

/// Top classes, or features and their cosines where the checkpoint has no classifier.
pub(super) fn classify(vit: &Vit, images: &[Image], args: &Args, as_json: bool) -> Result<Value> {
    let output = vit.forward(&vit.pixel_values(images)?, false, &mut Taps::none())?;
    let names: Vec<String> = args.image.iter().map(|p| file_name(p)).collect();
    let Some(logits) = &output.logits else {
        let features = match &output.pooler_output {
            Some(pooled) => pooled.clone(),
            None => {
                let [pictures, _, width] = *output.last_hidden_state.shape() else { unreachable!("always of rank 3") };
                output.last_hidden_state.slice(1, 0..1)?.reshape(&[pictures, width])?.contiguous()?
            }
        };
        return features_report(&features.to_vec::<f32>()?, features.shape()[1], &names, as_json);
    };
    let classes = logits.shape()[1];
    let probs = softmax(logits)?.to_vec::<f32>()?;
    let mut pictures = Vec::new();
    for (name, row) in names.iter().zip(probs.chunks_exact(classes.max(1))) {
        let mut order: Vec<usize> = (0..classes).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        order.truncate(args.top);
        let label = |class: usize| vit.config().labels.get(class).cloned().unwrap_or_else(|| format!("class {class}"));
        if !as_json {
            let line = |&class: &usize| format!("  {:>7.3} %  {}\n", 100.0 * row[class], printable(&label(class)));
            shared::print(&format!("{name}\n{}", order.iter().map(line).collect::<String>()))?;
        }
        let top: Vec<Value> =
            order.iter().map(|&c| json!({"class": c, "label": label(c), "probability": row[c]})).collect();
        pictures.push(json!({"image": name, "top": top}));
    }
    Ok(json!({"task": "classify", "pictures": pictures}))
}

fn features_report(features: &[f32], width: usize, names: &[String], as_json: bool) -> Result<Value> {
    let rows: Vec<&[f32]> = features.chunks_exact(width.max(1)).collect();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    let cosine = |a: &[f32], b: &[f32]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let cosines: Vec<Vec<f64>> = rows.iter().map(|a| rows.iter().map(|b| cosine(a, b)).collect()).collect();
    if !as_json {
        let mut text = format!("features of {width} numbers; cosines:\n");
        for (name, row) in names.iter().zip(&cosines) {
            let row: Vec<String> = row.iter().map(|c| format!("{c:>7.4}")).collect();
            text.push_str(&format!("{name:<28} {}\n", row.join(" ")));
        }
        shared::print(&text)?;
    }
    Ok(json!({"task": "features", "images": names, "features": rows, "cosine": cosines}))
}

/// Pictures against prompts.
pub(super) fn score(clip: &Clip, images: &[Image], args: &Args, device: &Device, as_json: bool) -> Result<Value> {
    if args.prompt.is_empty() {
        return Err(Error::Config("a clip model scores pictures against texts: give --prompt TEXT…".into()));
    }
    let tokenizer = Tokenizer::open(&args.checkpoint)?.with_max_length(clip.config().context_length);
    let padding = match clip.config().open_clip {
        true => Padding::Length(clip.config().context_length),
        false => Padding::Longest,
    };
    let batch = tokenizer.encode_batch(&args.prompt, padding)?;
    let pixel_values = clip.pixel_values(images, device)?;
    let (image_features, _) = clip.encode_image(&pixel_values, false, &mut Taps::none())?;
    let mask = (!clip.config().open_clip).then_some(batch.attention_mask.as_slice());
    let (text_features, _) = clip.encode_text(&batch.ids, batch.shape[1], mask, &mut Taps::none())?;
    let scores = clip.score(&image_features, &text_features)?;
    let (logits, probs) = (scores.logits_per_image.to_vec::<f32>()?, scores.probs.to_vec::<f32>()?);
    let texts = args.prompt.len();
    let mut pictures = Vec::new();
    for (i, path) in args.image.iter().enumerate() {
        let name = file_name(path);
        let (logits, probs) = (&logits[i * texts..(i + 1) * texts], &probs[i * texts..(i + 1) * texts]);
        if !as_json {
            let rows = args.prompt.iter().zip(logits.iter().zip(probs));
            let line = |(t, (l, p)): (&String, (&f32, &f32))| format!("  {:>7.3} %  {l:>8.3}  {t}\n", 100.0 * p);
            shared::print(&format!("{name}\n{}", rows.map(line).collect::<String>()))?;
        }
        let rows = args.prompt.iter().zip(logits.iter().zip(probs));
        let rows: Vec<Value> = rows.map(|(t, (l, p))| json!({"prompt": t, "logit": l, "probability": p})).collect();
        pictures.push(json!({"image": name, "scores": rows}));
    }
    Ok(json!({"task": "score", "pictures": pictures}))
}
