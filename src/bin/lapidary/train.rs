//! `lapidary train`.

use crate::shared::{self, Shared, Status, note, print};
use lapidary::checkpoint::Folder;
use lapidary::models::llama::{Call, Llama, LlamaConfig};
use lapidary::models::{self, Family};
use lapidary::nn::{Precision, Scope};
use lapidary::ops::adamw;
use lapidary::train::{Batch, Decay, Examples, Lora, Report, Schedule, Settings, Source, Trainer, read_jsonl};
use lapidary::{DType, Error, Result, Tensor};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Fine-tune a Llama on lines of JSON: `{"text": …}`, `{"prompt": …, "completion": …}` or `{"messages": […]}`
#[derive(clap::Args)]
pub struct Args {
    /// The model's folder
    model: PathBuf,

    /// Lines of JSON
    #[arg(long, value_name = "FILE")]
    data: PathBuf,

    /// Where checkpoints and the log go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Optimiser steps in all [default: 3 epochs]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,

    /// Examples of a batch
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,

    /// Batches whose gradients make one step
    #[arg(long, value_name = "N", default_value_t = 1)]
    accumulate: usize,

    /// A built-in chat template instead of the model's own: vicuna, llama-2 or plain
    #[arg(long, value_name = "NAME")]
    chat_template: Option<String>,

    /// The most tokens of an example [default: the model's context, at most 1024]
    #[arg(long, value_name = "N")]
    max_len: Option<usize>,

    /// The largest learning rate
    #[arg(long, value_name = "X", default_value_t = 1e-4)]
    lr: f64,

    /// Steps in which the rate rises to it
    #[arg(long, value_name = "N", default_value_t = 0)]
    warmup_steps: usize,

    /// How it falls after that
    #[arg(long, value_enum, default_value_t = Fall::Cosine)]
    schedule: Fall,

    /// What is left of the rate at the end, as a share
    #[arg(long, value_name = "X", default_value_t = 0.1)]
    final_ratio: f64,

    #[arg(long, value_name = "X", default_value_t = 0.9)]
    beta1: f32,

    #[arg(long, value_name = "X", default_value_t = 0.95)]
    beta2: f32,

    #[arg(long, value_name = "X", default_value_t = 1e-8)]
    eps: f32,

    /// Of matrices
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    weight_decay: f32,

    /// The largest norm of all gradients together; 0 for none
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    clip: f32,

    /// Weights and inputs of products: f32, bf16 or f16; masters are f32
    #[arg(long, default_value = "f32")]
    dtype: DType,

    /// Trains adapters of this rank instead of the model
    #[arg(long, value_name = "N")]
    lora_rank: Option<usize>,

    /// What adapters count, times their rank
    #[arg(long, value_name = "X", default_value_t = 16.0, requires = "lora_rank")]
    lora_alpha: f32,

    /// The layers that get one
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        requires = "lora_rank",
        default_value = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
    )]
    lora_targets: Vec<String>,

    /// Saves a checkpoint every so many steps, and at the end
    #[arg(long, value_name = "N", default_value_t = 100)]
    save_every: usize,

    /// Keeps the input of each block only, and computes it again for its gradients: less memory, more time
    #[arg(long)]
    recompute: bool,

    /// Goes on from the last checkpoint in --out, if there is one
    #[arg(long)]
    resume: bool,

    /// Of the order of examples and of first values of adapters
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Fall {
    Constant,
    Linear,
    Cosine,
}

