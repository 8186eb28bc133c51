//! Which entry is nearest, by the scores of the product and, where these are too close, by sums in f64.

use super::super::{Distance, RvqEncode};
use crate::backend::cpu::simd::Simd;
use crate::simd_fn;

/// How far from the best score an entry may be that is nearer, for a packed codebook: of ‖r‖, and besides.
///
/// Sums of `dim` products in f32 err by about √dim rounding steps of ‖r‖·‖e‖; four times that is kept.
pub fn slack_per_length<S: Simd>(op: &RvqEncode, packed: &[f32]) -> [f64; 2] {
    let (dim, nr) = (op.codebook_dim, 2 * S::LANES);
    let panels = packed.chunks_exact((dim + 1) * nr).take(op.codebook_size.div_ceil(nr));
    // Of what pads a panel nothing is known.
    let least = |m: f32, &v: &f32| m.min(if v > f32::NEG_INFINITY { v } else { 0.0 });
    let least = panels.map(|panel| panel[dim * nr..].iter().fold(0.0, least)).fold(0.0, f32::min);
    let longest = match op.distance {
        Distance::Euclidean => f64::from(-2.0 * least).sqrt(),
        Distance::Cosine => 1.0,
    };
    let steps = 4.0 * f64::from(f32::EPSILON) * (op.codebook_dim as f64).sqrt().max(2.0);
    [steps * longest, steps * 0.5 * longest * longest]
}

/// What each lane has kept of a vector.
struct Kept<'a> {
    scores: &'a [f32],
    seconds: &'a [f32],
    numbers: &'a [f32],
    /// What a score has to reach to be weighed.
    limit: f64,
}

impl<'a> Kept<'a> {
    fn new<S: Simd>(s: S, bests: &'a [f32], slack: f64) -> Kept<'a> {
        let (scores, rest) = bests.split_at(S::LANES);
        let (seconds, numbers) = rest.split_at(S::LANES);
        Kept { scores, seconds, numbers, limit: f64::from(s.max_lane(s.load(scores))) - slack }
    }

    fn reaches(&self, score: f32) -> bool {
        f64::from(score) >= self.limit
    }

    /// Lanes whose best scores reach it.
    fn near(&self) -> impl Iterator<Item = usize> {
        (0..self.scores.len()).filter(|&lane| self.reaches(self.scores[lane]))
    }

    /// The entry that a lane's best score is of.
    fn of_lane(&self, lane: usize) -> usize {
        self.numbers[lane].to_bits() as usize * self.scores.len() + lane
    }
}

/// The nearest entry, if no other's score is within `slack` of the largest.
pub fn outright<S: Simd>(s: S, bests: &[f32], slack: f64) -> Option<usize> {
    let kept = Kept::new(s, bests, slack);
    let mut near = kept.near();
    // Where nothing is a number, nothing reaches.
    let Some(lane) = near.next() else { return Some(0) };
    (near.next().is_none() && !kept.reaches(kept.seconds[lane])).then(|| kept.of_lane(lane))
}

/// The nearest entry to a residual: f64 decides among scores that are at most `slack` from the largest.
pub fn weigh<S: Simd>(s: S, op: &RvqEncode, r: &[f32], book: &[f32], bests: &[f32], slack: f64) -> usize {
    let kept = Kept::new(s, bests, slack);
    let (mut best, mut least) = (0, f64::INFINITY);
    let mut weigh = |k: usize| {
        let entry = &book[k * op.codebook_dim..][..op.codebook_dim];
        let distance = match op.distance {
            Distance::Euclidean => distance(s, r, entry),
            // Of the cosine, what depends on the entry.
            Distance::Cosine => -dot(s, r, entry) / squares(s, entry).sqrt().max(1e-12),
        };
        if distance < least || (distance == least && k < best) {
            (best, least) = (k, distance);
        }
    };
    for lane in kept.near() {
        match kept.reaches(kept.seconds[lane]) {
            true => (lane..op.codebook_size).step_by(S::LANES).for_each(&mut weigh),
            false => weigh(kept.of_lane(lane)),
        }
    }
    best
}

pub fn unit_divisor<S: Simd>(s: S, x: &[f32]) -> f32 {
    squares(s, x).sqrt().max(1e-12) as f32
}

/// A sum in f64 of what `$term` makes of each element, in sixteen sums: one would wait for itself.
macro_rules! sum_f64 {
    ($x:ident, $y:ident, |$a:ident, $b:ident| $term:expr) => {{
        let mut sums = [0f64; 16];
        let blocks = $x.chunks_exact(16).zip($y.chunks_exact(16));
        for (x, y) in blocks {
            for (sum, (&$a, &$b)) in sums.iter_mut().zip(x.iter().zip(y)) {
                let ($a, $b) = (f64::from($a), f64::from($b));
                *sum += $term;
            }
        }
        let rest = $x.len() - $x.len() % 16;
        for (sum, (&$a, &$b)) in sums.iter_mut().zip($x[rest..].iter().zip(&$y[rest..])) {
            let ($a, $b) = (f64::from($a), f64::from($b));
            *sum += $term;
        }
        // In pairs: sixteen additions in a row would wait for each other.
        let mut width = sums.len() / 2;
        while width > 0 {
            for i in 0..width {
                sums[i] += sums[i + width];
            }
            width /= 2;
        }
        sums[0]
    }};
}

simd_fn! {
    /// Σ(x - y)².
    fn distance[S](_s, x: &[f32], y: &[f32]) -> f64 {
        sum_f64!(x, y, |a, b| (a - b) * (a - b))
    }
}

simd_fn! {
    /// Σx·y.
    fn dot[S](_s, x: &[f32], y: &[f32]) -> f64 {
        sum_f64!(x, y, |a, b| a * b)
    }
}

simd_fn! {
    /// Σx².
    pub fn squares[S](_s, x: &[f32]) -> f64 {
        sum_f64!(x, x, |a, _b| a * a)
    }
}
