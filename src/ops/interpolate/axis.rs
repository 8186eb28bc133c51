//! The taps of one axis: which points each output reads, with which weights.

use super::{Interpolate, Mode};

/// For every output, `taps` points and their weights; unused places have weight 0 and a point that exists.
pub struct Axis {
    pub taps: usize,
    pub points: Vec<usize>,
    pub weights: Vec<f32>,
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
    /// Weights are computed in f64 and rounded once.
    pub fn new(op: &Interpolate, inputs: usize, outputs: usize) -> Axis {
        let taps = taps(op, inputs, outputs);
        let mut axis = Axis { taps, points: vec![0; outputs * taps], weights: vec![0.0; outputs * taps] };
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