pub fn run(args: &Args, shared: &Shared) -> Result<Status> {
    let device = shared.device()?;
    let folder = Folder::open(&args.model)?;
    if Family::of(folder.config())? != Family::Llama {
        return Err(Error::NotSupported("training of other families than llama".into()));
    }
    let config = LlamaConfig::from_json(folder.config())?;
    let (batch, accumulate, save_every) = (args.batch, args.accumulate, args.save_every);
    if batch == 0 || accumulate == 0 || save_every == 0 || !(args.lr.is_finite() && args.lr > 0.0) {
        return Err(Error::Config("--batch, --accumulate and --save-every start at 1, --lr is above 0".into()));
    }
    let examples = examples(args, &folder, &config)?;
    let steps = args.steps.unwrap_or_else(|| (3 * examples.len()).div_ceil(batch * accumulate));
    let mut trainer = Trainer::new(folder.weights()?, &device, settings(args, steps)?)?;
    std::fs::create_dir_all(&args.out).map_err(|e| Error::io(&args.out, e))?;
    match (Trainer::last_checkpoint(&args.out)?, args.resume) {
        (Some(last), true) => {
            trainer.resume(&last, &device)?;
            note(&format!("going on from {}", last.display()));
        }
        (Some(last), false) => {
            let why =
                format!("{} is there already; --resume goes on from it, another --out begins anew", last.display());
            return Err(Error::Config(why));
        }
        (None, _) => {}
    }
    let values = trainer.trained_values();
    note(&format!("{} examples, {steps} steps of {}, {values} trained numbers", examples.len(), batch * accumulate));
    let loss = |scope: &Scope, b: &Batch| -> Result<Tensor> {
        let llama = Llama::load(scope, folder.config())?;
        Ok(llama.loss(&b.ids, &b.labels, b.len, &mut Call { recompute: args.recompute, ..Call::default() })?.0)
    };
    let mut log = Log::open(&args.out)?;
    let bar = shared::progress(steps as u64, "steps");
    bar.set_position(trainer.steps() as u64);
    let mut last = None;
    while trainer.steps() < steps {
        let began = Instant::now();
        let first = trainer.steps() * accumulate * batch;
        let batches: Vec<Batch> = (0..accumulate).map(|i| examples.batch(first + i * batch, batch)).collect();
        let report = trainer.step(&batches, &loss)?;
        let tokens: usize = batches.iter().map(|b| b.ids.len()).sum();
        let line = log.line(&report, tokens, began.elapsed().as_secs_f64())?;
        if shared.json {
            print(&line)?;
        }
        bar.set_message(format!("loss {:.4}", report.loss));
        bar.inc(1);
        last = Some(report);
        if report.step.is_multiple_of(save_every) || report.step == steps {
            let saved = trainer.save(&args.out, &args.model)?;
            bar.suspend(|| note(&format!("saved {}", saved.display())));
        }
    }
    bar.finish_and_clear();
    if let (Some(report), false) = (last, shared.json) {
        print(&format!("step {}: loss {:.4}\n", report.step, report.loss))?;
    }
    Ok(Status::Success)
}

fn settings(args: &Args, steps: usize) -> Result<Settings> {
    let decay = match args.schedule {
        Fall::Constant => Decay::Constant,
        Fall::Linear => Decay::Linear,
        Fall::Cosine => Decay::Cosine,
    };
    let (warmup_steps, final_ratio) = (args.warmup_steps, args.final_ratio);
    let lora = args.lora_rank.map(|rank| Lora { rank, alpha: args.lora_alpha, targets: args.lora_targets.clone() });
    Ok(Settings {
        schedule: Schedule { peak: args.lr, warmup_steps, total_steps: steps, decay, final_ratio },
        adamw: adamw::Options { beta1: args.beta1, beta2: args.beta2, eps: args.eps, weight_decay: args.weight_decay },
        clip_norm: (args.clip > 0.0).then_some(args.clip),
        precision: Precision::compute_in(args.dtype)?,
        lora,
        seed: args.seed,
    })
}

fn examples(args: &Args, folder: &Folder, config: &LlamaConfig) -> Result<Examples> {
    let tokenizer = models::tokenizer(folder)?;
    let template = shared::chat_template(folder, &tokenizer, args.chat_template.as_deref())?;
    let source = Source {
        tokenizer: &tokenizer,
        template: template.as_ref(),
        eos_id: tokenizer.eos_id().or(config.eos_token_ids.first().copied()),
        max_len: args.max_len.unwrap_or(config.max_position_embeddings.min(1024)).max(2),
    };
    let pad = tokenizer.pad_id().or(source.eos_id).unwrap_or(0);
    Examples::new(read_jsonl(&args.data, &source)?, args.seed, pad)
}

/// `log.jsonl`, a line a step.
struct Log(File, PathBuf);

impl Log {
    fn open(folder: &Path) -> Result<Log> {
        let path = folder.join("log.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io(&path, e))?;
        Ok(Log(file, path))
    }

    fn line(&mut self, r: &Report, tokens: usize, seconds: f64) -> Result<String> {
        let line = json!({
            "step": r.step, "loss": r.loss, "grad_norm": r.grad_norm, "lr": r.learning_rate, "targets": r.targets,
            "tokens": tokens, "seconds": seconds, "tokens_per_s": tokens as f64 / seconds,
        });
        let line = format!("{line}\n");
        self.0.write_all(line.as_bytes()).map_err(|e| Error::io(&self.1, e))?;
        Ok(line)
    }
}
