//! Choosing the next token from its scores.

use crate::random::{Random, mix};
use crate::{Error, Result};

/// How tokens are drawn. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// What scores are divided by; 0 always takes the best one.
    pub temperature: f32,
    /// Only so many of the best; 0 for all.
    pub top_k: usize,
    /// Only the best whose probabilities first reach this sum; 1 for all.
    pub top_p: f32,
    /// Only those with at least this share of the best one's probability; 0 for all.
    pub min_p: f32,
    /// Scores of tokens that were seen are divided by this if positive, else multiplied (arXiv 1909.05858); 1 for none.
    pub repetition_penalty: f32,
    /// The same seed draws the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// Whether the best score always wins.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Whether logits decide as they are: no token is drawn, nothing is penalised.
    pub fn is_plain(&self) -> bool {
        self.is_greedy() && self.repetition_penalty == 1.0
    }

    /// # Errors
    /// A number is out of its range; the message names it.
    pub fn check(&self) -> Result<()> {
        let within = |name: &str, x: f32, low: f32, high: f32| match x >= low && x <= high {
            true => Ok(()),
            false => Err(Error::Config(format!("{name} must be from {low} to {high}, is {x}"))),
        };
        within("temperature", self.temperature, 0.0, 1e4)?;
        within("top_p", self.top_p, f32::MIN_POSITIVE, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("repetition_penalty", self.repetition_penalty, 1e-3, 1e3)
    }

    /// The next token of row `row` at step `step`, from the scores of the vocabulary (which are changed) and the tokens
    /// so far. Filters apply in the order of transformers: penalty, temperature, top-k, top-p, min-p.
    ///
    /// # Errors
    /// No score is finite, or one is NaN.
    pub fn choose(&self, logits: &mut [f32], seen: &[u32], row: usize, step: usize) -> Result<u32> {
        self.penalise(logits, seen);
        let best = best(logits)?;
        if self.is_greedy() {
            return Ok(best);
        }
        let largest = f64::from(logits[best as usize]);
        let weight = |x: f32| ((f64::from(x) - largest) / f64::from(self.temperature)).exp();
        let floor = f64::from(self.min_p);
        let mut candidates: Vec<(u32, f64)> = if self.top_k == 0 || self.top_k >= logits.len() {
            logits.iter().enumerate().map(|(id, &x)| (id as u32, weight(x))).collect()
        } else {
            let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
            ids.select_nth_unstable_by(self.top_k - 1, |&a, &b| by_score(logits, a, b));
            ids.truncate(self.top_k);
            ids.into_iter().map(|id| (id, weight(logits[id as usize]))).collect()
        };
        candidates.retain(|&(_, w)| w > 0.0);
        if self.top_p < 1.0 {
            candidates.sort_unstable_by(|a, b| by_score(logits, a.0, b.0));
            let total: f64 = candidates.iter().map(|c| c.1).sum();
            let mut sum = 0.0;
            let enough = candidates.iter().position(|&(_, w)| {
                sum += w;
                sum >= f64::from(self.top_p) * total
            });
            candidates.truncate(enough.map_or(candidates.len(), |n| n + 1));
        }
        // The best one's weight is 1, whatever was left out.
        candidates.retain(|&(_, w)| w >= floor);
        let total: f64 = candidates.iter().map(|c| c.1).sum();
        let mut left = (1.0 - random(self.seed, row, step).unit()) * total;
        for &(id, w) in &candidates {
            left -= w;
            if left < 0.0 {
                return Ok(id);
            }
        }
        Ok(candidates.last().map_or(best, |c| c.0))
    }

    /// Applies the repetition penalty, to each token once.
    pub fn penalise(&self, logits: &mut [f32], seen: &[u32]) {
        if self.repetition_penalty == 1.0 {
            return;
        }
        let mut done = vec![false; logits.len()];
        for &id in seen {
            if let (Some(x), Some(done)) = (logits.get_mut(id as usize), done.get_mut(id as usize))
                && !std::mem::replace(done, true)
            {
                *x = if *x > 0.0 { *x / self.repetition_penalty } else { *x * self.repetition_penalty };
            }
        }
    }
}

