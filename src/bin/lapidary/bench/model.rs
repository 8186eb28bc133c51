//! `lapidary bench --checkpoint`: whole models, under the names that benches of other libraries have for them.

use crate::shared::{Status, print};
use lapidary::bench::table::{bytes, megabytes, seconds};
use lapidary::bench::{Peaks, Products, Stop, peak_rss_bytes, reset_peak_rss, time};
use lapidary::checkpoint::{Checkpoint, Folder, StoredDType};
use lapidary::models::{self, Model};
use lapidary::nn::{CausalLm, KvCache, Precision, Prompt, Taps, Tokens};
use lapidary::profile::What;
use lapidary::{Cost, DType, Device, Error, Result, Tensor, no_grad};
use serde_json::json;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Models")]
pub struct Args {
    /// A model's folder or GGUF file: times its forward pass on a random picture instead (ViT, DINOv2, or CLIP's vision
    /// tower), or 512 tokens of a prompt and 8 tokens after 64 (Llama)
    #[arg(long, value_name = "DIR", conflicts_with_all = ["op", "case", "preset", "problem", "row"])]
    pub checkpoint: Option<PathBuf>,

    /// Pictures of a forward pass, or texts
    #[arg(long, value_name = "N", default_value_t = 1, requires = "checkpoint", value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,

    /// What inputs of the model's matrix products are rounded to: f32, bf16 or f16
    #[arg(long, default_value = "f32", requires = "checkpoint")]
    dtype: DType,

    /// What to call the model [default: by its sizes, as in vit_b16_224]
    #[arg(long, value_name = "NAME", requires = "checkpoint")]
    name: Option<String>,

    /// Times nothing but the first result, from the start of the program on (a prompt of 64 tokens), and prints FIRST
    #[arg(long, requires = "checkpoint")]
    once: bool,
}

/// Times a model on devices, one after the other. The program began at `began`.
pub fn run(path: &Path, args: &Args, devices: Vec<Device>, began: Instant, stop: Stop, json: bool) -> Result<Status> {
    let _pause = no_grad();
    let folder = Folder::open(path)?;
    for device in devices {
        // Not even the memory of the last device is kept, so that the peak is that of this one.
        on_device(&folder, args, &device, began, stop, json)?;
    }
    Ok(Status::Success)
}

fn on_device(folder: &Folder, args: &Args, device: &Device, began: Instant, stop: Stop, json: bool) -> Result<()> {
    let precision = Precision::compute_in(args.dtype)?;
    let peaks = if args.once { None } else { Some(Peaks::measure(device)?) };
    let rss_is_ours = args.once || reset_peak_rss();
    let model = models::load(folder, device, precision)?;
    let weights = folder.weights()?;
    let name = args.name.clone().unwrap_or_else(|| name(&model, folder, weights.checkpoint()));
    let batch = usize::from(args.batch);
    let weight_bytes = match &model {
        Model::Llama(llama) => llama.weight_bytes(),
        _ => device.memory().current_bytes,
    };
    let stored = most_common(weights.checkpoint());
    let products = match (stored, args.dtype) {
        (StoredDType::Blocks(_), _) => Products::Bytes,
        (_, DType::BF16) => Products::Bf16,
        (_, DType::F16) => Products::F16,
        _ => Products::F32,
    };
    let bench = Bench {
        device,
        began,
        peaks,
        stop,
        json,
        name,
        dtype: precision.weights.filter(|_| products != Products::Bytes).map_or(stored.name(), DType::name),
        compute: args.dtype,
        products,
        weight_bytes,
        rss_is_ours,
    };
    let [height, width] = match &model {
        Model::Vit(vit) => vit.config().image_size,
        Model::Clip(clip) => [clip.config().image_size; 2],
        Model::Llama(llama) => return decoder(&bench, &**llama, batch),
    };
    let count = [batch, 3, height, width].iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= 1 << 28);
    let count = count.ok_or_else(|| Error::parse("--batch", batch.to_string(), "too many pictures"))?;
    let wave: Vec<f32> = (0..count).map(|i| ((i as f32 * 12.9898).sin() * 43_758.547).fract()).collect();
    let pixels = Tensor::from_slice(device, &wave, &[batch, 3, height, width])?;
    bench.pass(&format!("b{batch}"), ("images_s", batch), 1, &mut || match &model {
        Model::Vit(vit) => vit.forward(&pixels, false, &mut Taps::none()).map(drop),
        Model::Clip(clip) => clip.encode_image(&pixels, false, &mut Taps::none()).map(drop),
        Model::Llama(_) => Ok(()),
    })
}

