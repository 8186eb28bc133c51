//! The learning rate of each step.

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// Not at all.
    Constant,
    /// On a straight line.
    Linear,
    /// On half a cosine (arXiv 1608.03983).
    Cosine,
}

/// A rise on a straight line, then a fall to a share of the peak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    pub peak: f64,
    pub warmup_steps: usize,
    pub total_steps: usize,
    pub decay: Decay,
    /// The rate at `total_steps` and after, as a share of the peak.
    pub final_ratio: f64,
}

impl Schedule {
    /// The rate of a step, counted from 0: `peak · step / warmup_steps` while it rises, as the schedulers of transformers
    /// have it (so that a first step of a warm-up changes nothing).
    pub fn rate(&self, step: usize) -> f64 {
        let Schedule { peak, warmup_steps, total_steps, decay, final_ratio } = *self;
        if step < warmup_steps {
            return peak * step as f64 / warmup_steps as f64;
        }
        let length = total_steps.saturating_sub(warmup_steps).max(1) as f64;
        let done = ((step - warmup_steps) as f64 / length).min(1.0);
        let left = match decay {
            Decay::Constant => return peak,
            Decay::Linear => 1.0 - done,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        };
        peak * (final_ratio + (1.0 - final_ratio) * left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        let s = Schedule { peak: 2.0, warmup_steps: 4, total_steps: 14, decay: Decay::Cosine, final_ratio: 0.1 };
        assert_eq!((s.rate(0), s.rate(2), s.rate(4)), (0.0, 1.0, 2.0));
        assert!((s.rate(9) - 1.1).abs() < 1e-12);
        assert!((s.rate(14) - 0.2).abs() < 1e-12 && s.rate(99) == s.rate(14));
        let line = Schedule { decay: Decay::Linear, final_ratio: 0.0, ..s };
        assert!((line.rate(9) - 1.0).abs() < 1e-12);
        assert_eq!(Schedule { decay: Decay::Constant, warmup_steps: 0, ..s }.rate(0), 2.0);
    }
}