/// The first of the largest scores.
fn best(logits: &[f32]) -> Result<u32> {
    let wrong = |why: &str| Err(Error::Config(format!("{why}: the weights or the input are broken")));
    let mut best = None;
    for (id, &x) in logits.iter().enumerate() {
        if x.is_nan() {
            return wrong("a score is NaN");
        }
        if x > f32::NEG_INFINITY && best.is_none_or(|b: usize| x > logits[b]) {
            best = Some(id);
        }
    }
    best.map_or_else(|| wrong("no score is finite"), |id| Ok(id as u32))
}

/// Better scores first; of equal ones the lower id.
fn by_score(logits: &[f32], a: u32, b: u32) -> std::cmp::Ordering {
    logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b))
}

/// A stream for each row and step, so that a token depends on nothing that was drawn before.
fn random(seed: u64, row: usize, step: usize) -> Random {
    Random::new(mix(mix(seed) ^ row as u64) ^ step as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for step in 0..20_000 {
            counts[sampling.choose(&mut logits.to_vec(), &[], 0, step).unwrap() as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [1.0f32, 2.0, 0.0, 3.0];
        let sampling = Sampling { temperature: 0.5, ..Sampling::default() };
        let weights: Vec<f64> = logits.iter().map(|&x| (f64::from(x) / 0.5).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (share, w) in shares(sampling, &logits).iter().zip(&weights) {
            assert!((share - w / total).abs() < 0.01, "{share} for {}", w / total);
        }
    }

    #[test]
    fn filters_leave_what_they_should() {
        let logits = [1.0f32, 2.0, 0.0, 3.0];
        let left = |s: Sampling| {
            let kept = shares(Sampling { temperature: 1.0, ..s }, &logits).iter().map(|&p| p > 0.0).collect::<Vec<_>>();
            kept.iter().enumerate().filter(|(_, k)| **k).map(|(i, _)| i).collect::<Vec<_>>()
        };
        let plain = Sampling::default();
        assert_eq!(left(plain), [0, 1, 2, 3]);
        assert_eq!(left(Sampling { top_k: 2, ..plain }), [1, 3]);
        // Probabilities are 0.087, 0.237, 0.032 and 0.644.
        assert_eq!(left(Sampling { top_p: 0.7, ..plain }), [1, 3]);
        assert_eq!(left(Sampling { top_p: 0.6, ..plain }), [3]);
        assert_eq!(left(Sampling { min_p: 0.1, ..plain }), [0, 1, 3]);
        assert_eq!(left(Sampling { min_p: 1.0, ..plain }), [3]);
    }

    #[test]
    fn greedy_takes_the_first_best_and_penalties_count_once() {
        let greedy = Sampling::default();
        assert_eq!(greedy.choose(&mut [0.0, 5.0, 5.0], &[], 0, 0).unwrap(), 1);
        let penalised = Sampling { repetition_penalty: 2.0, ..greedy };
        assert_eq!(penalised.choose(&mut [3.0, 5.0, -1.0], &[1, 1, 9], 0, 0).unwrap(), 0);
        let mut negative = [-1.0, -1.5];
        penalised.penalise(&mut negative, &[0]);
        assert_eq!(negative, [-2.0, -1.5]);
        assert!(greedy.choose(&mut [0.0, f32::NAN], &[], 0, 0).is_err());
        assert!(greedy.choose(&mut [f32::NEG_INFINITY], &[], 0, 0).is_err());
        assert!(Sampling { top_p: 0.0, ..greedy }.check().is_err());
        assert!(Sampling { temperature: f32::NAN, ..greedy }.check().is_err());
    }
}