/// A prompt of 512 tokens, and 8 steps after one of 64, as benches of other libraries take them.
fn decoder(bench: &Bench<'_>, model: &dyn CausalLm, batch: usize) -> Result<()> {
    const STEPS: usize = 8;
    let vocabulary = model.vocab_size().min(32000);
    let ids: Vec<u32> = (0..512 * batch).map(|i| (i * 7919 % vocabulary) as u32).collect();
    let cache = RefCell::new(model.new_cache(batch));
    let feed = |cache: &mut KvCache, ids: &[u32]| {
        let (tokens, len) = (Tokens::Ids(ids), ids.len() / batch);
        model.last_logits(&Prompt { tokens, len, position_ids: None, attention_mask: None }, cache).map(drop)
    };
    let prompt = |ids: &[u32]| {
        let mut cache = cache.borrow_mut();
        cache.truncate(0);
        feed(&mut cache, ids)
    };
    if bench.peaks.is_none() {
        return bench.pass("", ("tok_s", 64 * batch), 1, &mut || prompt(&ids[..64 * batch]));
    }
    bench.pass("prefill512", ("tok_s", 512 * batch), 1, &mut || prompt(&ids))?;
    prompt(&ids[..64 * batch])?;
    bench.pass("decode", ("tok_s", STEPS * batch), STEPS, &mut || {
        let mut cache = cache.borrow_mut();
        cache.truncate(64);
        (0..STEPS).try_for_each(|i| feed(&mut cache, &ids[i * batch..(i + 1) * batch]))
    })
}

/// A loaded model, and how it is timed.
struct Bench<'a> {
    device: &'a Device,
    began: Instant,
    /// `None` where only the first result is wanted.
    peaks: Option<Peaks>,
    stop: Stop,
    json: bool,
    name: String,
    /// What matrices are stored in.
    dtype: &'static str,
    /// What they are multiplied by.
    compute: DType,
    products: Products,
    weight_bytes: usize,
    /// Whether the peak of resident memory is that of this model.
    rss_is_ours: bool,
}

