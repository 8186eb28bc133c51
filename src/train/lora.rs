//! Low-rank adapters (LoRA, arXiv 2106.09685): the names and first values that PEFT gives them.

use crate::checkpoint::Weights;
use crate::random::Random;
use crate::{Error, Result};

/// Which matrices get an adapter, and of which size.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    pub rank: usize,
    /// What the adapter's product is multiplied by is `alpha / rank`.
    pub alpha: f32,
    /// The last part of the names of layers: `q_proj`, `v_proj`, …
    pub targets: Vec<String>,
}

/// A parameter to begin with.
pub(super) struct First {
    pub name: String,
    pub shape: [usize; 2],
    pub values: Vec<f32>,
}

impl Lora {
    /// The factor of the adapter's product.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// `lora_A` (uniform within √(1/inputs), as PyTorch initialises a linear layer) and `lora_B` (zeros) of every target.
    pub(super) fn first(&self, weights: &Weights, seed: u64) -> Result<Vec<First>> {
        if self.rank == 0 || !self.alpha.is_finite() || self.targets.is_empty() {
            return Err(Error::Config("a low-rank adapter needs a rank of 1 or more and names of layers".into()));
        }
        let mut found = Vec::new();
        for stored in weights.checkpoint().iter() {
            let Some(layer) = stored.name.strip_suffix(".weight") else { continue };
            let last = layer.rsplit('.').next().unwrap_or_default();
            let (&[outputs, inputs], true) = (stored.shape.as_slice(), self.targets.iter().any(|t| t == last)) else {
                continue;
            };
            let bound = (1.0 / inputs as f64).sqrt();
            let mut random = Random::named(seed, layer);
            let a = (0..self.rank * inputs).map(|_| ((2.0 * random.unit() - 1.0) * bound) as f32).collect();
            found.push(First { name: format!("{layer}.lora_A.weight"), shape: [self.rank, inputs], values: a });
            let b = vec![0.0; outputs * self.rank];
            found.push(First { name: format!("{layer}.lora_B.weight"), shape: [outputs, self.rank], values: b });
        }
        match found.is_empty() {
            true => Err(Error::Config(format!("no matrix of the checkpoint is named {}", self.targets.join(" or ")))),
            false => Ok(found),
        }
    }
}
