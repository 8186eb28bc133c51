//! Computed outputs and how they are judged.

use super::{Judged, Limit};
use crate::checkpoint::Stored;
use crate::{DType, Result, Tensor};
use std::collections::BTreeMap;

/// An output: its values and shape.
#[derive(Clone, Debug)]
pub struct Value {
    values: Vec<f64>,
    shape: Vec<usize>,
}

/// Outputs by name.
#[derive(Default)]
pub struct Outputs(BTreeMap<String, Value>);

impl Outputs {
    /// Adds a tensor.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn add(&mut self, name: impl Into<String>, tensor: &Tensor) -> Result<()> {
        let tensor = tensor.contiguous()?;
        let values = match tensor.dtype() {
            DType::U32 => tensor.to_vec::<u32>()?.into_iter().map(f64::from).collect(),
            _ => tensor.to_dtype(DType::F32)?.to_vec::<f32>()?.into_iter().map(f64::from).collect(),
        };
        self.add_values(name, values, tensor.shape());
        Ok(())
    }

    /// Adds values that are on the host.
    pub fn add_values(&mut self, name: impl Into<String>, values: Vec<f64>, shape: &[usize]) {
        self.0.insert(name.into(), Value { values, shape: shape.to_vec() });
    }

    /// An output by name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}

impl Value {
    /// The value with zeros at padded places, where the case's expected ones were cleared: a mask [batch, len] hides rows
    /// of [batch, len, …] that are all 0 in what is expected.
    pub(super) fn without_padding(&self, mask: Option<&[u32]>, want: &Stored) -> Result<Value> {
        let mut value = self.clone();
        let (Some(mask), [batch, len, ..]) = (mask, want.shape.as_slice()) else { return Ok(value) };
        if mask.len() != batch * len || self.shape != want.shape || !is_float(want) {
            return Ok(value);
        }
        let width = self.values.len() / mask.len().max(1);
        let expected = want.to_vec::<f32>()?;
        let hidden = || (0..mask.len()).filter(|&i| mask[i] == 0).flat_map(|i| i * width..(i + 1) * width);
        if hidden().all(|i| expected[i] == 0.0) {
            hidden().for_each(|i| value.values[i] = 0.0);
        }
        Ok(value)
    }

    /// Holds the value against what was expected.
    pub(super) fn judge(&self, name: &str, limit: Limit, want: &Stored) -> Result<Judged> {
        let expected: Vec<f64> = match limit {
            Limit::Exact if !is_float(want) => want.to_i64()?.into_iter().map(|x| x as f64).collect(),
            _ => want.to_vec::<f32>()?.into_iter().map(f64::from).collect(),
        };
        let mut judged = Judged { name: name.into(), limit, rel_l2: 0.0, max_abs: 0.0, failure: None };
        let scalar = |shape: &[usize]| shape.iter().all(|&n| n == 1);
        if self.shape != want.shape && !(scalar(&self.shape) && scalar(&want.shape) && self.shape.len() < 2) {
            judged.failure = Some(format!("shape {:?} for {:?}", self.shape, want.shape));
            judged.rel_l2 = f64::NAN;
            return Ok(judged);
        }
        let (mut error, mut norm) = (0.0, 0.0);
        for (got, want) in self.values.iter().zip(&expected) {
            error += (got - want).powi(2);
            norm += want * want;
            judged.max_abs = f64::max(judged.max_abs, (got - want).abs());
        }
        judged.rel_l2 = if error == 0.0 { 0.0 } else { (error / norm).sqrt() };
        judged.failure = match limit {
            Limit::Exact => {
                let differ = self.values.iter().zip(&expected).filter(|(a, b)| a != b).count();
                (differ > 0).then(|| format!("{differ} of {} elements differ", expected.len()))
            }
            Limit::RelL2(limit) if judged.rel_l2 <= limit && !self.values.iter().any(|x| x.is_nan()) => None,
            Limit::RelL2(limit) => Some(format!("rel_l2 {:.2e} is above {limit:.1e}", judged.rel_l2)),
        };
        Ok(judged)
    }
}

fn is_float(stored: &Stored) -> bool {
    stored.dtype.name().starts_with(['f', 'b']) && stored.dtype.name() != "bool"
}
