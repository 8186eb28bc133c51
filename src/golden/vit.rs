//! Cases of ViT and DINOv2.

use super::{Case, Outputs};
use crate::checkpoint::Folder;
use crate::media::ImageProcessor;
use crate::models::vit::Vit;
use crate::nn::{Precision, Scope, Taps};
use crate::{Device, Result, Tensor};

pub(super) fn compute(case: &Case, device: &Device, precision: Precision) -> Result<Outputs> {
    let folder = Folder::open(case.checkpoint())?;
    let mut out = Outputs::default();
    match case.task.as_str() {
        "preprocess" => return preprocess(case, &folder, ImageProcessor::vit()),
        "forward" | "encode_image" => {}
        _ => return Err(case.unsupported()),
    }
    let scope = Scope::new(folder.weights()?, device, precision);
    let vit = Vit::load(&scope, folder.config(), folder.preprocessor())?;
    let pictures = case.pictures()?;
    let pixel_values = match (&pictures, case.has_input("pixel_values")) {
        (_, true) => case.input("pixel_values")?.tensor(device)?,
        (Some(pictures), false) => vit.pixel_values(pictures)?,
        (None, false) => return Err(case.unsupported()),
    };
    out.add("pixel_values", &pixel_values)?;
    let mut taps = Taps::all();
    let got = vit.forward(&pixel_values, case.flag("interpolate_pos_encoding"), &mut taps)?;
    out.add("last_hidden_state", &got.last_hidden_state)?;
    if let Some(logits) = &got.logits {
        out.add("logits", logits)?;
    }
    if let Some(pooled) = &got.pooler_output {
        out.add("pooler_output", pooled)?;
    }
    for (name, tensor) in taps.into_vec() {
        out.add(format!("debug.{name}"), &tensor)?;
    }
    if let (Some(pictures), true) = (&pictures, case.wants("cls_all_pictures")) {
        let mut rows = Vec::new();
        for picture in pictures {
            rows.push(vit.features(&vit.pixel_values(std::slice::from_ref(picture))?)?.to_vec::<f32>()?);
        }
        let width = rows[0].len();
        let shape = [rows.len(), width];
        let cosines = rows.iter().flat_map(|a| rows.iter().map(|b| cosine(a, b))).collect();
        out.add_values("cosine", cosines, &[rows.len(), rows.len()]);
        out.add_values("cls_all_pictures", rows.concat().into_iter().map(f64::from).collect(), &shape);
    }
    Ok(out)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Pictures to a model's input, without the model.
pub(super) fn preprocess(case: &Case, folder: &Folder, unnamed: ImageProcessor) -> Result<Outputs> {
    let processor = match folder.preprocessor() {
        Some(text) => ImageProcessor::from_json_or(text, unnamed)?,
        None => unnamed,
    };
    let pictures = case.pictures()?.ok_or_else(|| case.unsupported())?;
    let (values, shape) = processor.pixel_values(&pictures)?;
    let mut out = Outputs::default();
    let device = Device::cpu_with_threads(1)?;
    out.add("pixel_values", &Tensor::from_slice(&device, &values, &shape)?)?;
    Ok(out)
}
