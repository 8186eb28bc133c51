//! Cases of CLIP, in both layouts.

use super::training::{Leaves, add_gradients};
use super::vit::preprocess;
use super::{Case, Outputs};
use crate::checkpoint::Folder;
use crate::media::ImageProcessor;
use crate::models::clip::{Clip, contrastive_loss};
use crate::nn::{Precision, Scope, Taps};
use crate::text::{Padding, Tokenizer};
use crate::{Device, Error, Result, Tensor};

pub(super) fn compute(case: &Case, device: &Device, precision: Precision) -> Result<Outputs> {
    if case.task == "preprocess" && case.checkpoint().join("config.json").is_file() {
        return preprocess(case, &Folder::open(case.checkpoint())?, ImageProcessor::clip());
    }
    if case.task == "preprocess" {
        return preprocess_alone(case);
    }
    let folder = Folder::open(case.checkpoint())?;
    let scope = Scope::new(folder.weights()?, device, precision);
    let load = || Clip::load(&scope, folder.config(), folder.preprocessor());
    let mut run = Run { case, out: Outputs::default(), taps: Taps::all() };
    match case.task.as_str() {
        "encode_image" => run.encode_image(&load()?, device, "pixel_values").map(drop)?,
        "encode_text" => run.encode_text(&load()?, "input_ids").map(drop)?,
        "score" => run.score(&load()?, device).map(drop)?,
        "loss" => {
            let leaves = Leaves::of(&folder.weights()?, device)?;
            let clip = Clip::load(&leaves.scope(scope.clone()), folder.config(), folder.preprocessor())?;
            let loss = contrastive_loss(&run.score(&clip, device)?)?;
            add_gradients(case, &mut run.out, &loss, &leaves)?;
        }
        _ => return Err(case.unsupported()),
    }
    // The two references name intermediate results in their own ways.
    let open_clip = folder.config().get("model_cfg").is_some();
    for (name, tensor) in run.taps.into_vec() {
        let name = match open_clip {
            false => format!("debug.{name}"),
            true => {
                let name = name.replace("vision.", "visual.").replace("pre_layernorm", "ln_pre");
                format!("debug.m.{}", name.replace("text.tokens", "text.embedding"))
            }
        };
        run.out.add(name, &tensor)?;
    }
    Ok(run.out)
}

struct Run<'a> {
    case: &'a Case,
    out: Outputs,
    taps: Taps,
}

impl Run<'_> {
    fn encode_image(&mut self, clip: &Clip, device: &Device, input: &str) -> Result<Tensor> {
        let pixel_values = match self.case.has_input(input) {
            true => self.case.input(input)?.tensor(device)?,
            false => {
                let pictures = self.case.pictures()?.ok_or_else(|| self.case.unsupported())?;
                clip.pixel_values(&pictures, device)?
            }
        };
        self.out.add("pixel_values", &pixel_values)?;
        let interpolate = self.case.flag("interpolate_pos_encoding");
        let (features, tower) = clip.encode_image(&pixel_values, interpolate, &mut self.taps)?;
        self.out.add("image_features", &features)?;
        self.out.add("pooler_output", &tower.pooler_output)?;
        self.out.add("last_hidden_state", &tower.last_hidden_state)?;
        Ok(features)
    }

    fn encode_text(&mut self, clip: &Clip, input: &str) -> Result<Tensor> {
        let (ids, len, mask) = match (self.case.has_input(input), self.case.texts("prompts")) {
            (true, _) => {
                let (ids, len) = self.case.ids(input)?;
                let mask = match self.case.has_input("attention_mask") {
                    true => Some(self.case.ids("attention_mask")?.0),
                    false => None,
                };
                (ids, len, mask)
            }
            (false, Some(prompts)) => {
                let padding = match self.case.text("padding") {
                    Some("max_length") => Padding::Length(clip.config().context_length),
                    _ => Padding::Longest,
                };
                let tokenizer = Tokenizer::open(self.case.checkpoint())?;
                let batch = tokenizer.encode_batch(&prompts, padding)?;
                let wide = |v: &[u32]| v.iter().map(|&x| f64::from(x)).collect();
                self.out.add_values("input_ids", wide(&batch.ids), &batch.shape);
                self.out.add_values("attention_mask", wide(&batch.attention_mask), &batch.shape);
                (batch.ids, batch.shape[1], Some(batch.attention_mask))
            }
            (false, None) => return Err(Error::file(self.case.folder(), "the case has neither ids nor prompts")),
        };
        let (features, tower) = clip.encode_text(&ids, len, mask.as_deref(), &mut self.taps)?;
        self.out.add("text_features", &features)?;
        self.out.add("pooler_output", &tower.pooler_output)?;
        self.out.add("last_hidden_state", &tower.last_hidden_state)?;
        Ok(features)
    }

    fn score(&mut self, clip: &Clip, device: &Device) -> Result<Tensor> {
        let named = |a, b| if self.case.has_input(a) { a } else { b };
        let (image, text) = (named("image", "pixel_values"), named("text", "input_ids"));
        let image_features = self.encode_image(clip, device, image)?;
        let text_features = self.encode_text(clip, text)?;
        let scores = clip.score(&image_features, &text_features)?;
        self.out.add("logits_per_image", &scores.logits_per_image)?;
        self.out.add("logits_per_text", &scores.logits_per_image.transpose(0, 1)?)?;
        self.out.add("probs", &scores.probs)?;
        self.out.add("image_embeds", &scores.image_embeds)?;
        self.out.add("text_embeds", &scores.text_embeds)?;
        Ok(scores.logits_per_image)
    }
}

/// A preprocessing case may have no model beside it.
fn preprocess_alone(case: &Case) -> Result<Outputs> {
    let path = case.checkpoint().join("preprocessor_config.json");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let processor = ImageProcessor::from_json_or(&text, ImageProcessor::clip())?;
    let pictures = case.pictures()?.ok_or_else(|| case.unsupported())?;
    let (values, shape) = processor.pixel_values(&pictures)?;
    let mut out = Outputs::default();
    out.add_values("pixel_values", values.into_iter().map(f64::from).collect(), &shape);
    Ok(out)
}
