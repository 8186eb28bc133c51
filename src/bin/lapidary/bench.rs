//! `lapidary bench`.

use crate::shared::{self, Shared, Status, note, print};
use lapidary::bench::{Call, Line, Options, Preset, Stop, Style, cases, gpu_calls, parse_call, report, time};
use lapidary::checkpoint::Folder;
use lapidary::models::{self, Model};
use lapidary::nn::{CausalLm, KvCache, Precision, Prompt, Taps, Tokens};
use lapidary::ops::Class;
use lapidary::{DType, Device, Error, Result, Tensor, no_grad};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Check problems, time them, and hold the times against the device's measured limits
///
/// Without a choice: every case of a model's shape. GFLOP/s and GB/s are at the median (in JSON: of the fastest run, as
/// other libraries' benches print them), ±% is half the distance from the 10th to the 90th percentile.
#[derive(clap::Args)]
pub struct Args {
    /// Ops whose name has a match of this regular expression
    #[arg(long, value_name = "RE")]
    op: Option<String>,

    /// Cases whose name or problem has a match of this regular expression
    #[arg(long, value_name = "RE")]
    case: Option<String>,

    /// A set of cases
    #[arg(long, value_enum)]
    preset: Option<Choice>,

    /// A problem as a profile prints it, such as 'softmax(rows=577,cols=1024)'
    #[arg(long, value_name = "TEXT", num_args = 1.., conflicts_with_all = ["op", "case", "preset"])]
    problem: Vec<String>,

    /// A model's folder or GGUF file: times its forward pass on a random picture instead (ViT, DINOv2, or CLIP's vision
    /// tower), or 512 tokens of a prompt and 8 tokens after 64 (Llama)
    #[arg(long, value_name = "DIR", conflicts_with_all = ["op", "case", "preset", "problem", "row"])]
    checkpoint: Option<PathBuf>,

    /// Pictures of a forward pass
    #[arg(long, value_name = "N", default_value_t = 1, requires = "checkpoint")]
    batch: usize,

    /// What inputs of the model's matrix products are rounded to: f32, bf16 or f16
    #[arg(long, default_value = "f32", requires = "checkpoint")]
    dtype: DType,

    /// A kernel by name; problems that it does not take are left out
    #[arg(long, value_name = "NAME")]
    row: Option<String>,

    /// Print what each kernel did: instructions, sectors, bank conflicts (device emulator)
    #[arg(long)]
    meter: bool,

    /// Seconds to spend on a measurement that does not settle earlier
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    budget: f64,

    /// Write 256 MiB of other memory before each run, so that operands come out of no cache
    #[arg(long)]
    cold: bool,

    /// The least number of runs
    #[arg(long, value_name = "N", default_value_t = 5)]
    min_runs: usize,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Choice {
    /// Cases that benches of other libraries have under the same names
    Peers,
    /// What `lapidary` shows without a command
    Headline,
    /// Cases that fill a large GPU, under the names of other libraries' benches
    Gpu,
}

pub fn run(args: &Args, shared: &Shared) -> Result<Status> {
    let budget = Duration::try_from_secs_f64(args.budget)
        .ok()
        .filter(|b| *b <= Duration::from_secs(86_400))
        .ok_or_else(|| Error::parse("--budget", args.budget.to_string(), "takes 0 to 86400 seconds"))?;
    let stop = Stop { min_runs: args.min_runs.max(1), budget, cold: args.cold, ..Stop::default() };
    let devices = shared.devices()?;
    if let Some(folder) = &args.checkpoint {
        return devices
            .iter()
            .try_for_each(|d| model(folder, args.batch, args.dtype, d, stop, shared.json))
            .map(|()| Status::Success);
    }
    let mut calls = chosen(args)?;
    if args.problem.is_empty() {
        calls = Call::for_device(calls, &devices[0]);
        calls.retain(|call| call.kernel(&devices[0], None).map_err(|e| note(&format!("left out: {e}"))).is_ok());
    }
    if let (Some(row), true) = (&args.row, args.problem.is_empty()) {
        calls.retain(|call| call.kernel(&devices[0], Some(row)).is_ok());
        if calls.is_empty() {
            return Err(Error::parse("--row", row, "no kernel of this name takes any of the problems"));
        }
    }
    let status = bench(&calls, &devices, Options { stop, row: args.row.as_deref() }, shared.json)?;
    shared::print_meter(args.meter, &devices[0])?;
    Ok(status)
}

/// Times forward passes of a model, weights packed before; a line each.
fn model(path: &Path, batch: usize, dtype: DType, device: &Device, stop: Stop, json: bool) -> Result<()> {
    let _pause = no_grad();
    let folder = Folder::open(path)?;
    let model = models::load(&folder, device, Precision::compute_in(dtype)?)?;
    let (name, [height, width]) = match &model {
        Model::Vit(vit) => ("vit", vit.config().image_size),
        Model::Clip(clip) => ("clip_vision", [clip.config().image_size; 2]),
        Model::Llama(llama) => return decoder(&**llama, path, batch, device, stop, json),
    };
    let count = [batch, 3, height, width].iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= 1 << 28);
    let count = count.ok_or_else(|| Error::parse("--batch", batch.to_string(), "too many pictures"))?;
    let wave: Vec<f32> = (0..count).map(|i| ((i as f32 * 12.9898).sin() * 43_758.547).fract()).collect();
    let pixels = Tensor::from_slice(device, &wave, &[batch, 3, height, width])?;
    let t = time(device, stop, || match &model {
        Model::Vit(vit) => vit.forward(&pixels, false, &mut Taps::none()).map(drop),
        Model::Clip(clip) => clip.encode_image(&pixels, false, &mut Taps::none()).map(drop),
        Model::Llama(_) => Ok(()),
    })?;
    let (on, case) = (device.describe(), format!("{name}_{width}/b{batch}"));
    if json {
        let line = serde_json::json!({
            "peer": "lapidary", "version": env!("CARGO_PKG_VERSION"), "case": case, "device": on, "dtype": dtype.name(),
            "median_s": t.median, "min_s": t.min, "p10_s": t.p10, "p90_s": t.p90, "runs": t.runs, "cpu_s": t.cpu,
            "images_s": batch as f64 / t.min,
        });
        return print(&format!("{line}\n"));
    }
    let [median, min, p90] = [t.median, t.min, t.p90].map(|s| s * 1e3);
    print(&format!("{case}: median {median:.2} ms, min {min:.2}, p90 {p90:.2}, {} runs; {on}\n", t.runs))
}

