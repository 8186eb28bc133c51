//! The training loop: against PyTorch's loss curve, resumed, with 16-bit weights, with adapters, and on broken losses.

use lapidary::checkpoint::Folder;
use lapidary::models::llama::{Call, Llama};
use lapidary::nn::{Precision, Scope};
use lapidary::ops::{adamw, elementwise};
use lapidary::train::{Batch, Decay, Lora, Schedule, Settings, Trainer};
use lapidary::{DType, Device, Error, Result, Tensor};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

/// The recorded curve: its settings, and for each step its batches, loss and norm.
struct Curve {
    settings: Settings,
    steps: Vec<(Vec<Batch>, f64, f64)>,
}

fn curve() -> Curve {
    let json: Value = serde_json::from_str(&std::fs::read_to_string(golden("training/curve.json")).unwrap()).unwrap();
    let number = |key: &str| json["settings"][key].as_f64().unwrap();
    let settings = Settings {
        schedule: Schedule {
            peak: number("peak"),
            warmup_steps: number("warmup_steps") as usize,
            total_steps: number("total_steps") as usize,
            decay: Decay::Cosine,
            final_ratio: number("final_ratio"),
        },
        adamw: adamw::Options {
            beta1: number("beta1") as f32,
            beta2: number("beta2") as f32,
            eps: number("eps") as f32,
            weight_decay: number("weight_decay") as f32,
        },
        clip_norm: Some(number("clip_norm") as f32),
        precision: Precision::F32,
        lora: None,
        seed: 0,
    };
    let len = json["len"].as_u64().unwrap() as usize;
    let batch = |b: &Value| {
        let flat = |key: &str| -> Vec<i64> {
            let rows = b[key].as_array().unwrap().iter();
            rows.flat_map(|row| row.as_array().unwrap().iter().map(|x| x.as_i64().unwrap())).collect()
        };
        let labels: Vec<i32> = flat("labels").into_iter().map(|x| x as i32).collect();
        let targets = labels.chunks(len).map(|row| row[1..].iter().filter(|&&l| l >= 0).count()).sum();
        Batch { ids: flat("ids").into_iter().map(|x| x as u32).collect(), labels, len, targets }
    };
    let step = |s: &Value| {
        let batches = s["batches"].as_array().unwrap().iter().map(batch).collect();
        (batches, s["loss"].as_f64().unwrap(), s["grad_norm"].as_f64().unwrap())
    };
    Curve { settings, steps: json["steps"].as_array().unwrap().iter().map(step).collect() }
}

fn model() -> Folder {
    Folder::open(golden("llama/loss_causal_lm/checkpoint")).unwrap()
}

fn trainer(device: &Device, settings: Settings) -> Trainer {
    Trainer::new(model().weights().unwrap(), device, settings).unwrap()
}

fn loss(scope: &Scope, batch: &Batch) -> Result<Tensor> {
    let llama = Llama::load(scope, model().config())?;
    Ok(llama.loss(&batch.ids, &batch.labels, batch.len, &mut Call::default())?.0)
}

#[test]
fn recomputed_blocks_give_the_same_gradients() {
    let device = Device::cpu_with_threads(2).unwrap();
    let curve = curve();
    let again = |scope: &Scope, batch: &Batch| {
        let llama = Llama::load(scope, model().config())?;
        let mut call = Call { recompute: true, ..Call::default() };
        Ok(llama.loss(&batch.ids, &batch.labels, batch.len, &mut call)?.0)
    };
    let (mut kept, mut recomputed) = (trainer(&device, curve.settings.clone()), trainer(&device, curve.settings));
    for (batches, ..) in &curve.steps[..3] {
        assert_eq!(kept.step(batches, &loss).unwrap(), recomputed.step(batches, &again).unwrap());
    }
    assert!(bits(&kept) == bits(&recomputed));
}

/// All parameters as bits.
fn bits(t: &Trainer) -> Vec<Vec<u8>> {
    let names: Vec<String> = model().weights().unwrap().checkpoint().names().map(str::to_string).collect();
    names.iter().filter_map(|n| t.parameter(n)).map(|p| p.to_bytes().unwrap()).collect()
}

