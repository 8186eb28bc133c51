//! Frequencies of rotary embeddings, and how they are stretched for sequences longer than those of the training.
//!
//! The steps and their roundings are those of transformers, whose frequencies are f32 from the first power on: angles of
//! far positions would show the difference.

use crate::{Error, Result};
use std::f64::consts::TAU;

/// How frequencies `f_j = theta^(-2j/d)` are stretched.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    Default,
    /// All by the same factor: `f_j / factor`.
    Linear { factor: f64 },
    /// A larger theta where a sequence is longer than `max_positions`:
    /// `theta · (factor·len/max_positions - (factor - 1))^(d/(d-2))`.
    Dynamic { factor: f64, max_positions: usize },
    /// By wavelength (Llama 3.1, arXiv 2407.21783): those below `original_max_positions / high_freq_factor` stay, those
    /// above `original_max_positions / low_freq_factor` are divided by `factor`, those between go over.
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_max_positions: usize },
    /// By rotations over the original length (arXiv 2309.00071).
    Yarn(Yarn),
}

/// The numbers of yarn, under the names of configurations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// Of the longer sequences to the original ones.
    pub factor: f64,
    /// `original_max_position_embeddings`.
    pub original_max_positions: usize,
    /// What cosines and sines are multiplied by; made of the factor and the two `mscale` if not given.
    pub attention_factor: Option<f64>,
    /// Weight of `ln factor` above and below the line of the attention factor, where both are given.
    pub mscale: Option<f64>,
    pub mscale_all_dim: Option<f64>,
    /// Frequencies of more rotations over the original length stay.
    pub beta_fast: f64,
    /// Frequencies of fewer are divided by `factor`.
    pub beta_slow: f64,
    /// Whether the ramp between begins and ends at whole places.
    pub truncate: bool,
}

impl Yarn {
    /// With the defaults of configurations that give no more.
    pub fn new(factor: f64, original_max_positions: usize) -> Yarn {
        Yarn {
            factor,
            original_max_positions,
            attention_factor: None,
            mscale: None,
            mscale_all_dim: None,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
        }
    }

    fn attention_factor(&self) -> f64 {
        let scale = |mscale: f64| if self.factor <= 1.0 { 1.0 } else { 0.1 * mscale * self.factor.ln() + 1.0 };
        // A weight of 0 counts as none.
        let weights = self.mscale.filter(|&m| m != 0.0).zip(self.mscale_all_dim.filter(|&m| m != 0.0));
        self.attention_factor.unwrap_or_else(|| match weights {
            Some((above, below)) => scale(above) / scale(below),
            None => scale(1.0),
        })
    }

    /// The places between which frequencies go over from kept to divided.
    fn ramp(&self, dim: usize, theta: f64) -> (f64, f64) {
        let place = |rotations: f64| {
            dim as f64 * (self.original_max_positions as f64 / (rotations * TAU)).ln() / (2.0 * theta.ln())
        };
        let (low, high) = (place(self.beta_fast), place(self.beta_slow));
        let (low, high) = if self.truncate { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
        // No division by zero.
        if low == high { (low, high + 0.001) } else { (low, high) }
    }
}

/// What frequencies are made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig {
    /// The base of the powers.
    pub theta: f64,
    /// Values of a head that are turned: twice as many as frequencies.
    pub rotary_dim: usize,
    pub scaling: RopeScaling,
}