/// A prompt of 512 tokens, and 8 steps after one of 64, as benches of other libraries take them.
fn decoder(model: &dyn CausalLm, path: &Path, batch: usize, device: &Device, stop: Stop, json: bool) -> Result<()> {
    let name = path.file_stem().map_or("llama".into(), |s| s.to_string_lossy().into_owned());
    let vocabulary = model.vocab_size().min(32000);
    let ids: Vec<u32> = (0..512 * batch).map(|i| (i * 7919 % vocabulary) as u32).collect();
    let feed = |cache: &mut KvCache, ids: &[u32]| {
        let (tokens, len) = (Tokens::Ids(ids), ids.len() / batch);
        model.last_logits(&Prompt { tokens, len, position_ids: None, attention_mask: None }, cache).map(drop)
    };
    let mut cache = model.new_cache(batch);
    let prefill = time(device, stop, || {
        cache.truncate(0);
        feed(&mut cache, &ids)
    })?;
    cache.truncate(0);
    feed(&mut cache, &ids[..64 * batch])?;
    let decode = time(device, stop, || {
        cache.truncate(64);
        (0..8).try_for_each(|i| feed(&mut cache, &ids[i * batch..(i + 1) * batch]))
    })?;
    for (case, tokens, t) in [("prefill512", 512 * batch, prefill), ("decode", 8 * batch, decode)] {
        let rate = tokens as f64 / t.min;
        if json {
            let line = serde_json::json!({
                "peer": "lapidary", "version": env!("CARGO_PKG_VERSION"), "case": format!("{name}/{case}"),
                "device": device.describe(), "median_s": t.median, "min_s": t.min, "p10_s": t.p10, "p90_s": t.p90,
                "runs": t.runs, "cpu_s": t.cpu, "tok_s": rate,
            });
            print(&format!("{line}\n"))?;
        } else {
            let [median, min] = [t.median, t.min].map(|s| s * 1e3);
            let on = device.describe();
            let per = tokens as f64 / t.median;
            print(&format!(
                "{name}/{case}: {rate:.1} tokens/s at best, {per:.1} at the median ({median:.2} ms, min {min:.2}, {} runs); {on}\n",
                t.runs
            ))?;
        }
    }
    Ok(())
}

fn chosen(args: &Args) -> Result<Vec<Call>> {
    if !args.problem.is_empty() {
        return args.problem.iter().map(|text| parse_call(text)).collect();
    }
    let (op, case) = (shared::pattern(args.op.as_deref())?, shared::pattern(args.case.as_deref())?);
    let preset = match args.preset {
        Some(Choice::Gpu) => {
            let mut calls = gpu_calls()?;
            calls.retain(|c| op.matches(c.problem.name()) && case.matches(c.case));
            return Ok(calls);
        }
        Some(Choice::Peers) => Some(Preset::Peers),
        Some(Choice::Headline) => Some(Preset::Headline),
        None => None,
    };
    let mut all = cases(&op, &case)?;
    match preset {
        Some(preset) => all = preset.choose(all),
        None if args.case.is_none() => all.retain(|c| c.class == Class::Model),
        None => {}
    }
    if all.is_empty() {
        return Err(Error::Config("the preset has none of the cases that --op and --case choose".into()));
    }
    Ok(all.into_iter().map(Call::from).collect())
}

/// Prints a report with a progress bar beside it.
pub fn bench(calls: &[Call], devices: &[Device], options: Options<'_>, json: bool) -> Result<Status> {
    let bar = shared::progress((calls.len() * devices.len()) as u64, "problems");
    let style = if json { Style::Json } else { Style::Table };
    let wrong = report(calls, devices, options, style, &mut |line| {
        bar.tick();
        bar.suspend(|| match &line {
            Line::Note(text) if json => {
                note(text);
                Ok(())
            }
            Line::Note(text) | Line::Head(text) | Line::Row(text) => print(&format!("{text}\n")),
        })?;
        if matches!(line, Line::Row(_)) {
            bar.inc(1);
        }
        Ok(())
    });
    bar.finish_and_clear();
    let wrong = wrong?;
    wrong.iter().for_each(|e| note(&format!("error: {e}")));
    Ok(Status::passed(wrong.is_empty()))
}