impl Bench<'_> {
    /// Times a pass, which makes `items` of what is counted in `unit` and reads every weight in each of its `steps`.
    fn pass(
        &self,
        case: &str,
        (unit, items): (&str, usize),
        steps: usize,
        work: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        self.device.reset_peak_memory();
        let before = self.device.memory().current_bytes;
        work()?;
        self.device.synchronise()?;
        let first = self.began.elapsed().as_secs_f64();
        let tensors = self.device.memory().peak_bytes - before;
        let rss = peak_rss_bytes().filter(|_| self.rss_is_ours);
        let memory = format!(
            "at most {} of tensors beside {} of weights, {} resident",
            bytes(tensors as u64),
            bytes(self.weight_bytes as u64),
            rss.map_or("an unknown amount".into(), bytes)
        );
        let mut line = json!({
            "peer": "lapidary", "version": env!("CARGO_PKG_VERSION"), "device": self.device.describe(),
            "dtype": self.dtype, "compute": self.compute.name(), "peak_tensor_mb": megabytes(tensors as u64),
            "peak_rss_mb": rss.map(megabytes),
        });
        let Some(peaks) = &self.peaks else {
            let text = format!("FIRST result of {} after {}; {memory}", self.name, seconds(first));
            line["case"] = json!(format!("startup/{}", self.name));
            line["median_s"] = json!(first);
            return print(&if self.json { format!("{line}\n") } else { format!("{text}\n") });
        };
        let flops = self.flops(work)?;
        let t = time(self.device, self.stop, &mut *work)?;
        let step = Cost { flops: flops / steps as u64, bytes_read: self.weight_bytes as u64, bytes_written: 0 };
        let bound = peaks.bound(step, self.products);
        let percent = 100.0 * bound.seconds * steps as f64 / t.median;
        let case = format!("{}/{case}", self.name);
        if !self.json {
            let (rate, what) = (items as f64 / t.min, unit.trim_end_matches("_s").replace("tok", "tokens"));
            return print(&format!(
                "{case} {}: {rate:.1} {what}/s at best, {:.1} at the median ({}, min {}, {} runs), {percent:.0} % of the {} bound; {memory}; \
                 {}\n",
                self.dtype,
                items as f64 / t.median,
                seconds(t.median),
                seconds(t.min),
                t.runs,
                bound.by,
                self.device.describe()
            ));
        }
        let more = json!({
            "case": case, "threads": peaks.threads, "median_s": t.median, "min_s": t.min, "p10_s": t.p10, "p90_s": t.p90,
            "runs": t.runs, "cpu_s": t.cpu, "gflops": flops as f64 / t.min / 1e9,
            "gbs": (steps * self.weight_bytes) as f64 / t.min / 1e9, (unit): items as f64 / t.min, "percent_of_peak": percent,
            "bound": bound.by,
        });
        if let (Some(line), serde_json::Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        print(&format!("{line}\n"))
    }

    /// Floating-point operations of a pass: of all the kernels that it launches.
    fn flops(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
        let profiler = self.device.profiler();
        profiler.enable(true);
        let done = work();
        profiler.enable(false);
        let events = profiler.take();
        done?;
        let flops = |what: &What| if let What::Kernel { cost, .. } = what { cost.flops } else { 0 };
        Ok(events.iter().map(|e| flops(&e.what)).sum())
    }
}

/// The dtype that most of a checkpoint's bytes are in.
fn most_common(checkpoint: &Checkpoint) -> StoredDType {
    let mut all: BTreeMap<StoredDType, usize> = BTreeMap::new();
    checkpoint.iter().for_each(|t| *all.entry(t.dtype).or_default() += t.bytes.len());
    all.into_iter().max_by_key(|&(_, bytes)| bytes).map_or(StoredDType::F32, |(dtype, _)| dtype)
}

/// A model's name by its sizes, as benches of other libraries have them: `vit_b16_224`, `clip_l14_336_vision`, `llama_1b`.
fn name(model: &Model, folder: &Folder, checkpoint: &Checkpoint) -> String {
    // As the papers name widths.
    let letter = |width: usize| match width {
        192 => "ti".into(),
        384 => "s".into(),
        768 => "b".into(),
        1024 => "l".into(),
        1280 => "h".into(),
        width => format!("{width}_"),
    };
    match model {
        Model::Vit(vit) => {
            let c = vit.config();
            let family = folder.config().get("model_type").and_then(|t| t.as_str()).unwrap_or("vit");
            format!("{family}_{}{}_{}", letter(c.hidden_size), c.patch_size[0], c.image_size[0])
        }
        Model::Clip(clip) => {
            let c = clip.config();
            format!("clip_{}{}_{}_vision", letter(c.vision.width), c.patch_size, c.image_size)
        }
        Model::Llama(_) => {
            let parameters: usize = checkpoint.iter().map(|t| t.count()).sum();
            match parameters as f64 / 1e6 {
                millions if millions < 0.9995 => format!("llama_{:.0}k", millions * 1e3),
                millions if millions < 999.5 => format!("llama_{millions:.0}m"),
                millions => format!("llama_{:.0}b", millions / 1e3),
            }
        }
    }
}
