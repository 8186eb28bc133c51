//! Intermediate results, for those who ask: hidden states that a model hands on, and tests that look inside.

use crate::Tensor;

/// Collects named tensors, or nothing at all.
#[derive(Default)]
pub struct Taps(Option<Vec<(String, Tensor)>>);

impl Taps {
    /// Collects nothing.
    pub fn none() -> Taps {
        Taps(None)
    }

    /// Collects everything.
    pub fn all() -> Taps {
        Taps(Some(Vec::new()))
    }

    /// Whether somebody listens.
    pub fn listens(&self) -> bool {
        self.0.is_some()
    }

    /// Notes a tensor; the name is made only if somebody listens.
    pub fn add(&mut self, name: impl FnOnce() -> String, tensor: &Tensor) {
        if let Some(list) = &mut self.0 {
            list.push((name(), tensor.clone()));
        }
    }

    /// What was collected, in order.
    pub fn into_vec(self) -> Vec<(String, Tensor)> {
        self.0.unwrap_or_default()
    }
}