fn scratch(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("lapidary-train-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn fifty_steps_follow_pytorch() {
    let device = Device::cpu_with_threads(2).unwrap();
    let curve = curve();
    let mut t = trainer(&device, curve.settings);
    let mut worst = 0f64;
    for (batches, want, norm) in &curve.steps {
        let report = t.step(batches, &loss).unwrap();
        worst = worst.max((report.loss - want).abs());
        assert!((report.loss - want).abs() < 1e-4, "step {}: loss {} for {want}", report.step, report.loss);
        assert!((report.grad_norm - norm).abs() < 1e-3 * norm, "step {}: {} for {norm}", report.step, report.grad_norm);
    }
    println!("largest difference of a loss: {worst:.1e}");
}

#[test]
fn a_resumed_training_is_the_same_to_the_bit() {
    let device = Device::cpu_with_threads(2).unwrap();
    let curve = curve();
    let folder = scratch("resume");
    let base = golden("llama/loss_causal_lm/checkpoint");
    let mut straight = trainer(&device, curve.settings.clone());
    for (batches, ..) in &curve.steps[..8] {
        straight.step(batches, &loss).unwrap();
    }
    let mut first = trainer(&device, curve.settings.clone());
    for (batches, ..) in &curve.steps[..3] {
        first.step(batches, &loss).unwrap();
    }
    let saved = first.save(&folder, &base).unwrap();
    // What a kill in the middle of a later save leaves behind.
    std::fs::create_dir(folder.join(".checkpoint-5.partial")).unwrap();
    std::fs::write(folder.join(".checkpoint-5.partial/optimizer.safetensors"), b"half").unwrap();
    drop(first);
    assert_eq!(Trainer::last_checkpoint(&folder).unwrap(), Some(saved.clone()));
    let mut second = trainer(&device, curve.settings);
    second.resume(&saved, &device).unwrap();
    assert_eq!(second.steps(), 3);
    for (batches, ..) in &curve.steps[3..8] {
        second.step(batches, &loss).unwrap();
    }
    assert!(bits(&straight) == bits(&second), "a resumed training went another way");

    // What was saved is a model's folder, with the weights of step 3.
    let reopened = Folder::open(&saved).unwrap();
    let scope = Scope::new(reopened.weights().unwrap(), &device, Precision::F32);
    Llama::load(&scope, reopened.config()).unwrap();
    std::fs::write(saved.join("trainer_state.json"), "{}").unwrap();
    let message = second.resume(&saved, &device).unwrap_err().to_string();
    assert!(message.contains("global_step"), "{message}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn sixteen_bit_weights_train_with_masters() {
    let device = Device::cpu_with_threads(1).unwrap();
    let curve = curve();
    let precision = Precision::compute_in(DType::BF16).unwrap();
    let mut t = trainer(&device, Settings { precision, ..curve.settings });
    let mut last = 0.0;
    for (batches, want, _) in &curve.steps {
        last = t.step(batches, &loss).unwrap().loss;
        assert!((last - want).abs() < 0.05 * want, "{last} for {want}");
    }
    assert!(last < 0.25 * curve.steps[0].1);
}

#[test]
fn adapters_learn_and_leave_the_model_alone() {
    let device = Device::cpu_with_threads(1).unwrap();
    let curve = curve();
    let lora =
        Lora { rank: 4, alpha: 8.0, targets: ["q_proj", "v_proj", "up_proj", "down_proj"].map(String::from).to_vec() };
    let schedule = Schedule { peak: 0.02, ..curve.settings.schedule };
    let mut t = trainer(&device, Settings { lora: Some(lora), schedule, ..curve.settings });
    assert!(t.parameter("model.norm.weight").is_none());
    let b = "model.layers.0.self_attn.q_proj.lora_B.weight";
    assert!(t.parameter(b).unwrap().to_vec::<f32>().unwrap().iter().all(|&x| x == 0.0));
    let losses: Vec<f64> = curve.steps.iter().map(|(b, ..)| t.step(b, &loss).unwrap().loss).collect();
    // Adapters that are zero change nothing: the first loss is the model's own.
    assert!((losses[0] - curve.steps[0].1).abs() < 1e-4);
    assert!(losses[49] < 0.6 * losses[0], "{losses:?}");
    let folder = scratch("lora");
    let saved = t.save(&folder, &golden("llama/loss_causal_lm/checkpoint")).unwrap();
    let adapter = lapidary::checkpoint::Checkpoint::open(saved.join("adapter_model.safetensors")).unwrap();
    assert!(adapter.contains(&format!("base_model.model.{b}")));
    assert!(saved.join("adapter_config.json").is_file());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_loss_that_is_no_number_changes_nothing() {
    let device = Device::cpu_with_threads(1).unwrap();
    let curve = curve();
    let mut t = trainer(&device, curve.settings);
    t.step(&curve.steps[0].0, &loss).unwrap();
    let before = bits(&t);
    let broken = |scope: &Scope, batch: &Batch| elementwise::affine(&loss(scope, batch)?, f32::NAN, 0.0);
    let message = t.step(&curve.steps[1].0, &broken).unwrap_err().to_string();
    assert!(message.contains("step 2") && message.contains("NaN"), "{message}");
    // A finite loss with gradients that are not.
    let steep = |scope: &Scope, batch: &Batch| {
        let loss = loss(scope, batch)?;
        elementwise::add(
            &loss,
            &elementwise::affine(&elementwise::sqrt(&elementwise::affine(&loss, 0.0, 0.0)?)?, 1.0, 0.0)?,
        )
    };
    assert!(t.step(&curve.steps[1].0, &steep).is_err());
    assert!(bits(&t) == before && t.steps() == 1);
    let wrong = Batch { ids: vec![5, 1_000_000], labels: vec![5, 6], len: 2, targets: 1 };
    assert!(matches!(t.step(&[wrong], &loss), Err(Error::Config(_))));
    let empty = Batch { ids: vec![5, 6], labels: vec![-100, -100], len: 2, targets: 0 };
    assert!(t.step(&[empty], &loss).is_err());
    assert!(bits(&t) == before);
}
