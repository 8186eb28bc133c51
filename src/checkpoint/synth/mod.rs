//! Synthetic checkpoints: the names, shapes and configuration of published models with random weights.
//!
//! They stand in for downloads where only sizes matter: benchmarks, memory budgets, tests. A new model is a function in
//! `models.rs` and a line in [`MODELS`].

mod models;
mod noise;

use super::stored::StoredDType;
use super::writer::{Sink, TensorSpec, write_safetensors};
use crate::{DType, Error, Result};
use half::bf16;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A model that can be synthesised.
pub struct Model {
    /// What people call it here.
    pub name: &'static str,
    /// The published checkpoint that it is shaped like.
    pub like: &'static str,
    plan: fn() -> Plan,
}

/// All models that can be synthesised.
pub const MODELS: &[Model] = &[
    Model { name: "vit-b16", like: "google/vit-base-patch16-224", plan: models::vit_b16 },
    Model { name: "tinyllama-1.1b", like: "TinyLlama/TinyLlama-1.1B-Chat-v1.0", plan: models::tinyllama },
    Model { name: "llama-tiny", like: "a Llama of 0.1 M parameters over bytes", plan: models::llama_tiny },
    Model { name: "clip-vit-l14-336", like: "openai/clip-vit-large-patch14-336", plan: models::clip_vit_l14_336 },
];

impl Model {
    /// The model of a name.
    ///
    /// # Errors
    /// [`Error::Parse`] that lists the known names.
    pub fn find(name: &str) -> Result<&'static Model> {
        MODELS.iter().find(|m| m.name == name).ok_or_else(|| {
            let known: Vec<&str> = MODELS.iter().map(|m| m.name).collect();
            Error::parse("a synthetic model", name, format!("known are {}", known.join(", ")))
        })
    }

    /// The size of its weights in bytes.
    pub fn bytes(&self) -> usize {
        (self.plan)().tensors.iter().map(|(t, _)| spec_bytes(t)).sum()
    }

    /// Writes the model into a folder, which is made where it does not exist: `model.safetensors`, `config.json` and
    /// what else is published beside them. The same seed gives the same bytes. `progress` hears the bytes of weights
    /// done, and of all.
    ///
    /// # Errors
    /// The folder or a file cannot be written.
    pub fn write(&self, folder: impl AsRef<Path>, seed: u64, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let folder = folder.as_ref();
        let Plan { files, tensors, .. } = (self.plan)();
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        for (name, json) in files {
            let path = folder.join(name);
            fs::write(&path, format!("{json:#}\n")).map_err(|e| Error::io(path, e))?;
        }
        let total = self.bytes() as u64;
        let mut done = 0;
        let values: BTreeMap<String, Values> = tensors.iter().map(|(t, v)| (t.name.clone(), *v)).collect();
        let specs = tensors.into_iter().map(|(spec, _)| spec);
        write_safetensors(folder.join("model.safetensors"), specs, |spec, sink| {
            fill(spec, values[&spec.name], seed, sink, &mut |bytes| {
                done += bytes as u64;
                progress(done, total);
            })
        })
    }
}

/// What a model consists of.
struct Plan {
    files: Vec<(&'static str, Value)>,
    tensors: Vec<(TensorSpec, Values)>,
    /// Of tensors of floats: f32, or bf16.
    dtype: DType,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { files: Vec::new(), tensors: Vec::new(), dtype: DType::F32 }
    }
}

/// The values of a tensor.
#[derive(Clone, Copy)]
enum Values {
    /// Normally distributed around 0, as networks are initialised.
    Normal,
    /// All the same.
    Constant(f32),
    /// 0, 1, 2, …: a buffer of i64 positions, as older publications contain.
    Positions,
}

/// The standard deviation of random weights.
const STD: f32 = 0.02;

impl Plan {
    fn add(&mut self, name: &str, shape: &[usize], values: Values) {
        let dtype = if matches!(values, Values::Positions) { StoredDType::I64 } else { self.dtype.into() };
        self.tensors.push((TensorSpec::new(name, dtype, shape), values));
    }

    fn normal(&mut self, name: &str, shape: &[usize]) {
        self.add(name, shape, Values::Normal);
    }

    /// A projection, or with more than two extents a convolution, with bias.
    fn linear(&mut self, name: &str, shape: &[usize]) {
        self.normal(&format!("{name}.weight"), shape);
        self.add(&format!("{name}.bias"), &shape[..1], Values::Constant(0.0));
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(&format!("{name}.weight"), &[width], Values::Constant(1.0));
        self.add(&format!("{name}.bias"), &[width], Values::Constant(0.0));
    }
}

/// Plans hold the few shapes of [`MODELS`], none of which overflows.
fn spec_bytes(spec: &TensorSpec) -> usize {
    spec.dtype.bytes() * spec.shape.iter().product::<usize>()
}

/// The bytes of numbers in a dtype of plans.
fn in_dtype(values: &[f32], dtype: StoredDType) -> Cow<'_, [u8]> {
    match dtype {
        StoredDType::BF16 => Cow::Owned(values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()),
        _ => Cow::Borrowed(bytemuck::cast_slice(values)),
    }
}

fn fill(spec: &TensorSpec, values: Values, seed: u64, sink: &mut Sink<'_>, wrote: &mut dyn FnMut(usize)) -> Result<()> {
    let count: usize = spec.shape.iter().product();
    match values {
        Values::Positions => sink.put(bytemuck::cast_slice(&(0..count as i64).collect::<Vec<_>>()))?,
        Values::Constant(x) => sink.put(&in_dtype(&vec![x; count], spec.dtype))?,
        Values::Normal => {
            let key = noise::key(seed, &spec.name);
            let mut block = vec![0f32; count.min(noise::BLOCK)];
            for start in (0..count).step_by(noise::BLOCK) {
                let part = &mut block[..noise::BLOCK.min(count - start)];
                noise::normal(key, start as u64, STD, part);
                sink.put(&in_dtype(part, spec.dtype))?;
                wrote(part.len() * spec.dtype.bytes());
            }
            return Ok(());
        }
    }
    wrote(spec_bytes(spec));
    Ok(())
}
