//! `run`: a checkpoint does its natural task on pictures and prompts.

mod pictures;
mod text;

use crate::shared::{self, Shared, Status};
use lapidary::bench::{peak_rss_bytes, table};
use lapidary::checkpoint::Folder;
use lapidary::media::Image;
use lapidary::models::{self, Family, Model};
use lapidary::nn::Precision;
use lapidary::{DType, Error, Result, no_grad, profile};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Does a checkpoint's natural task: top classes (ViT), features (DINOv2), scores of pictures against prompts (CLIP), text
/// (Llama)
#[derive(clap::Args)]
pub struct Args {
    /// A model's folder: config.json, weights, and what else it was published with; or a GGUF file.
    checkpoint: PathBuf,
    /// Pictures (PNG or JPEG).
    #[arg(long, num_args = 1.., value_name = "FILE")]
    image: Vec<PathBuf>,
    /// Texts; one that a decoder writes on from.
    #[arg(long, num_args = 1.., value_name = "TEXT")]
    prompt: Vec<String>,
    /// What inputs of matrix products are rounded to: f32, bf16 or f16.
    #[arg(long, default_value = "f32")]
    dtype: DType,
    /// How many classes to print.
    #[arg(long, default_value_t = 5)]
    top: usize,
    #[command(flatten)]
    text: text::Args,
    /// Prints where the time of the forward passes went, to stderr.
    #[arg(long)]
    profile: bool,
    /// Writes the forward passes as a trace for Chrome or Perfetto.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

pub fn run(args: &Args, shared: &Shared) -> Result<Status> {
    let device = &shared.device()?;
    let _pause = no_grad();
    let images: Vec<Image> = args.image.iter().map(Image::open).collect::<Result<_>>()?;
    let precision = Precision::compute_in(args.dtype)?;
    let began = Instant::now();
    let folder = Folder::open(&args.checkpoint)?;
    if images.is_empty() && Family::of(folder.config())? != Family::Llama {
        return Err(Error::Config("no pictures: give --image FILE…".into()));
    }
    let spinner = shared::spinner("loading weights");
    let model = models::load(&folder, device, precision)?;
    spinner.finish_and_clear();
    let loaded = began.elapsed().as_secs_f64();
    device.profiler().enable(args.profile || args.trace.is_some());
    device.reset_peak_memory();
    let weights = device.memory().current_bytes;
    let began = Instant::now();
    let mut report = match &model {
        Model::Vit(vit) if args.prompt.is_empty() => pictures::classify(vit, &images, args, shared.json)?,
        Model::Vit(_) => return Err(Error::Config("a vit model takes pictures only, no --prompt".into())),
        Model::Clip(clip) => pictures::score(clip, &images, args, device, shared.json)?,
        Model::Llama(llama) if images.is_empty() => text::write(llama, &folder, args, device, shared.json)?,
        Model::Llama(_) => return Err(Error::Config("a llama model takes text only, no --image".into())),
    };
    device.synchronise()?;
    let seconds = began.elapsed().as_secs_f64();
    let tensors = device.memory().peak_bytes - weights;
    // Statistics of a text end with probes that take memory of their own; they say what it was before.
    let rss = report["stats"]["peak_rss_bytes"].as_u64().or_else(peak_rss_bytes);
    let events = device.profiler().take();
    if args.profile {
        shared::note(&profile::table(&events));
    }
    if let Some(path) = &args.trace {
        std::fs::write(path, profile::chrome_trace(&events).to_string()).map_err(|e| Error::io(path, e))?;
    }
    if shared.json {
        report["precision"] = json!(precision.to_string());
        report["load_s"] = json!(loaded);
        report["seconds"] = json!(seconds);
        report["weight_mb"] = json!(table::megabytes(weights as u64));
        report["peak_tensor_mb"] = json!(table::megabytes(tensors as u64));
        report["peak_rss_mb"] = json!(rss.map(table::megabytes));
        shared::print(&format!("{report}\n"))?;
    } else {
        let what = if images.is_empty() { "text".into() } else { format!("{} picture(s)", images.len()) };
        shared::note(&format!(
            "{precision}; loaded in {loaded:.2} s; {what} in {:.1} ms; at most {} of tensors beside {} of weights, {} resident",
            seconds * 1e3,
            table::bytes(tensors as u64),
            table::bytes(weights as u64),
            rss.map_or("an unknown amount".into(), table::bytes),
        ));
    }
    Ok(Status::Success)
}
