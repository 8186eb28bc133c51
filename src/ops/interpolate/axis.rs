//! The taps of one axis: which points each output reads, with which weights; and the same map the other way round.

use super::{Interpolate, Mode};

/// For every output, points and their weights; a weight may be 0, at a point that exists.
pub struct Axis {
    /// Where each output's taps begin, and where the last one's end.
    starts: Vec<usize>,
    points: Vec<usize>,
    weights: Vec<f32>,
}

/// Half the width of a mode's filter, in points.
fn support(mode: Mode) -> f64 {
    if mode == Mode::Bicubic { 2.0 } else { 1.0 }
}

/// The distance of outputs, in points given.
fn step(op: &Interpolate, inputs: usize, outputs: usize) -> f64 {
    match (op.align_corners, outputs) {
        (false, _) => inputs as f64 / outputs as f64,
        (true, 0 | 1) => 0.0,
        (true, _) => (inputs as f64 - 1.0) / (outputs as f64 - 1.0),
    }
}

/// Most taps of an output.
pub fn taps(op: &Interpolate, inputs: usize, outputs: usize) -> usize {
    match op.mode {
        Mode::Nearest => 1,
        mode if !op.antialias => 2 * support(mode) as usize,
        mode => {
            let half = support(mode) * step(op, inputs, outputs).max(1.0);
            (half.ceil() as usize * 2 + 1).min(inputs)
        }
    }
}

/// Keys' cubic, Catmull-Rom's for a = -1/2.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    match x {
        _ if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        _ if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}

impl Axis {
    /// Points and weights of output `i`.
    pub fn taps(&self, i: usize) -> (&[usize], &[f32]) {
        let taps = self.starts[i]..self.starts[i + 1];
        (&self.points[taps.clone()], &self.weights[taps])
    }

    /// As words for a shader, and where the three lists begin: where each output's taps begin and the last one's end,
    /// points, weights.
    pub fn words(&self) -> (Vec<u32>, [usize; 3]) {
        let whole = |list: &[usize]| list.iter().map(|&n| n as u32).collect::<Vec<_>>();
        let weights = self.weights.iter().map(|w| w.to_bits()).collect();
        let places = [0, self.starts.len(), self.starts.len() + self.points.len()];
        ([whole(&self.starts), whole(&self.points), weights].concat(), places)
    }

    /// The transposed map: for each of the points, the outputs that read it.
    pub fn transposed(&self, points: usize) -> Axis {
        let outputs = self.starts.len() - 1;
        let used = |i: usize| {
            let (points, weights) = self.taps(i);
            points.iter().zip(weights).filter(|(_, w)| **w != 0.0)
        };
        let mut starts = vec![0; points + 1];
        (0..outputs).flat_map(used).for_each(|(&p, _)| starts[p + 1] += 1);
        (0..points).for_each(|p| starts[p + 1] += starts[p]);
        let count = starts[points];
        let (mut next, mut axis) = (starts.clone(), Axis { starts, points: vec![0; count], weights: vec![0.0; count] });
        for i in 0..outputs {
            for (&p, &w) in used(i) {
                (axis.points[next[p]], axis.weights[next[p]]) = (i, w);
                next[p] += 1;
            }
        }
        axis
    }

    /// Weights are computed in f64 and rounded once.
    pub fn new(op: &Interpolate, inputs: usize, outputs: usize) -> Axis {
        let taps = taps(op, inputs, outputs);
        let mut axis = Axis {
            starts: (0..=outputs).map(|i| i * taps).collect(),
            points: vec![0; outputs * taps],
            weights: vec![0.0; outputs * taps],
        };
        let step = step(op, inputs, outputs);
        for (i, (points, weights)) in
            axis.points.chunks_exact_mut(taps.max(1)).zip(axis.weights.chunks_exact_mut(taps.max(1))).enumerate()
        {
            match op.mode {
                // In f32, as PyTorch computes it: where a product falls just below a point, so must this one.
                Mode::Nearest => {
                    points[0] = ((i as f32 * (inputs as f32 / outputs as f32)) as usize).min(inputs - 1);
                    weights[0] = 1.0;
                }
                mode if op.antialias => {
                    let scale = step.max(1.0);
                    let (half, centre) = (support(mode) * scale, step * (i as f64 + 0.5));
                    // Casts cut towards zero, negative numbers to zero.
                    let first = (centre - half + 0.5) as usize;
                    let end = ((centre + half + 0.5) as usize).min(inputs);
                    let weight = |p: usize| {
                        let x = (p as f64 - centre + 0.5) / scale;
                        if mode == Mode::Bicubic { cubic(x, -0.5) } else { (1.0 - x.abs()).max(0.0) }
                    };
                    let inside = first.min(inputs - 1)..end.min(first + taps);
                    let sum: f64 = inside.clone().map(weight).sum();
                    for ((p, w), at) in points.iter_mut().zip(weights).zip(inside) {
                        *p = at;
                        *w = (weight(at) / if sum != 0.0 { sum } else { 1.0 }) as f32;
                    }
                }
                mode => {
                    let centre = if op.align_corners { step * i as f64 } else { step * (i as f64 + 0.5) - 0.5 };
                    // A straight line never leaves the points; a cubic reads beyond the border, where values repeat.
                    let centre = if mode == Mode::Bilinear { centre.max(0.0) } else { centre };
                    let before = support(mode) as isize - 1;
                    let base = centre.floor() as isize - before;
                    for (t, (p, w)) in points.iter_mut().zip(weights).enumerate() {
                        let at = base + t as isize;
                        let x = at as f64 - centre;
                        *p = at.clamp(0, inputs as isize - 1) as usize;
                        *w = if mode == Mode::Bicubic { cubic(x, -0.75) } else { 1.0 - x.abs() } as f32;
                    }
                }
            }
        }
        axis
    }
}
