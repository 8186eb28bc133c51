//! Saving a training and taking it up again.
//!
//! A checkpoint is a folder `checkpoint-N` as transformers' trainer makes it: the model as its publisher lays it out (or
//! PEFT's `adapter_model.safetensors`), `optimizer.safetensors` with masters and moments, and `trainer_state.json`. It is
//! written under another name and renamed when it is whole, so that a stop at any moment leaves the last one as it was.

use super::trainer::{Parameter, Trainer};
use crate::checkpoint::{Checkpoint, Stored, StoredDType, TensorSpec, write_safetensors};
use crate::{DType, Device, Elem, Error, Result, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What PEFT puts before a model's names.
const PEFT_PREFIX: &str = "base_model.model.";
/// Files of a model's folder that are copied beside its weights.
const COPIED: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
];

impl Trainer {
    /// Writes `checkpoint-N` into a folder, N being the steps done, and gives its path. `base` is the model's own folder,
    /// whose configuration and tokenizer are copied.
    ///
    /// # Errors
    /// A file cannot be written; earlier checkpoints stay as they are.
    pub fn save(&self, folder: &Path, base: &Path) -> Result<PathBuf> {
        let done = folder.join(format!("checkpoint-{}", self.steps));
        let partial = folder.join(format!(".checkpoint-{}.partial", self.steps));
        for old in [&partial, &done] {
            if old.exists() {
                fs::remove_dir_all(old).map_err(|e| Error::io(old, e))?;
            }
        }
        fs::create_dir_all(&partial).map_err(|e| Error::io(&partial, e))?;
        match &self.settings.lora {
            None => self.write_model(&partial, base)?,
            Some(_) => self.write_adapter(&partial, base)?,
        }
        self.write_state(&partial)?;
        fs::rename(&partial, &done).map_err(|e| Error::io(&done, e))?;
        Ok(done)
    }

    fn write_model(&self, folder: &Path, base: &Path) -> Result<()> {
        for name in COPIED {
            let from = base.join(name);
            if from.is_file() {
                fs::copy(&from, folder.join(name)).map_err(|e| Error::io(&from, e))?;
            }
        }
        let stored: BTreeMap<String, Stored> = self.weights.checkpoint().iter().map(|t| (t.name.clone(), t)).collect();
        let specs = stored.values().map(|t| TensorSpec::new(t.name.as_str(), t.dtype, &t.shape));
        write_safetensors(folder.join("model.safetensors"), specs, |spec, sink| match self.parameters.get(&spec.name) {
            Some(p) => sink.put(&in_dtype(&p.value, spec.dtype)?),
            None => sink.put(&stored[&spec.name].bytes),
        })
    }

    fn write_adapter(&self, folder: &Path, base: &Path) -> Result<()> {
        let specs = self
            .parameters
            .iter()
            .map(|(name, p)| TensorSpec::new(format!("{PEFT_PREFIX}{name}"), DType::F32, p.value.shape()));
        write_safetensors(folder.join("adapter_model.safetensors"), specs, |spec, sink| {
            let name = spec.name.strip_prefix(PEFT_PREFIX).unwrap_or(&spec.name);
            sink.put(&self.parameters[name].value.to_bytes()?)
        })?;
        let lora = self.settings.lora.as_ref();
        let config = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "inference_mode": true,
            "base_model_name_or_path": base, "r": lora.map(|l| l.rank), "lora_alpha": lora.map(|l| l.alpha),
            "lora_dropout": 0.0, "target_modules": lora.map(|l| &l.targets), "fan_in_fan_out": false,
        });
        write_json(&folder.join("adapter_config.json"), &config)
    }

    fn write_state(&self, folder: &Path) -> Result<()> {
        let each = |p: &Parameter, of: &str| match of {
            "exp_avg" => p.exp_avg.to_bytes(),
            "exp_avg_sq" => p.exp_avg_sq.to_bytes(),
            _ => p.value.to_bytes(),
        };
        let kinds = ["master", "exp_avg", "exp_avg_sq"];
        let specs = self.parameters.iter().flat_map(|(name, p)| {
            kinds.map(|kind| TensorSpec::new(format!("{name}/{kind}"), DType::F32, p.value.shape()))
        });
        write_safetensors(folder.join("optimizer.safetensors"), specs, |spec, sink| {
            let (name, kind) = spec.name.rsplit_once('/').unwrap_or((&spec.name, ""));
            sink.put(&each(&self.parameters[name], kind)?)
        })?;
        write_json(&folder.join("trainer_state.json"), &json!({"global_step": self.steps}))
    }

    /// Takes up a training where a checkpoint left it; the settings and the model are those that this one was made with.
    ///
    /// # Errors
    /// A file is missing, or holds other parameters than this training has.
    pub fn resume(&mut self, checkpoint: &Path, device: &Device) -> Result<()> {
        let path = checkpoint.join("trainer_state.json");
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let state: Value = serde_json::from_str(&text).map_err(|e| Error::file(&path, format!("not JSON: {e}")))?;
        let steps = state.get("global_step").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let steps = steps.ok_or_else(|| Error::file(&path, "`global_step` must be a number of steps"))?;
        let stored = Checkpoint::open(checkpoint.join("optimizer.safetensors"))?;
        if stored.len() != 3 * self.parameters.len() {
            let why = format!("holds {} tensors; this training has {}", stored.len(), 3 * self.parameters.len());
            return Err(Error::file(stored.path(), why));
        }
        let mut parameters = BTreeMap::new();
        for (name, p) in &self.parameters {
            let read = |kind: &str| -> Result<Tensor> {
                let tensor = stored.weights().stored(&format!("{name}/{kind}"), p.value.shape())?;
                Tensor::from_slice(device, &tensor.to_vec::<f32>()?, &tensor.shape)
            };
            let parameter =
                Parameter { value: read("master")?, exp_avg: read("exp_avg")?, exp_avg_sq: read("exp_avg_sq")? };
            parameters.insert(name.clone(), parameter);
        }
        (self.parameters, self.steps) = (parameters, steps);
        Ok(())
    }

    /// The last whole checkpoint of a folder.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn last_checkpoint(folder: &Path) -> Result<Option<PathBuf>> {
        if !folder.is_dir() {
            return Ok(None);
        }
        let mut last: Option<(u64, PathBuf)> = None;
        for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
            let path = entry.map_err(|e| Error::io(folder, e))?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let step = name.strip_prefix("checkpoint-").and_then(|n| n.parse::<u64>().ok());
            if let Some(step) = step.filter(|_| path.join("trainer_state.json").is_file())
                && last.as_ref().is_none_or(|(s, _)| step > *s)
            {
                last = Some((step, path));
            }
        }
        Ok(last.map(|(_, path)| path))
    }
}

/// The bytes of a master in the dtype of a file.
fn in_dtype(master: &Tensor, dtype: StoredDType) -> Result<Vec<u8>> {
    match dtype {
        StoredDType::F64 => {
            let values = master.to_vec::<f32>()?;
            Ok(values.iter().flat_map(|&x| Elem::to_f64(x).to_le_bytes()).collect())
        }
        other => master.to_dtype(other.device().unwrap_or(DType::F32))?.to_bytes(),
    }
}

fn write_json(path: &Path, json: &Value) -> Result<()> {
    fs::write(path, format!("{json:#}\n")).map_err(|e| Error::io(path, e))
}