impl RopeConfig {
    /// The frequencies `inv_freq` [rotary_dim/2] and the factor of cosines and sines that [`rope`](crate::ops::rope::rope)
    /// takes, for a sequence whose largest position is `len - 1` (only dynamic scaling looks at it).
    ///
    /// # Errors
    /// A number makes no sense: an odd dimension, a factor that is not positive, a theta of 1 or less.
    pub fn inv_freq(&self, len: usize) -> Result<(Vec<f32>, f32)> {
        self.check()?;
        let inverse = |powers: Vec<f32>| powers.into_iter().map(|p| 1.0 / p).collect::<Vec<f32>>();
        let frequencies = inverse(self.powers(self.theta));
        Ok(match self.scaling {
            RopeScaling::Default => (frequencies, 1.0),
            RopeScaling::Linear { factor } => (frequencies.into_iter().map(|f| f / factor as f32).collect(), 1.0),
            RopeScaling::Dynamic { factor, max_positions } => {
                let (len, dim) = (len.max(max_positions) as f64, self.rotary_dim as f64);
                let stretch = factor * len / max_positions as f64 - (factor - 1.0);
                (inverse(self.powers(self.theta * stretch.powf(dim / (dim - 2.0)))), 1.0)
            }
            RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_max_positions } => {
                let original = original_max_positions as f64;
                let (longest, shortest) = ((original / low) as f32, (original / high) as f32);
                let stretched = |f: f32| {
                    let wavelength = TAU as f32 / f;
                    if wavelength < shortest {
                        f
                    } else if wavelength > longest {
                        f / factor as f32
                    } else {
                        let share = (original as f32 / wavelength - low as f32) / (high - low) as f32;
                        (1.0 - share) * f / factor as f32 + share * f
                    }
                };
                (frequencies.into_iter().map(stretched).collect(), 1.0)
            }
            RopeScaling::Yarn(yarn) => {
                let (low, high) = yarn.ramp(self.rotary_dim, self.theta);
                let mixed = |(j, power): (usize, f32)| {
                    let ramp = ((j as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                    let kept = 1.0 - ramp;
                    1.0 / (yarn.factor as f32 * power) * (1.0 - kept) + 1.0 / power * kept
                };
                let powers = self.powers(self.theta);
                (powers.into_iter().enumerate().map(mixed).collect(), yarn.attention_factor() as f32)
            }
        })
    }

    /// `theta^(2j/d)`.
    fn powers(&self, theta: f64) -> Vec<f32> {
        let dim = self.rotary_dim as f32;
        (0..self.rotary_dim / 2).map(|j| (theta as f32).powf((2 * j) as f32 / dim)).collect()
    }

    fn check(&self) -> Result<()> {
        let fail = |why: String| Err(Error::Config(format!("rotary embedding: {why}")));
        let positive = |x: f64| x.is_finite() && x > 0.0;
        if self.rotary_dim == 0 || !self.rotary_dim.is_multiple_of(2) {
            return fail(format!("turns an even number of values of a head, got {}", self.rotary_dim));
        }
        if !(self.theta.is_finite() && self.theta > 1.0) {
            return fail(format!("theta must be above 1, is {}", self.theta));
        }
        let sound = match self.scaling {
            RopeScaling::Default => true,
            RopeScaling::Linear { factor } => positive(factor),
            RopeScaling::Dynamic { factor, max_positions } => {
                // Below 1 the base would turn negative for long sequences.
                factor.is_finite() && factor >= 1.0 && max_positions > 0 && self.rotary_dim > 2
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
                positive(factor)
                    && positive(low_freq_factor)
                    && high_freq_factor.is_finite()
                    && high_freq_factor > low_freq_factor
                    && original_max_positions > 0
            }
            RopeScaling::Yarn(yarn) => {
                let given = [yarn.attention_factor, yarn.mscale, yarn.mscale_all_dim];
                positive(yarn.factor)
                    && positive(yarn.beta_fast)
                    && positive(yarn.beta_slow)
                    && yarn.original_max_positions > 0
                    && given.into_iter().flatten().all(f64::is_finite)
            }
        };
        if sound { Ok(()) } else { fail(format!("the numbers of {:?} make no sense", self.scaling)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(theta: f64, rotary_dim: usize, scaling: RopeScaling, len: usize) -> (Vec<f64>, f32) {
        let (f, factor) = RopeConfig { theta, rotary_dim, scaling }.inv_freq(len).unwrap();
        (f.into_iter().map(f64::from).collect(), factor)
    }

    fn close(got: &[f64], want: impl Fn(usize) -> f64) {
        for (j, &f) in got.iter().enumerate() {
            assert!((f / want(j) - 1.0).abs() < 1e-5, "{j}: {f} for {}", want(j));
        }
    }

    #[test]
    fn frequencies_are_the_formulas() {
        let plain = |theta: f64, d: usize, j: usize| theta.powf(-2.0 * j as f64 / d as f64);
        let (f, factor) = frequencies(5e7, 128, RopeScaling::Default, 1);
        assert_eq!((f.len(), f[0], factor), (64, 1.0, 1.0));
        close(&f, |j| plain(5e7, 128, j));

        let (f, _) = frequencies(1e4, 64, RopeScaling::Linear { factor: 4.0 }, 1);
        close(&f, |j| plain(1e4, 64, j) / 4.0);

        let dynamic = RopeScaling::Dynamic { factor: 2.0, max_positions: 2048 };
        close(&frequencies(1e4, 64, dynamic, 100).0, |j| plain(1e4, 64, j));
        // 2·3 - 1 = 5.
        let theta = 1e4 * 5f64.powf(64.0 / 62.0);
        close(&frequencies(1e4, 64, dynamic, 3 * 2048).0, |j| plain(theta, 64, j));
    }

    #[test]
    fn llama3_divides_long_wavelengths() {
        let (factor, low, high, original) = (32.0, 1.0, 4.0, 8192);
        let scaling = RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_positions: original,
        };
        let (f, _) = frequencies(5e5, 64, scaling, 1);
        let mut kinds = [0; 3];
        close(&f, |j| {
            let f = 5e5f64.powf(-(j as f64) / 32.0);
            // Rotations over the original length.
            let rotations = original as f64 * f / TAU;
            if rotations > high {
                f
            } else if rotations < low {
                f / factor
            } else {
                let share = (rotations - low) / (high - low);
                (1.0 - share) * f / factor + share * f
            }
        });
        for &f in &f {
            let place = [TAU / 2048.0, TAU / 8192.0 / 32.0].iter().filter(|&&limit| f < limit).count();
            kinds[place] += 1;
        }
        assert!(kinds.iter().all(|&n| n > 0), "{kinds:?}");
    }

    #[test]
    fn yarn_goes_over_between_the_betas() {
        // d = 128, theta = 1e4, 4096 positions: 32 rotations at place 20.94, one at 45.03.
        let yarn = Yarn::new(16.0, 4096);
        let (f, factor) = frequencies(1e4, 128, RopeScaling::Yarn(yarn), 1);
        assert!((f64::from(factor) - (0.1 * 16f64.ln() + 1.0)).abs() < 1e-6);
        let mixed = |low: f64, high: f64| {
            move |j: usize| {
                let (f, ramp) = (1e4f64.powf(-(j as f64) / 64.0), ((j as f64 - low) / (high - low)).clamp(0.0, 1.0));
                f / 16.0 * ramp + f * (1.0 - ramp)
            }
        };
        close(&f, mixed(20.0, 46.0));
        let (f, _) = frequencies(1e4, 128, RopeScaling::Yarn(Yarn { truncate: false, ..yarn }), 1);
        close(&f, mixed(20.944_481_62, 45.026_881_27));

        let factor = |yarn: Yarn| frequencies(1e4, 128, RopeScaling::Yarn(yarn), 1).1;
        assert_eq!(factor(Yarn { attention_factor: Some(1.25), ..yarn }), 1.25);
        assert_eq!(factor(Yarn { mscale: Some(0.7), mscale_all_dim: Some(0.7), ..yarn }), 1.0);
        assert_eq!(factor(Yarn { factor: 0.5, ..yarn }), 1.0);
        let both = Yarn { mscale: Some(1.0), mscale_all_dim: Some(0.5), ..yarn };
        let log = 0.1 * 16f64.ln();
        assert!((f64::from(factor(both)) - (log + 1.0) / (log * 0.5 + 1.0)).abs() < 1e-6);
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = |theta: f64, rotary_dim: usize, scaling: RopeScaling| {
            RopeConfig { theta, rotary_dim, scaling }.inv_freq(1).is_err()
        };
        assert!(refused(1e4, 0, RopeScaling::Default) && refused(1e4, 7, RopeScaling::Default));
        assert!(refused(1.0, 8, RopeScaling::Default) && refused(f64::NAN, 8, RopeScaling::Default));
        assert!(refused(1e4, 8, RopeScaling::Linear { factor: 0.0 }));
        assert!(refused(1e4, 2, RopeScaling::Dynamic { factor: 2.0, max_positions: 10 }));
        assert!(refused(1e4, 8, RopeScaling::Yarn(Yarn::new(2.0, 0))));
    }
}
